"""When a breaker opens, by example."""

from __future__ import annotations

import pytest

from notifier.domain.breaker import (
    Opening,
    ProviderFigures,
    decide_opening,
    is_about_credentials,
    is_failure,
    is_unasked,
)
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.scheduling.gates.failure_window import FailureWindow

DOWN = Unavailable(code="503")
DENIED = Unavailable(code="401", spends=False)
BUSY = Unavailable(code="no_connection", spends=False, is_local=True)


def said(
    calls: int = 0,
    failures: int = 0,
    streak: int = 0,
    streak_s: float = 0.0,
    answered_s: float | None = None,
    *,
    credentials: bool = False,
) -> ProviderFigures:
    return ProviderFigures(
        calls=calls,
        failures=failures,
        streak=streak,
        streak_s=streak_s,
        answered_s=answered_s,
        credentials=credentials,
    )


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Accepted(), False),
        (Refused(code="550"), False),
        (Throttled(code="429"), False),
        (DOWN, True),
        (DENIED, True),
        (BUSY, None),
        (Ambiguous(code="disconnected"), True),
        (Ambiguous(code="timeout"), None),
        (Ambiguous(code="stopped"), None),
    ],
)
def test_what_speaks_against_a_provider(outcome: Outcome, failed: bool | None) -> None:
    assert is_failure(outcome) is failed


def test_a_refusal_of_us_is_about_credentials() -> None:
    assert is_about_credentials(DENIED)
    assert not is_about_credentials(DOWN)
    assert not is_about_credentials(BUSY)


def test_only_what_never_left_us_is_unasked() -> None:
    assert is_unasked(BUSY)
    assert not is_unasked(DENIED)
    assert not is_unasked(Ambiguous(code="timeout"))


@pytest.mark.parametrize(
    ("everyones", "opening"),
    [
        ([], None),
        ([said(1, 1, 1, 9.0)], None),
        ([said(19, 19, 4, 1.0)], None),
        ([said(20, 10)], Opening.ERRORS),
        ([said(20, 9)], None),
        ([said(10, 5), said(10, 5)], Opening.ERRORS),
        ([said(5, 5, 5, 3.0)], Opening.IN_A_ROW),
        ([said(5, 5, 5, 2.9)], None),
        ([said(3, 3, 3, 3.0), said(2, 2, 2, 1.0)], Opening.IN_A_ROW),
        ([said(5, 5, 5, 4.0), said(1, 0, 0, 0.0, 1.0)], None),
        ([said(5, 5, 5, 4.0), said(1, 0, 0, 0.0, 6.0)], Opening.IN_A_ROW),
        ([said(3, 3, 3, 1.0, credentials=True)], Opening.CREDENTIALS),
        ([said(2, 2, 2, 5.0, credentials=True)], None),
        ([said(3, 3, 3, 0.9, credentials=True)], None),
        ([said(20, 20, 20, 0.4, credentials=True)], Opening.CREDENTIALS),
        ([said(10, 10, 10, 0.4, credentials=True), said(10, 10, 10, 0.3)], Opening.ERRORS),
        ([said(19, 19, 19, 2.0), said(1, 1, 1, 2.0, credentials=True)], Opening.ERRORS),
    ],
)
def test_when_it_opens(everyones: list[ProviderFigures], opening: Opening | None) -> None:
    assert decide_opening(everyones) is opening


def test_a_tally_forgets_after_ten_seconds_and_keeps_the_streak() -> None:
    tally = FailureWindow()
    for second in range(5):
        tally.add(DOWN, float(second))
    now = tally.figures(5.0)
    assert (now.calls, now.failures, now.streak, now.streak_s) == (5, 5, 5, 5.0)
    later = tally.figures(14.0)
    assert (later.calls, later.streak, later.streak_s) == (1, 5, 14.0)


def test_an_answer_ends_the_streak_and_a_time_out_does_not() -> None:
    tally = FailureWindow()
    tally.add(DOWN, 0.0)
    tally.add(Ambiguous(code="timeout"), 1.0)
    assert tally.figures(1.0).streak == 1
    tally.add(Refused(code="550"), 2.0)
    now = tally.figures(3.0)
    assert (now.streak, now.answered_s, now.calls) == (0, 1.0, 2)


def test_refused_credentials_are_told_as_such() -> None:
    tally = FailureWindow()
    tally.add(DENIED, 0.0)
    assert tally.figures(1.0).credentials
    tally.add(DOWN, 1.0)
    assert not tally.figures(1.0).credentials
    tally.reset()
    assert tally.figures(2.0) == said()
