"""What an HTTP answer means: the one table of statuses, Retry-After, paths into the JSON body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from notifier.adapters.providers.verdict import VerdictName

_CODE: Final = re.compile(r"[A-Za-z0-9_.:/ -]{1,64}")
_MIN_PIECE_LENGTH: Final = 6
STATUSES: Final[tuple[tuple[range, VerdictName], ...]] = (
    (range(200, 300), "accepted"),
    (range(300, 400), "refused"),
    (range(401, 402), "credentials"),
    (range(403, 404), "credentials"),
    (range(407, 408), "credentials"),
    (range(408, 409), "unavailable"),
    (range(410, 411), "gone"),
    (range(425, 426), "unavailable"),
    (range(429, 430), "throttled"),
    (range(400, 500), "refused"),
    (range(500, 600), "unavailable"),
)
"""By status, first match wins.

RFC 9110 15: 2xx was taken; 3xx would have us send elsewhere, which is a wrong setting; 401, 403
and 407 are about our credentials; 408 was not waited for; 410 is gone for good; other 4xx would be
answered the same again; 5xx failed on their side. RFC 8470: 425 asks to repeat. RFC 6585: 429 is
too fast.
"""


def verdict_of(
    status: int,
    codes: tuple[str, ...],
    statuses: Mapping[str, VerdictName],
    errors: Mapping[str, VerdictName],
) -> VerdictName:
    """The verdict: by error code if the settings know one, by their status, by the table."""
    for code in codes:
        if code in errors:
            return errors[code]
    if str(status) in statuses:
        return statuses[str(status)]
    return next((verdict for within, verdict in STATUSES if status in within), "ambiguous")


def retry_after(
    value: str | None, *, now: datetime, date: str | None = None, most: timedelta
) -> timedelta | None:
    """Retry-After in either form (RFC 9110 10.2.3), at most `most`; None if absent or malformed.

    A date is measured from the answer's own `date` if that is readable, so that the server's clock
    is compared with itself.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        seconds = int(text) if len(text) < 10 else most.total_seconds()  # noqa: PLR2004 digits
        return min(timedelta(seconds=seconds), most)
    until = _http_date(text)
    if until is None:
        return None
    since = _http_date(date or "") or now
    return max(timedelta(), min(until - since, most))


def json_path(document: object, path: str) -> str:
    """What stands at a dotted path (`error.details.0.errorCode`) as text; empty if nothing does."""
    for step in path.split("."):
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return ""
    return str(document) if isinstance(document, str | int | float) else ""


def is_code(text: str, recipient: str) -> bool:
    """Whether it is a word like `21211` or `UNREGISTERED`, and no piece of the recipient.

    Codes enter logs and metrics, and a provider may answer anything in the place of one.
    """
    is_piece = len(text) >= _MIN_PIECE_LENGTH and text in recipient
    return bool(_CODE.fullmatch(text)) and not is_piece and recipient.lstrip("+") not in text


def json_document(body: bytes) -> object:
    """The body as JSON, or None."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _http_date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
