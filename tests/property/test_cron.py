"""Cron expressions against a clock that walks minute by minute through changes of clocks."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.domain.cron import Cron
from tests.property.test_quiet_hours import CHANGES, MINUTE, ZONES

if TYPE_CHECKING:
    from collections.abc import Iterator

HOURS = 30


class Fields(NamedTuple):
    """Minutes and hours; None is a star."""

    minutes: frozenset[int] | None
    hours: frozenset[int] | None

    @property
    def text(self) -> str:
        return f"{_text(self.minutes)} {_text(self.hours)} * * *"

    def match(self, wall_time: datetime) -> bool:
        return (self.minutes is None or wall_time.minute in self.minutes) and (
            self.hours is None or wall_time.hour in self.hours
        )


def _text(values: frozenset[int] | None) -> str:
    return "*" if values is None else ",".join(map(str, sorted(values)))


def some(top: int) -> st.SearchStrategy[frozenset[int]]:
    return st.frozensets(st.integers(0, top), min_size=1, max_size=4)


fields = st.builds(Fields, st.one_of(st.none(), some(59)), st.one_of(st.none(), some(23), some(3)))
starts = st.tuples(st.sampled_from(CHANGES), st.integers(-26 * 60, 60)).map(
    lambda drawn: drawn[0] + drawn[1] * MINUTE
)


def walked(drawn: Fields, zone: ZoneInfo, start: datetime) -> Iterator[datetime]:
    """The instants after `start`, for HOURS, as somebody with a clock would find them.

    Each minute is looked at. A named time runs the first time that the clock shows it; what the
    clock leaves out runs in the minute in which it does.
    """
    is_interval = None in drawn
    before = start.astimezone(zone).replace(tzinfo=None)
    # What the clock has shown in the day before is known: it does not run a second time.
    shown = {(start - n * MINUTE).astimezone(zone).replace(tzinfo=None) for n in range(26 * 60)}
    for n in range(1, HOURS * 60 + 1):
        instant = start + n * MINUTE
        wall_time = instant.astimezone(zone).replace(tzinfo=None)
        if is_interval:
            runs = drawn.match(wall_time)
        else:
            steps = max(1, (wall_time - before) // MINUTE)
            passed = [wall_time - k * MINUTE for k in range(steps)]
            runs = any(drawn.match(each) and each not in shown for each in passed)
            shown.update(passed)
        if runs:
            yield instant
        before = wall_time


@settings(max_examples=400)
@given(st.sampled_from(ZONES), fields, starts)
def test_the_instants_are_those_that_a_clock_on_the_wall_would_show(
    zone: str, drawn: Fields, start: datetime
) -> None:
    cron = Cron.parse(drawn.text, zone)
    last = start + HOURS * timedelta(hours=1)
    found = []
    instant = cron.next_after(start)
    while instant is not None and instant <= last:
        found.append(instant)
        instant = cron.next_after(instant)
    assert found == list(walked(drawn, ZoneInfo(zone), start))


@settings(max_examples=200)
@given(st.sampled_from(ZONES), fields, starts, st.integers(0, 59))
def test_where_one_begins_to_ask_does_not_change_the_next_instant(
    zone: str, drawn: Fields, start: datetime, seconds: int
) -> None:
    cron = Cron.parse(drawn.text, zone)
    following = cron.next_after(start)
    assert following is not None
    between = (start + n * MINUTE for n in itertools.count())
    for each in itertools.takewhile(lambda instant: instant < following - MINUTE, between):
        assert cron.next_after(each + timedelta(seconds=seconds)) == following


@settings(max_examples=200)
@given(st.sampled_from(ZONES), fields, starts, st.integers(0, 3 * 24 * 60))
def test_the_newest_instant_is_the_last_of_all_until_now(
    zone: str, drawn: Fields, start: datetime, minutes: int
) -> None:
    cron = Cron.parse(drawn.text, zone)
    first = cron.next_after(start)
    assert first is not None
    now = first + minutes * MINUTE
    every = [first]
    while (later := cron.next_after(every[-1])) is not None and later <= now:
        every.append(later)
    found = cron.newest_due(first, now.astimezone(UTC))
    assert (found.at, found.missed) == (every[-1], min(len(every) - 1, 1000))
