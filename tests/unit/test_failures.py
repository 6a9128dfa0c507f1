"""Hours of groups of failures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from notifier.domain.failures import HOURS, begin_of, per_hour


def test_the_hours_are_those_of_utc_and_end_with_the_present_one() -> None:
    now = datetime(2026, 12, 1, 14, 59, 59, 999, tzinfo=UTC)
    assert begin_of(now) == datetime(2026, 11, 30, 15, tzinfo=UTC)
    india = timezone(timedelta(hours=5, minutes=30))
    assert begin_of(now.astimezone(india)) == begin_of(now)


def test_parts_of_the_same_hour_are_added() -> None:
    hours = per_hour([(0, 2), (HOURS - 1, 1), (0, 3)])
    assert hours == [5, *[0] * (HOURS - 2), 1]


def test_what_failed_by_a_clock_that_is_ahead_counts_in_the_present_hour() -> None:
    assert per_hour([(HOURS, 2), (HOURS - 1, 1)])[-1] == 3
