"""Properties of the decision to open a breaker, whatever the workers counted."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from notifier.domain.breaker import (
    MIN_CALLS,
    MISCONFIGURED_STREAK_LENGTH,
    THROTTLED_SPAN_S,
    WINDOW_S,
    BreakerRule,
    Opening,
    ProviderFigures,
    decide_opening,
    is_failure,
)
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Deferred,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.scheduling.gates.failure_window import BUCKET_S, FailureWindow

WORKERS = 3
DOWN = Unavailable(code="503")
OUTCOMES: tuple[Outcome, ...] = (
    Accepted(),
    Throttled(code="429"),
    DOWN,
    Misconfigured(code="401", is_credentials=True),
    Unavailable(code="no_connection", is_local=True),
    Refused(code="template", is_local=True),
    Ambiguous(code="timeout"),
    Ambiguous(code="disconnected"),
)
Call = tuple[float, int, Outcome]
"""When the call ended, the number of its worker, and its outcome."""


@st.composite
def calls(draw: st.DrawFn, outcomes: tuple[Outcome, ...] = OUTCOMES) -> list[Call]:
    gaps = draw(st.lists(st.floats(0.001, 4.0), max_size=60))
    worker, outcome = st.integers(0, WORKERS - 1), st.sampled_from(outcomes)
    return [(at, draw(worker), draw(outcome)) for at in accumulate(gaps)]


@st.composite
def reports(draw: st.DrawFn) -> ProviderFigures:
    streak = draw(st.integers(0, 30))
    failures = draw(st.integers(0, 60))
    return ProviderFigures(
        calls=failures + draw(st.integers(0, 60)),
        failures=failures,
        streak=streak,
        streak_s=draw(st.floats(0, 60)) if streak else 0.0,
        answered_s=draw(st.none() | st.floats(0, 60)),
        credentials=streak > 0 and draw(st.booleans()),
        configuration=streak > 0 and draw(st.booleans()),
        misconfigured=draw(st.integers(0, failures)),
        accepted_s=draw(st.none() | st.floats(0, 60)),
        throttled=draw(st.integers(0, 20)),
        refused=draw(st.none() | st.lists(st.integers(0, 30), max_size=25, unique=True)),
        refused_s=draw(st.floats(0, 60)),
    )


def counted(history: list[Call], now: float) -> list[ProviderFigures]:
    windows = [FailureWindow() for _ in range(WORKERS)]
    for at, worker, outcome in history:
        windows[worker].add(outcome, at)
    return [window.figures(now) for window in windows]


def end_of(history: list[Call]) -> float:
    return history[-1][0] if history else 0.0


@given(calls(), st.floats(0, 12))
def test_a_window_counts_the_last_ten_seconds_to_half_a_second(
    history: list[Call], later_s: float
) -> None:
    now = end_of(history) + later_s
    for worker, figures in enumerate(counted(history, now)):
        known = [
            (at, failed)
            for at, caller, outcome in history
            if caller == worker and (failed := is_failure(outcome)) is not None
        ]
        certain = [failed for at, failed in known if at > now - WINDOW_S + 1.01 * BUCKET_S]
        possible = [failed for at, failed in known if at >= now - WINDOW_S]
        assert len(certain) <= figures.calls <= len(possible)
        assert sum(certain) <= figures.failures <= sum(possible)


@given(calls())
def test_a_streak_is_all_failures_since_the_last_answer(history: list[Call]) -> None:
    now = end_of(history)
    for worker, figures in enumerate(counted(history, now)):
        known = [
            (at, failed)
            for at, caller, outcome in history
            if caller == worker and (failed := is_failure(outcome)) is not None
        ]
        last = max((n for n, (_, failed) in enumerate(known, 1) if not failed), default=0)
        assert figures.streak == len(known) - last
        assert figures.streak_s == (now - known[last][0] if known[last:] else 0.0)
        assert figures.answered_s == (now - known[last - 1][0] if last else None)


@given(calls((Accepted(), Deferred(code="450"), Ambiguous(code="timeout"))), st.floats(0, 60))
def test_without_a_failure_a_breaker_stays_closed(history: list[Call], later_s: float) -> None:
    assert decide_opening(counted(history, end_of(history) + later_s)) is None


@given(calls((Accepted(), Ambiguous(code="timeout"))), calls(), st.floats(0, 60))
def test_a_breaker_never_opens_on_one_failure(
    answered: list[Call], failing: list[Call], later_s: float
) -> None:
    lone = next(((0.0, worker, outcome) for _, worker, outcome in failing), (0.0, 0, DOWN))
    assert decide_opening(counted([lone, *answered], end_of(answered) + later_s)) is None


@given(calls())
def test_right_after_an_answer_only_half_of_many_calls_opens_a_breaker(
    history: list[Call],
) -> None:
    now = end_of(history) + 0.001
    all_reports = counted([*history, (now, 0, Accepted())], now)
    if sum(report.calls for report in all_reports) < MIN_CALLS:
        assert decide_opening(all_reports) is None


@given(st.lists(reports(), max_size=5))
def test_the_order_of_the_workers_does_not_matter(all_reports: list[ProviderFigures]) -> None:
    assert decide_opening(all_reports) is decide_opening(all_reports[::-1])


@given(st.lists(reports(), max_size=5))
def test_a_breaker_opens_on_three_failures_at_least(all_reports: list[ProviderFigures]) -> None:
    if decide_opening(all_reports) not in {None, Opening.THROTTLED, Opening.REFUSALS}:
        failures = sum(report.failures for report in all_reports)
        streaks = sum(report.streak for report in all_reports)
        assert max(failures, streaks) >= MISCONFIGURED_STREAK_LENGTH


@given(st.lists(reports(), max_size=5))
def test_a_worker_without_calls_changes_nothing(all_reports: list[ProviderFigures]) -> None:
    idle = ProviderFigures()
    assert decide_opening([*all_reports, idle]) is decide_opening(all_reports)


@given(st.lists(reports(), max_size=5))
def test_with_refused_credentials_a_breaker_opens_no_later(
    all_reports: list[ProviderFigures],
) -> None:
    refused = [replace(report, credentials=report.streak > 0) for report in all_reports]
    if decide_opening(all_reports) is not None:
        assert decide_opening(refused) is not None


@given(calls((Accepted(), Refused(code="550"), Throttled(code="429"))))
def test_right_after_an_acceptance_neither_refusals_nor_throttling_open_a_breaker(
    history: list[Call],
) -> None:
    now = end_of(history) + THROTTLED_SPAN_S / 2
    reports_now = counted([*history, (end_of(history), 0, Accepted())], now)
    assert decide_opening(reports_now, BreakerRule(refusals_in_a_row=1)) is None


@given(calls((Misconfigured(code="550 5.7.1"), Accepted())), st.floats(0, 2))
def test_wrong_settings_open_no_breaker_within_three_seconds_of_an_acceptance(
    history: list[Call], later_s: float
) -> None:
    accepted = [*history, (end_of(history), 0, Accepted())]
    assert decide_opening(counted(accepted, end_of(history) + later_s)) is None
