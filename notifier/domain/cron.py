"""Cron expressions: at which instants a schedule runs, also where clocks are changed.

The library parses an expression, and says which times it means of a clock that is never changed.
Which instants these are is decided here: with a time zone, the library leaves out some times after
a change of half an hour, and goes back an hour if it begins between two equal times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from notifier.domain.time_zones import change_between, zone_named

MAX_CRON_LENGTH: Final = 200
CRON_EXPECTED: Final = (
    "the five fields minute, hour, day of month, month and day of week, such as 30 9 * * MON-FRI"
)
MAX_COUNTED: Final = 1000
"""How many instants that were missed are counted."""
_FIELDS: Final = re.compile(r"[0-9A-Za-z*,/#-]+(?: +[0-9A-Za-z*,/#-]+){4}")
_ANY: Final = "*"
_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)
_NEAR: Final = timedelta(days=2)
"""No zone changes its clock by more than a day, and none twice within this time."""


class DueInstant(NamedTuple):
    """The newest instant that has come, and how many before it were missed: MAX_COUNTED at most."""

    at: datetime
    missed: int


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression by the clocks of a time zone. It has instants of whole minutes, in UTC.

    An expression whose minute and hour do not begin with `*` names times of the day. One that a
    change of the clock leaves out runs once, at the change; one that comes twice runs the first
    time. Any other expression names intervals: it runs whenever the clock on the wall shows what
    it says. Debian's cron does the same.
    """

    text: str
    time_zone: str

    @classmethod
    def parse(cls, text: str, time_zone: str) -> Cron:
        """Parse an expression. Raises ValueError, with what was expected."""
        if len(text) > MAX_CRON_LENGTH or not _FIELDS.fullmatch(text):
            raise ValueError(CRON_EXPECTED)
        try:
            CronSim(text, _ANY_TIME)
        except CronSimError as error:
            raise ValueError(f"{CRON_EXPECTED}: {str(error).lower()}") from error
        return cls(" ".join(text.split()), time_zone)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant after an aware one; None if there is none within 50 years."""
        zone, after = zone_named(self.time_zone), instant.astimezone(UTC)
        minute, hour, *_ = self.text.split()
        is_interval = minute.startswith(_ANY) or hour.startswith(_ANY)
        return self._next_shown(after, zone) if is_interval else self._next_named(after, zone)

    def newest_due(self, first: datetime, now: datetime) -> DueInstant:
        """Return the newest instant until `now`. `first` is one of them."""
        newest, span = None, _MINUTE
        while newest is None:
            newest = self._first_within(now, span) if now - span > first else first
            span *= 2
        while (later := self.next_after(newest)) is not None and later <= now:
            newest = later
        return DueInstant(newest, self._count(first, newest))

    def _first_within(self, now: datetime, span: timedelta) -> datetime | None:
        found = self.next_after(now - span)
        return None if found is None or found > now else found

    def _count(self, first: datetime, last: datetime) -> int:
        """Return how many instants there are from `first` to before `last`."""
        count, at = 0, first
        while at < last and count < MAX_COUNTED:
            count += 1
            at = self.next_after(at) or last
        return count

    def _next_named(self, after: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the next instant of an expression that names times of the day.

        Later times never have earlier instants, so no time before that of `after` matters.
        """
        for wall_time in CronSim(self.text, _wall_time(after, zone)):
            found = _instant_of(wall_time, zone)
            if found > after:
                return found
        return None

    def _next_shown(self, after: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the next instant at which the clock shows what the expression says."""
        walked, wall_time = after, _wall_time(after, zone)
        while True:
            shown = next(CronSim(self.text, wall_time), None)
            if shown is None:
                return None
            # As if the clock were not changed from `walked` on.
            found = shown.replace(tzinfo=UTC) - _offset(walked, zone)
            near = min(found, walked + _NEAR)
            change = change_between(walked, near, zone)
            if change is not None:
                walked, wall_time = change, _wall_time(change, zone) - _MINUTE
            elif found == near:
                return found
            else:  # what the clock shows until then differs by a day at most: it does not match
                walked = found - _NEAR
                wall_time = _wall_time(walked, zone)


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def _wall_time(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return what a clock on the wall shows, without a time zone."""
    return instant.astimezone(zone).replace(tzinfo=None)


def _instant_of(wall_time: datetime, zone: ZoneInfo) -> datetime:
    """Return when a clock first shows a time; if it never does, when the change leaves it out."""
    instant = wall_time.replace(tzinfo=zone).astimezone(UTC)
    if _wall_time(instant, zone) == wall_time:
        return instant
    return change_between(instant - _DAY, instant, zone) or instant
