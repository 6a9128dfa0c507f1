"""What an HTTP response means: the table of statuses, Retry-After, paths into the JSON body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from notifier.adapters.providers.verdict import VerdictName

_CODE: Final = re.compile(r"[A-Za-z0-9_.:/ -]{1,64}")
_MIN_FRAGMENT_LENGTH: Final = 6
_MAX_SECONDS_DIGITS: Final = 9
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

RFC 9110 15: 2xx accepts the request; 3xx redirects, which means a wrong setting here; 401, 403 and
407 concern our credentials; 408 reports that the server did not wait for the request; 410 means the
target no longer exists; other 4xx would get the same response again; 5xx is a failure of the
server. RFC 8470: 425 asks to repeat the request. RFC 6585: 429 means too many requests.
"""


def verdict_of(
    status: int,
    codes: tuple[str, ...],
    statuses: Mapping[str, VerdictName],
    errors: Mapping[str, VerdictName],
) -> VerdictName:
    """The verdict: from the settings by error code, then by status, then from STATUSES."""
    for code in codes:
        if code in errors:
            return errors[code]
    if str(status) in statuses:
        return statuses[str(status)]
    return next((verdict for range_, verdict in STATUSES if status in range_), "ambiguous")


def retry_after(
    value: str | None, *, now: datetime, date: str | None = None, limit: timedelta
) -> timedelta | None:
    """Parse Retry-After in either form (RFC 9110 10.2.3), up to `limit`; None if invalid or absent.

    A date is compared with the response's own `date` if that is readable, so that the server's
    clock is compared with itself.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        if len(text) > _MAX_SECONDS_DIGITS:
            return limit
        return min(timedelta(seconds=int(text)), limit)
    until = _http_date(text)
    if until is None:
        return None
    since = _http_date(date or "") or now
    return max(timedelta(), min(until - since, limit))


def json_path(document: object, path: str) -> str:
    """The value at a dotted path (`error.details.0.errorCode`) as text; empty if there is none."""
    for step in path.split("."):
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return ""
    return str(document) if isinstance(document, str | int | float) else ""


def is_code(text: str, recipient: str) -> bool:
    """Whether the text is a code like `21211` or `UNREGISTERED`, and no part of the recipient.

    Codes are shown in logs and metrics, and a provider may return anything in their place.
    """
    is_fragment = len(text) >= _MIN_FRAGMENT_LENGTH and text in recipient
    return bool(_CODE.fullmatch(text)) and not is_fragment and recipient.lstrip("+") not in text


def json_document(body: bytes) -> object:
    """The body parsed as JSON, or None."""
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
