"""What holds of breakers whatever the workers counted."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.breaker import (
    CREDENTIALS_IN_A_ROW,
    MIN_CALLS,
    WINDOW_S,
    ProviderFigures,
    decide_opening,
    is_failure,
)
from notifier.domain.outcome import Accepted, Ambiguous, Outcome, Throttled, Unavailable
from notifier.scheduling.gates.failure_window import FailureWindow

GRAIN_S = 0.5
WORKERS = 3
DOWN = Unavailable(code="503")
OUTCOMES: tuple[Outcome, ...] = (
    Accepted(),
    Throttled(code="429"),
    DOWN,
    Unavailable(code="401", spends=False),
    Unavailable(code="no_connection", spends=False, is_local=True),
    Ambiguous(code="timeout"),
    Ambiguous(code="disconnected"),
)
Call = tuple[float, int, Outcome]
"""When it ended, which worker's it was, and how it ended."""


@st.composite
def calls(draw: st.DrawFn, outcomes: tuple[Outcome, ...] = OUTCOMES) -> list[Call]:
    gaps = draw(st.lists(st.floats(0.001, 4.0), max_size=60))
    worker, outcome = st.integers(0, WORKERS - 1), st.sampled_from(outcomes)
    return [(at, draw(worker), draw(outcome)) for at in accumulate(gaps)]


@st.composite
def said(draw: st.DrawFn) -> ProviderFigures:
    streak = draw(st.integers(0, 30))
    failures = draw(st.integers(0, 60))
    return ProviderFigures(
        calls=failures + draw(st.integers(0, 60)),
        failures=failures,
        streak=streak,
        streak_s=draw(st.floats(0, 60)) if streak else 0.0,
        answered_s=draw(st.none() | st.floats(0, 60)),
        credentials=streak > 0 and draw(st.booleans()),
    )


def counted(history: list[Call], now: float) -> list[ProviderFigures]:
    tallies = [FailureWindow() for _ in range(WORKERS)]
    for at, worker, outcome in history:
        tallies[worker].add(outcome, at)
    return [tally.figures(now) for tally in tallies]


def end_of(history: list[Call]) -> float:
    return history[-1][0] if history else 0.0


@given(calls(), st.floats(0, 12))
def test_a_tally_counts_the_last_ten_seconds_to_half_a_second(
    history: list[Call], later_s: float
) -> None:
    now = end_of(history) + later_s
    for worker, figures in enumerate(counted(history, now)):
        known = [
            (at, failed)
            for at, whose, outcome in history
            if whose == worker and (failed := is_failure(outcome)) is not None
        ]
        surely = [failed for at, failed in known if at > now - WINDOW_S + 1.01 * GRAIN_S]
        at_most = [failed for at, failed in known if at >= now - WINDOW_S]
        assert len(surely) <= figures.calls <= len(at_most)
        assert sum(surely) <= figures.failures <= sum(at_most)


@given(calls())
def test_a_streak_is_all_failures_since_the_last_answer(history: list[Call]) -> None:
    now = end_of(history)
    for worker, figures in enumerate(counted(history, now)):
        known = [
            (at, failed)
            for at, whose, outcome in history
            if whose == worker and (failed := is_failure(outcome)) is not None
        ]
        last = max((n for n, (_, failed) in enumerate(known, 1) if not failed), default=0)
        assert figures.streak == len(known) - last
        assert figures.streak_s == (now - known[last][0] if known[last:] else 0.0)
        assert figures.answered_s == (now - known[last - 1][0] if last else None)


@given(calls((Accepted(), Throttled(code="429"), Ambiguous(code="timeout"))), st.floats(0, 60))
def test_without_a_failure_it_stays_closed(history: list[Call], later_s: float) -> None:
    assert decide_opening(counted(history, end_of(history) + later_s)) is None


@given(calls((Accepted(), Ambiguous(code="timeout"))), calls(), st.floats(0, 60))
def test_it_never_opens_on_one_failure(
    quiet: list[Call], noise: list[Call], later_s: float
) -> None:
    lone = next(((0.0, worker, outcome) for _, worker, outcome in noise), (0.0, 0, DOWN))
    assert decide_opening(counted([lone, *quiet], end_of(quiet) + later_s)) is None


@given(calls())
def test_right_after_an_answer_only_half_of_many_calls_opens_it(history: list[Call]) -> None:
    now = end_of(history) + 0.001
    everyones = counted([*history, (now, 0, Accepted())], now)
    if sum(one.calls for one in everyones) < MIN_CALLS:
        assert decide_opening(everyones) is None


@given(st.lists(said(), max_size=5))
def test_the_order_of_the_workers_does_not_matter(everyones: list[ProviderFigures]) -> None:
    assert decide_opening(everyones) is decide_opening(everyones[::-1])


@given(st.lists(said(), max_size=5))
def test_what_opens_it_is_at_least_three_failures(everyones: list[ProviderFigures]) -> None:
    if decide_opening(everyones) is not None:
        failures = sum(one.failures for one in everyones)
        streaks = sum(one.streak for one in everyones)
        assert max(failures, streaks) >= CREDENTIALS_IN_A_ROW


@given(st.lists(said(), max_size=5))
def test_a_worker_that_called_nobody_changes_nothing(everyones: list[ProviderFigures]) -> None:
    idle = ProviderFigures(calls=0, failures=0, streak=0, streak_s=0.0, answered_s=None)
    assert decide_opening([*everyones, idle]) is decide_opening(everyones)


@given(st.lists(said(), max_size=5))
def test_refused_credentials_open_it_no_later(
    everyones: list[ProviderFigures],
) -> None:
    refused = [replace(one, credentials=one.streak > 0) for one in everyones]
    if decide_opening(everyones) is not None:
        assert decide_opening(refused) is not None
