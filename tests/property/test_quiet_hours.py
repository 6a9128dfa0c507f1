"""Quiet hours against a clock that walks through them minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier.domain.quiet_hours import QuietHours

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",  # changes at midnight
    "Africa/Casablanca",  # changes around Ramadan
    "Pacific/Chatham",
    "Asia/Kolkata",
)
MINUTE = timedelta(minutes=1)
CHANGES = [
    datetime.fromisoformat(day).replace(tzinfo=UTC)
    for day in (
        *("2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00"),
        *("2026-04-04T15:00", "2026-10-03T15:30", "2026-04-05T03:00", "2026-09-06T04:00"),
        *("2026-02-15T02:00", "2026-03-22T02:00"),
    )
]
minutes = st.integers(0, 24 * 60 - 1).map(lambda n: time(n // 60, n % 60))
instants = st.one_of(
    st.tuples(st.sampled_from(CHANGES), st.integers(-30 * 60, 30 * 60)).map(
        lambda drawn: drawn[0] + drawn[1] * MINUTE
    ),
    st.integers(0, 366 * 24 * 60).map(lambda n: datetime(2026, 1, 1, tzinfo=UTC) + n * MINUTE),
)


def walked(start: time, end: time, now: datetime, zone: ZoneInfo) -> datetime | None:
    """The first minute from `now` on that is not quiet; None if that is `now`."""
    instant = now
    while _is_quiet(instant.astimezone(zone).time(), start, end):
        instant += MINUTE
    return None if instant == now else instant


def _is_quiet(wall_time: time, start: time, end: time) -> bool:
    if start <= end:
        return start <= wall_time < end
    return not end <= wall_time < start


@settings(max_examples=400)
@given(st.sampled_from(ZONES), minutes, minutes, instants)
@example("Europe/Berlin", time(21), time(2, 30), CHANGES[0] - 5 * MINUTE)
@example("Europe/Berlin", time(21), time(2, 30), CHANGES[1] - 40 * MINUTE)
@example("Europe/Berlin", time(21), time(2, 30), CHANGES[1] + 10 * MINUTE)
def test_they_end_when_a_clock_on_the_wall_says_so(
    zone: str, start: time, end: time, now: datetime
) -> None:
    if start == end:
        return
    hours = QuietHours(start=start, end=end, time_zone="UTC")
    assert hours.ends_at(now, zone) == walked(start, end, now, ZoneInfo(zone))
