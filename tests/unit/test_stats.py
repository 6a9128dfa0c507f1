"""Statistics: steps, histograms, and what changes add to which rows."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.notification import FINAL
from notifier.domain.stats import (
    BOUNDS_S,
    CALL,
    COUNTED,
    MAX_TAGS,
    OTHER,
    REFUSED,
    Change,
    Step,
    TagHour,
    quantile,
    roll_up,
    tag_hours,
)

MINUTE = datetime(2026, 12, 1, 3, 7, tzinfo=UTC)
HOUR = TagHour(MINUTE.replace(minute=0), "shop", is_test=False)


def a_change(
    what: str = "accepted",
    number: int = 1,
    *,
    minute: datetime = MINUTE,
    tag: str = "",
    reason: str = "",
    buckets: tuple[int | None, int | None] = (None, None),
) -> Change:
    return Change(
        minute=minute,
        tenant="shop",
        is_test=False,
        queue="email.low",
        tag=tag,
        provider="relay",
        what=what,
        reason=reason,
        wait_bucket=buckets[0],
        call_bucket=buckets[1],
        number=number,
    )


def histogram_of(values: list[float]) -> list[int]:
    """Counts as Postgres's width_bucket does."""
    counts = Counter(bisect_right(BOUNDS_S, value) for value in values)
    return [counts[bucket] for bucket in range(max(counts, default=-1) + 1)]


@pytest.mark.parametrize(
    ("step", "begin"),
    [
        (Step.MINUTE, datetime(2026, 12, 1, 3, 7, tzinfo=UTC)),
        (Step.HOUR, datetime(2026, 12, 1, 3, tzinfo=UTC)),
        (Step.DAY, datetime(2026, 12, 1, tzinfo=UTC)),
    ],
)
def test_a_step_begins_by_the_clock_of_utc(step: Step, begin: datetime) -> None:
    at = datetime(2026, 12, 1, 6, 37, 8, 9, tzinfo=timezone(timedelta(hours=3, minutes=30)))
    assert step.begin(at) == begin
    assert step.begin(begin) == begin
    assert step.begin(begin + step.span - timedelta(microseconds=1)) == begin


def test_the_bounds_grow_by_at_most_a_fifth_up_to_most_of_a_day() -> None:
    assert BOUNDS_S[0] == 0.001
    assert all(1 < high / low < 1.2 for low, high in pairwise(BOUNDS_S))
    assert 75_000 < BOUNDS_S[-1] < 86_400


@given(
    st.lists(st.floats(0.001, BOUNDS_S[-1], exclude_max=True), min_size=1, max_size=200),
    st.sampled_from([0.5, 0.95, 0.99]),
)
def test_a_quantile_is_at_most_a_bucket_away_from_the_exact_one(
    values: list[float], share: float
) -> None:
    found = quantile(histogram_of(values), share)
    exact = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    assert found is not None
    assert exact / 1.2 < found < exact * 1.2


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([0.0], 0.0005), ([100_000.0, 200_000.0], BOUNDS_S[-1]), ([0.001] * 4, 0.0010946)],
)
def test_a_quantile_of_few_and_of_extreme_values(
    values: list[float], expected: float | None
) -> None:
    found = quantile(histogram_of(values), 0.5)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_values_above_the_last_bound_count_as_it() -> None:
    assert quantile(histogram_of([0.01] * 9 + [1e9]), 0.99) == BOUNDS_S[-1]


def test_a_change_counts_in_its_minute_hour_and_day() -> None:
    added = roll_up([a_change(), a_change(number=2), a_change(minute=MINUTE.replace(minute=8))], {})
    accepted = {
        (key.step, key.at.hour, key.at.minute): row.counts["accepted"] for key, row in added.items()
    }
    assert accepted == {
        (Step.MINUTE, 3, 7): 3,
        (Step.MINUTE, 3, 8): 1,
        (Step.HOUR, 3, 0): 4,
        (Step.DAY, 0, 0): 4,
    }


def test_what_is_sent_again_is_taken_back() -> None:
    changes = [
        a_change("failed", 5, reason=REFUSED),
        a_change("failed", -5, reason=REFUSED),
        a_change("failed"),
    ]
    counts = {key.step: row.counts for key, row in roll_up(changes, {}).items()}
    assert counts[Step.DAY] == Counter({"failed": 1, REFUSED: 0})


def test_of_calls_those_that_were_accepted_are_sent() -> None:
    changes = [
        a_change(CALL, 2, reason="refused", buckets=(3, 1)),
        a_change(CALL, 1, reason="accepted", buckets=(0, None)),
    ]
    row = next(iter(roll_up(changes, {}).values()))
    assert (row.counts, row.waits, row.calls) == (Counter(sent=1), [1, 0, 0, 2], [0, 2])


def test_a_status_that_a_later_version_writes_is_left_out() -> None:
    assert not any(row.counts for row in roll_up([a_change("paid")], {}).values())


def test_every_final_status_is_counted() -> None:
    assert set(FINAL) <= set(COUNTED)


def test_tags_beyond_those_of_the_hour_count_as_other() -> None:
    known = {HOUR: [*(f"t{number}" for number in range(MAX_TAGS - 1)), OTHER]}
    changes = [a_change(tag="t1"), a_change(tag="new"), a_change(tag="newer"), a_change()]
    next_hour = a_change(tag="newer", minute=MINUTE + timedelta(hours=1))
    assert tag_hours([*changes, next_hour]) == {
        HOUR,
        HOUR._replace(at=HOUR.at + timedelta(hours=1)),
    }
    added = roll_up([*changes, next_hour], known)
    tags = {(key.at.hour, key.tag) for key in added if key.step is Step.HOUR}
    assert tags == {(3, "t1"), (3, "new"), (3, OTHER), (3, ""), (4, "newer")}
