"""Parses the query strings of lists. Unknown and repeated parameters are errors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Request

from notifier.api.http.decode_errors import INSTANT_EXPECTED
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import NotificationId, Priority, Status
from notifier.ports.queries import Filter

PAGING_PARAMETERS: Final = ("cursor", "limit")
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_REASON_LENGTH: Final = 100
_UUID_BYTES: Final = 16
_MAX_LIMIT_DIGITS: Final = 3
_MIN_INSTANT: Final = datetime.fromtimestamp(0, UTC)
_MAX_INSTANT: Final = datetime.max.replace(tzinfo=UTC)

ValueParser = Callable[[str], Any]


class ListQuery:
    """Parses a query string with the given filters, `cursor` and `limit` into a Filter."""

    def __init__(self, *filters: str, channels: Mapping[str, object]) -> None:
        channel = partial(_one_of, "channel", tuple(channels))
        parsers: dict[str, ValueParser] = {**_PARSERS, "channel": channel}
        self._parsers = {name: parsers[name] for name in (*filters, *PAGING_PARAMETERS)}

    def parse(self, request: Request[Any, Any, Any]) -> Filter:
        """Returns the filter. Raises InvalidNotification with the name of a wrong parameter."""
        values: dict[str, Any] = {"limit": DEFAULT_LIMIT}
        seen: set[str] = set()
        for name, text in request.query_params.multi_items():
            if name not in self._parsers:
                raise InvalidNotification(name, f"only {', '.join(self._parsers)} here")
            if name in seen:
                raise InvalidNotification(name, "one value, not several")
            seen.add(name)
            values["before" if name == "cursor" else name] = self._parsers[name](str(text))
        return Filter(**values)


def cursor_after(last: NotificationId) -> str:
    """Returns the cursor of the page with the ids before `last`. Opaque to callers."""
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def _cursor(text: str) -> NotificationId:
    try:
        raw = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _UUID_BYTES:
        raise InvalidNotification("cursor", "the next_cursor of the previous page")
    return NotificationId(UUID(bytes=raw))


def _limit(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_LIMIT_DIGITS
    limit = int(text) if is_number else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidNotification("limit", f"a whole number from 1 to {MAX_LIMIT}")
    return limit


def _instant(name: str, text: str) -> float:
    try:
        at: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError as error:
        raise InvalidNotification(name, f"{INSTANT_EXPECTED} (write + as %2B)") from error
    # The database cannot hold every instant, and no notification is as old or as young as these.
    return min(max(at, _MIN_INSTANT), _MAX_INSTANT).timestamp()


def _one_of(name: str, allowed: tuple[str, ...], text: str) -> str:
    if text not in allowed:
        raise InvalidNotification(name, f"one of {', '.join(allowed)}")
    return text


def _status(text: str) -> Status:
    return Status(_one_of("status", tuple(Status), text))


def _reason(text: str) -> str:
    if not (0 < len(text) <= MAX_REASON_LENGTH and text.isascii() and text.isprintable()):
        raise InvalidNotification("reason", f"1 to {MAX_REASON_LENGTH} printable ASCII characters")
    return text


_PARSERS: Final[Mapping[str, ValueParser]] = {
    "status": _status,
    "priority": partial(_one_of, "priority", tuple(Priority)),
    "reason": _reason,
    "created_from": partial(_instant, "created_from"),
    "created_to": partial(_instant, "created_to"),
    "cursor": _cursor,
    "limit": _limit,
}
