"""Time zones, and when their clocks are changed.

All of it is computed here and nothing in SQL: Postgres may know other time zones than Python.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

TIME_ZONE_EXPECTED: Final = "an IANA time zone such as Europe/Berlin"
_SECOND: Final = timedelta(seconds=1)


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


def is_time_zone(name: str) -> bool:
    """Whether this is the name of a time zone that this machine knows."""
    return name in _zone_names()


@lru_cache(1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def zone_named(*names: str) -> ZoneInfo:
    """Return the first zone of these names that this machine knows, else UTC. Raises nothing.

    A machine with other zones than this one may have accepted a name.
    """
    return _zone(next(filter(is_time_zone, names), "UTC"))


def change_between(first: datetime, last: datetime, zone: ZoneInfo) -> datetime | None:
    """Return when the clock is changed after `first` and until `last`, None if it is not.

    Offsets from UTC change at whole seconds. `first` and `last` are at most some days apart: no
    zone changes its clock and back within that time.
    """
    offset = first.astimezone(zone).utcoffset()
    if last.astimezone(zone).utcoffset() == offset:
        return None
    before, after = first, last
    while after - before > _SECOND:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)
