"""Reads parts of an HTTP response: Retry-After, and paths into the JSON of the body."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

_CODE: Final = re.compile(r"[A-Za-z0-9_.:/ -]{1,64}")
_MIN_FRAGMENT_LENGTH: Final = 6
_SECONDS: Final = re.compile(r"([0-9]+)(?:\.[0-9]{1,9})?")
_MAX_SECONDS_DIGITS: Final = 9
_MAX_INDEX_DIGITS: Final = 9
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as the BOM of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def retry_after(
    value: str | None, *, now: datetime, date: str | None = None, limit: timedelta
) -> timedelta | None:
    """Parse Retry-After in either form (RFC 9110 10.2.3), up to `limit`; None if invalid or absent.

    Some providers send fractions of seconds.

    A date is compared with the response's own `date` if that is readable, so that the server's
    clock is compared with itself.
    """
    text = (value or "").strip()
    if seconds := _SECONDS.fullmatch(text):
        if len(seconds[1]) > _MAX_SECONDS_DIGITS:
            return limit
        return min(timedelta(seconds=float(text)), limit)
    until = _http_date(text)
    if until is None:
        return None
    since = _http_date(date or "") or now
    return max(timedelta(), min(until - since, limit))


def values_at(document: object, path: str) -> list[str]:
    """The texts, numbers and booleans at a dotted path (`messages.*.status`), as in JSON.

    A number is the index of a list, `*` stands for every entry of a list or an object.
    """
    found = [document]
    for step in path.split("."):
        found = [inner for outer in found for inner in _entries(outer, step)]
    return [as_text(value) for value in found if isinstance(value, str | int | float)]


def as_text(value: str | float) -> str:
    """A value as it is compared: `true`, `29`, `0.5`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_code(text: str, recipient: str) -> bool:
    """Whether the text is a code like `21211` or `UNREGISTERED`, and no part of the recipient.

    Codes are shown in logs and metrics, and a provider may return anything in their place.
    """
    is_fragment = len(text) >= _MIN_FRAGMENT_LENGTH and text in recipient
    return bool(_CODE.fullmatch(text)) and not is_fragment and recipient.lstrip("+") not in text


def json_document(body: bytes) -> object:
    """The body parsed as JSON, or None. UTF-8, UTF-16 and UTF-32 may have a BOM.

    Bytes that are not UTF-8 are read as Latin-1.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(body_text(body))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def body_text(body: bytes) -> str:
    """The body as text: by its BOM, else UTF-8, else Latin-1."""
    for bom, encoding in _BOMS:
        if body.startswith(bom):
            return body.decode(encoding, errors="replace")
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _entries(outer: object, step: str) -> Iterable[object]:
    match outer:
        case dict() if step == "*":
            return outer.values()
        case dict():
            return [outer[step]] if step in outer else []
        case list() if step == "*":
            return outer
        case list() if step.isdecimal() and len(step) <= _MAX_INDEX_DIGITS:
            return outer[int(step) : int(step) + 1]
        case _:
            return []


def _http_date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
