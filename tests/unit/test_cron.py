"""Cron expressions: what they mean, and what a change of the clock does to their instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from notifier.domain.cron import CRON_EXPECTED, MAX_COUNTED, MAX_CRON_LENGTH, Cron

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def instants(cron: Cron, after: datetime) -> Iterator[datetime]:
    instant = cron.next_after(after)
    while instant is not None:
        yield instant
        instant = cron.next_after(instant)


def until(text: str, zone: str, first: str, last: str) -> list[str]:
    """The instants of an expression after `first` and until `last`, as hours and minutes of UTC."""
    found = []
    for instant in instants(Cron.parse(text, zone), at(first)):
        if instant > at(last):
            break
        found.append(f"{instant:%H:%M}")
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 9 * * MON-FRI", ["01-01 09:30", "01-02 09:30", "01-05 09:30"]),
        ("30 9 * * 1-5", ["01-01 09:30", "01-02 09:30", "01-05 09:30"]),
        ("*/20 8-9 * * *", ["01-01 08:00", "01-01 08:20", "01-01 08:40"]),
        ("0 0 1,15 * *", ["01-15 00:00", "02-01 00:00", "02-15 00:00"]),
        ("0 0 1 jan,Jul *", ["07-01 00:00", "01-01 00:00", "07-01 00:00"]),
        ("5/25 10 * * sun", ["01-04 10:05", "01-04 10:30", "01-04 10:55"]),
        ("0 12 * * 0", ["01-04 12:00", "01-11 12:00", "01-18 12:00"]),
        ("0 12 * * 7", ["01-04 12:00", "01-11 12:00", "01-18 12:00"]),
        # Both days given: either is enough. One of them `*`: the other decides.
        ("0 0 13 * FRI", ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),
        ("0 0 */2 * FRI", ["01-09 00:00", "01-23 00:00", "02-13 00:00"]),
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 * * 5L", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * * MON#2", ["01-12 00:00", "02-09 00:00", "03-09 00:00"]),
        ("0  0   29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        ("0 0 31 2 MON", ["02-02 00:00", "02-09 00:00", "02-16 00:00"]),
    ],
)
def test_an_expression_has_these_instants(text: str, expected: list[str]) -> None:
    found = islice(instants(Cron.parse(text, "UTC"), at("2026-01-01T00:00")), 3)
    assert [f"{instant:%m-%d %H:%M}" for instant in found] == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "* * * *", "* * * * * *", "0 0 0 * *", "60 * * * *", "* 24 * * *", "* * 32 * *"),
        *(
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "@daily",
            "1;2 * * * *",
        ),
        *("* * * * MONDAY", "* * 30 2 *", "٣ * * * *", "*\t* * * *", "* * * * *\n", " * * * * *"),
        *("1,,2 * * * *", "1- * * * *", "-1 * * * *", "*/*/* * * * *", "L * * * *", "* * * * L"),
        "9" * 5000 + " * * * *",
        "1," * MAX_CRON_LENGTH + "1 * * * *",
    ],
)
def test_what_is_no_expression_is_refused_and_says_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="five fields") as refused:
        Cron.parse(text, "UTC")
    assert str(refused.value).startswith(CRON_EXPECTED)


def test_a_rare_instant_is_found() -> None:
    cron = Cron.parse("0 0 29 2 */7", "UTC")  # a Sunday
    assert cron.next_after(at("2088-03-01T00:00")) == at("2128-02-29T00:00")
    # The last weekday of a month is no Sunday.
    never = Cron.parse("0 0 LW * */7", "UTC")
    assert never.next_after(at("2026-01-01T00:00")) is None


# Each zone with both changes: the last time before, what is left out or comes twice.
@pytest.mark.parametrize(
    ("zone", "text", "first", "last", "expected"),
    [
        # Berlin: at 01:00 UTC on 29 March from 2:00 to 3:00, on 25 October from 3:00 to 2:00.
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00", "2026-03-30T12:00", ["01:00", "00:30"]),
        ("Europe/Berlin", "0,30 2 * * *", "2026-03-29T00:00", "2026-03-29T12:00", ["01:00"]),
        ("Europe/Berlin", "0 2,3 * * *", "2026-03-29T00:00", "2026-03-29T12:00", ["01:00"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00", "2026-10-26T12:00", ["00:30", "01:30"]),
        ("Europe/Berlin", "0 2 * * *", "2026-10-25T00:00", "2026-10-25T12:00", []),
        ("Europe/Berlin", "0 3 * * *", "2026-10-24T12:00", "2026-10-25T12:00", ["02:00"]),
        (
            *("Europe/Berlin", "0 * * * *", "2026-10-24T23:00", "2026-10-25T03:00"),
            ["00:00", "01:00", "02:00", "03:00"],
        ),
        ("Europe/Berlin", "*/30 2 * * *", "2026-03-29T00:00", "2026-03-29T12:00", []),
        (
            *("Europe/Berlin", "*/30 2 * * *", "2026-10-24T12:00", "2026-10-25T12:00"),
            ["00:00", "00:30", "01:00", "01:30"],
        ),
        # New York: at 07:00 UTC on 8 March from 2:00 to 3:00, at 06:00 on 1 November back to 1:00.
        (
            *("America/New_York", "15 2 * * *", "2026-03-07T12:00", "2026-03-09T12:00"),
            ["07:00", "06:15"],
        ),
        (
            *("America/New_York", "15 1 * * *", "2026-10-31T12:00", "2026-11-02T12:00"),
            ["05:15", "06:15"],
        ),
        ("America/New_York", "15 1 * * *", "2026-11-01T05:45", "2026-11-01T12:00", []),
        (
            *("America/New_York", "*/30 * * * *", "2026-11-01T05:00", "2026-11-01T07:00"),
            ["05:30", "06:00", "06:30", "07:00"],
        ),
        # Lord Howe: half an hour, at 15:30 UTC on 3 October from 2:00, at 15:00 on 4 April back.
        (
            *("Australia/Lord_Howe", "10 2 * * *", "2026-10-03T00:00", "2026-10-04T23:00"),
            ["15:30", "15:10"],
        ),
        (
            *("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00", "2026-04-05T23:00"),
            ["14:45", "15:15"],
        ),
        (
            *("Australia/Lord_Howe", "*/10 5 * * *", "2026-10-03T15:00", "2026-10-03T19:00"),
            ["18:00", "18:10", "18:20", "18:30", "18:40", "18:50"],
        ),
        (
            *("Australia/Lord_Howe", "*/10 5 * * *", "2026-04-04T14:00", "2026-04-04T20:00"),
            ["18:30", "18:40", "18:50", "19:00", "19:10", "19:20"],
        ),
        # Santiago: at midnight. 6 September has no time before 1:00, 4 April has 23:00 twice.
        ("America/Santiago", "0 0 * * *", "2026-09-05T12:00", "2026-09-06T12:00", ["04:00"]),
        ("America/Santiago", "*/30 0 * * *", "2026-09-05T12:00", "2026-09-06T12:00", []),
        ("America/Santiago", "30 23 * * *", "2026-04-04T12:00", "2026-04-05T12:00", ["02:30"]),
    ],
)
def test_a_time_that_is_left_out_or_comes_twice_has_one_instant(
    zone: str, text: str, first: str, last: str, expected: list[str]
) -> None:
    assert until(text, zone, first, last) == expected


def test_a_day_that_a_zone_leaves_out_runs_when_it_would_have_begun() -> None:
    cron = Cron.parse("0 12 30 12 *", "Pacific/Apia")  # it went from 29 to 31 December 2011
    assert cron.next_after(at("2011-12-01T00:00")) == at("2011-12-30T10:00")


def test_a_time_zone_that_is_not_known_counts_as_utc() -> None:
    assert Cron.parse("0 9 * * *", "Mars/Olympus").next_after(at("2026-01-01T00:00")) == at(
        "2026-01-01T09:00"
    )


@pytest.mark.parametrize(
    ("text", "first", "now", "newest", "missed"),
    [
        ("* * * * *", "2026-01-01T10:00", "2026-01-01T10:00", "2026-01-01T10:00", 0),
        ("* * * * *", "2026-01-01T10:00", "2026-01-01T10:05", "2026-01-01T10:05", 5),
        ("0 9 * * *", "2026-01-01T09:00", "2026-01-04T08:59", "2026-01-03T09:00", 2),
        ("0 0 1 1 *", "2020-01-01T00:00", "2026-06-01T00:00", "2026-01-01T00:00", 6),
        ("* 9 1 1 *", "2026-01-01T09:00", "2026-06-01T00:00", "2026-01-01T09:59", 59),
        ("* * * * *", "2025-01-01T00:00", "2026-01-01T00:00", "2026-01-01T00:00", MAX_COUNTED),
    ],
)
def test_the_newest_instant_that_has_come_is_found_and_those_before_are_counted(
    text: str, first: str, now: str, newest: str, missed: int
) -> None:
    found = Cron.parse(text, "UTC").newest_due(at(first), at(now) + timedelta(seconds=7))
    assert (found.at, found.missed) == (at(newest), missed)
