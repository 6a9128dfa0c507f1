"""RFC 3339 instants as text. `datetime.fromisoformat` reads no `Z` before Python 3.11."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Final

_INSTANT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


def parse_instant(text: str) -> datetime:
    """Return an instant in UTC. Raises ValueError for text that is none."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(f"expected an instant such as 2027-01-31T09:00:00Z, got {text[:60]!r}")
    *numbers, fraction, sign, hours, minutes = match.groups()
    year, month, day, hour, minute, second = map(int, numbers)
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    local = datetime(year, month, day, hour, minute, second, micros, timezone.utc)
    return local + offset if sign == "-" else local - offset


def instant_text(name: str, instant: datetime | str) -> str:
    """Return an instant as the API reads it. Raises ValueError, which names the field."""
    if isinstance(instant, str):
        return instant
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise ValueError(f"{name}: expected a datetime with a time zone, got {instant!r}")
    return instant.isoformat()
