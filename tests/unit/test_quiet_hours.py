"""When quiet hours end, also over the changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from notifier.domain.quiet_hours import QuietHours
from notifier.domain.time_zones import is_time_zone

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def quiet(start: str, end: str, time_zone: str = BERLIN) -> QuietHours:
    return QuietHours(
        start=time.fromisoformat(start), end=time.fromisoformat(end), time_zone=time_zone
    )


NIGHT = quiet("21:00", "08:00")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local_end(hours: QuietHours, instant: str) -> str | None:
    """The end by the clock on the wall, with its offset from UTC."""
    end = hours.ends_at(utc(instant))
    return (
        None
        if end is None
        else end.astimezone(ZoneInfo(hours.time_zone)).isoformat(timespec="minutes")
    )


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        ("2026-06-10T18:59", None),
        ("2026-06-10T19:00", "2026-06-11T08:00+02:00"),
        ("2026-06-10T23:30", "2026-06-11T08:00+02:00"),
        ("2026-06-11T05:59:59", "2026-06-11T08:00+02:00"),
        ("2026-06-11T06:00", None),
        ("2026-06-11T12:00", None),
    ],
)
def test_a_night_ends_in_the_morning_and_not_at_other_times(
    instant: str, expected: str | None
) -> None:
    assert local_end(NIGHT, instant) == expected


def test_hours_of_one_day_end_on_that_day() -> None:
    assert local_end(quiet("12:30", "14:00"), "2026-06-10T11:15") == "2026-06-10T14:00+02:00"
    assert local_end(quiet("12:30", "14:00"), "2026-06-10T22:15") is None


@pytest.mark.parametrize(
    ("time_zone", "start", "end", "instant", "expected"),
    [
        # Spring: the night is an hour (half an hour on Lord Howe) shorter.
        (BERLIN, "21:00", "08:00", "2026-03-28T21:00", "2026-03-29T08:00+02:00"),
        (NEW_YORK, "21:00", "08:00", "2026-03-08T03:00", "2026-03-08T08:00-04:00"),
        (LORD_HOWE, "21:00", "08:00", "2026-10-03T12:00", "2026-10-04T08:00+11:00"),
        # Autumn: it is as much longer.
        (BERLIN, "21:00", "08:00", "2026-10-24T20:00", "2026-10-25T08:00+01:00"),
        (NEW_YORK, "21:00", "08:00", "2026-11-01T02:00", "2026-11-01T08:00-05:00"),
        (LORD_HOWE, "21:00", "08:00", "2026-04-04T11:00", "2026-04-05T08:00+10:30"),
        # An end that the clock leaves out: quiet until the change.
        (BERLIN, "21:00", "02:30", "2026-03-28T22:00", "2026-03-29T03:00+02:00"),
        (NEW_YORK, "21:00", "02:30", "2026-03-08T04:00", "2026-03-08T03:00-04:00"),
        (LORD_HOWE, "21:00", "02:15", "2026-10-03T12:00", "2026-10-04T02:30+11:00"),
        # An end that comes twice: the first one ends it, and then it is quiet again.
        (BERLIN, "21:00", "02:30", "2026-10-24T22:00", "2026-10-25T02:30+02:00"),
        (BERLIN, "21:00", "02:30", "2026-10-25T00:45", None),
        (BERLIN, "21:00", "02:30", "2026-10-25T01:15", "2026-10-25T02:30+01:00"),
        (NEW_YORK, "21:00", "01:30", "2026-11-01T03:00", "2026-11-01T01:30-04:00"),
        (LORD_HOWE, "21:00", "01:45", "2026-04-04T12:00", "2026-04-05T01:45+11:00"),
        # A start that comes twice, and one that is left out.
        (BERLIN, "02:30", "08:00", "2026-10-25T00:45", "2026-10-25T02:00+01:00"),
        (BERLIN, "02:30", "08:00", "2026-03-29T01:00", "2026-03-29T08:00+02:00"),
        (BERLIN, "02:15", "02:45", "2026-03-29T01:00", None),
    ],
)
def test_the_clock_on_the_wall_counts_when_it_is_changed(
    time_zone: str, start: str, end: str, instant: str, expected: str | None
) -> None:
    assert local_end(quiet(start, end, time_zone), instant) == expected


def test_the_time_zone_of_a_notification_goes_before_the_tenants() -> None:
    at_noon_in_berlin = utc("2026-06-10T10:00")
    assert NIGHT.ends_at(at_noon_in_berlin) is None
    assert NIGHT.ends_at(at_noon_in_berlin, NEW_YORK) == utc("2026-06-10T12:00")


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "\0", "Europe"])
def test_a_zone_that_this_machine_does_not_know_counts_as_the_tenants_and_raises_nothing(
    name: str,
) -> None:
    now = utc("2026-06-10T23:00")
    assert not is_time_zone(name)
    assert NIGHT.ends_at(now, name) == NIGHT.ends_at(now)
    assert quiet("21:00", "08:00", name).ends_at(now, name) == utc("2026-06-11T08:00")


def test_an_instant_with_a_fraction_of_a_second_ends_on_time() -> None:
    before_the_change = utc("2026-03-29T00:59:59") + timedelta(microseconds=999_999)
    assert quiet("21:00", "02:30").ends_at(before_the_change) == utc("2026-03-29T01:00")


def test_the_result_is_an_instant_whatever_the_zone_of_the_question() -> None:
    asked = datetime(2026, 6, 11, 1, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert NIGHT.ends_at(asked) is None
    assert NIGHT.ends_at(asked + timedelta(hours=5)) == utc("2026-06-11T06:00")
