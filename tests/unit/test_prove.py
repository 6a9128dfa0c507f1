"""The judge of `make prove`: what it makes of a log, and of several rounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf

import pytest

from benchmarks.prove.lines import LINES, MANY_WORKERS, ONE_WORKER, SIZE, SPEED, WATCHED
from harness.figure import Figure, failed, format_value, judge, never
from harness.judge import (
    count_within,
    doubled,
    first_calls,
    instants,
    max_in_any_second,
    percentile,
    times_accepted,
    unexplained_repeats,
    waits,
)

START = datetime(2030, 1, 1, tzinfo=UTC)


def call(which: str, *, after_s: float = 0, accepted: bool = True) -> dict[str, object]:
    at = START + timedelta(seconds=after_s)
    return {"notification_id": which, "at": at, "accepted": accepted}


def test_only_what_was_accepted_counts_as_sent() -> None:
    accepted = times_accepted([call("a"), call("a"), call("b"), call("b", accepted=False)])
    assert accepted == {"a": 2, "b": 1}
    assert doubled(accepted) == {"a"}


def test_one_send_more_is_forgiven_to_each_that_was_in_flight() -> None:
    assert unexplained_repeats({"a": 2, "b": 1}, {"a"}) == 0
    assert unexplained_repeats({"a": 2, "b": 1}, {"b"}) == 1
    assert unexplained_repeats({"a": 3, "b": 1}, {"a", "b"}) == 1
    assert unexplained_repeats({"a": 1}, {"a"}) == 0


def test_instants_are_sorted_and_of_those_asked_for() -> None:
    calls = [call("a", after_s=2), call("b", after_s=1), call("c")]
    assert instants(calls, {"a", "b"}) == [START.timestamp() + 1, START.timestamp() + 2]


def test_a_wait_ends_with_the_first_call_of_the_same_notification() -> None:
    called = first_calls([call("b", after_s=9), call("a", after_s=2), call("a", after_s=1)])
    assert waits({"a": START.timestamp() + 0.5}, called) == [500]


def test_a_second_is_looked_for_wherever_it_begins() -> None:
    assert max_in_any_second([]) == 0
    assert max_in_any_second([0.0, 0.9, 1.0, 1.1, 1.8]) == 4
    assert max_in_any_second([0.0, 1.0, 2.0]) == 1


def test_a_span_has_its_start_and_not_its_end() -> None:
    assert count_within([0.0, 1.0, 2.0], 0, 2) == 2


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


def test_the_median_decides_where_one_slow_round_may_be() -> None:
    rounds = [[Figure(name="n", value=value, high=10)] for value in (1, 99, 2)]
    (verdict,) = judge("line", rounds)
    assert verdict.is_met
    assert verdict.measured == "2  (1, 99, 2)"


def test_the_worst_round_decides_what_must_never_be() -> None:
    (verdict,) = judge("line", [[never("doubles", count)] for count in (0, 3, 0)])
    assert not verdict.is_met
    assert (verdict.target, verdict.measured) == ("0", "3  (0, 3, 0)")


def test_rounds_with_other_figures_are_no_rounds_of_one_line() -> None:
    with pytest.raises(ValueError, match="shorter"):
        judge("line", [[never("a", 0), never("b", 0)], [never("a", 0)]])


def test_a_figure_without_a_bound_is_met_and_a_line_that_broke_is_not() -> None:
    assert Figure(name="n", value=7).is_met
    verdict = failed("line", AssertionError("not so\nwithin 90 s"))
    assert not verdict.is_met
    assert verdict.measured == "AssertionError: not so within 90 s"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [(0.973, "%", "97.3 %"), (12000, "", "12,000"), (3.14159, "s", "3.14 s"), (inf, "s", "never")],
)
def test_numbers_are_said_short(value: float, unit: str, words: str) -> None:
    assert format_value(value, unit) == words


def test_every_line_has_a_name_of_its_own() -> None:
    assert len(LINES) == len((*ONE_WORKER, *MANY_WORKERS, *WATCHED, *SPEED, *SIZE))
    assert all(name == line.__name__ for name, line in LINES.items())
