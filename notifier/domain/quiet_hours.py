"""Quiet hours: the hours of a day in which a tenant's less urgent notifications wait.

All of it is computed here and nothing in SQL: Postgres may know other time zones than Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from notifier.domain.notification import Priority
from notifier.domain.time_zones import change_between, zone_named

EXEMPT: Final = frozenset({Priority.HIGH})
"""A login code does not wait for the morning: urgent notifications are sent at any hour."""
_DAY: Final = timedelta(days=1)
_MAX_CHANGES: Final = 4
"""More than any zone changes its clock during one night."""
TIME_EXPECTED: Final = "a time of day from 00:00 to 23:59"
_TIME: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHours:
    """It is quiet while the clock on the wall shows `start` or later and is before `end`.

    `end` may be on the next day; `start` and `end` differ. `time_zone` is that of notifications
    that name none.
    """

    start: time
    end: time
    time_zone: str

    def is_quiet_at(self, wall_time: time) -> bool:
        """Whether it is quiet when the clock on the wall shows this time."""
        if self.start < self.end:
            return self.start <= wall_time < self.end
        return wall_time >= self.start or wall_time < self.end

    def ends_at(self, now: datetime, time_zone: str | None = None) -> datetime | None:
        """Return when the quiet hours end that hold now, None if none do. Raises nothing.

        `now` is an aware instant, and so is the result, in UTC. Where a change of the clock leaves
        out `end`, they end with the change. Where it repeats a time, it is quiet both times.
        """
        zone = zone_named(time_zone or self.time_zone, self.time_zone)
        instant = now.astimezone(UTC)
        if not self._is_quiet(instant, zone):
            return None
        for _ in range(_MAX_CHANGES):
            end = instant + self._until_end(_wall_time(instant, zone))
            change = change_between(instant, end, zone)
            if change is None:
                return end
            if not self._is_quiet(change, zone):
                return change
            instant = change
        return instant

    def _is_quiet(self, instant: datetime, zone: ZoneInfo) -> bool:
        return self.is_quiet_at(_wall_time(instant, zone))

    def _until_end(self, wall_time: time) -> timedelta:
        """Return for how long it is quiet by a clock that is not changed; at least a moment."""
        left = _since_midnight(self.end) - _since_midnight(wall_time)
        return left if left > timedelta() else left + _DAY


def is_time_of_day(text: str) -> bool:
    """Whether this is a time of day such as 21:00."""
    return _TIME.fullmatch(text) is not None


def quiet_hours(start: str, end: str, time_zone: str) -> QuietHours:
    """Return the quiet hours between two times of day such as 21:00.

    Raises ValueError, with the expected value, if they are not such times, or equal.
    """
    if not (is_time_of_day(start) and is_time_of_day(end)):
        raise ValueError(TIME_EXPECTED)
    if start == end:
        raise ValueError("another time than `start`")
    return QuietHours(
        start=time.fromisoformat(start), end=time.fromisoformat(end), time_zone=time_zone
    )


def _wall_time(instant: datetime, zone: ZoneInfo) -> time:
    return instant.astimezone(zone).time()


def _since_midnight(wall_time: time) -> timedelta:
    return timedelta(
        hours=wall_time.hour,
        minutes=wall_time.minute,
        seconds=wall_time.second,
        microseconds=wall_time.microsecond,
    )
