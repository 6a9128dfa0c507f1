"""How a worker counts the calls of one provider."""

from __future__ import annotations

from notifier.domain.breaker import ProviderFigures
from notifier.domain.outcome import Ambiguous, Misconfigured, Refused, Unavailable
from notifier.scheduling.gates.failure_window import FailureWindow

DOWN = Unavailable(code="503")
DENIED = Misconfigured(code="401", is_credentials=True)


def test_calls_are_dropped_after_ten_seconds_and_the_streak_is_kept() -> None:
    window = FailureWindow()
    for second in range(5):
        window.add(DOWN, float(second))
    now = window.figures(5.0)
    assert (now.calls, now.failures, now.streak, now.streak_s) == (5, 5, 5, 5.0)
    later = window.figures(14.0)
    assert (later.calls, later.streak, later.streak_s) == (1, 5, 14.0)


def test_an_answer_ends_the_streak_and_a_time_out_does_not() -> None:
    window = FailureWindow()
    window.add(DOWN, 0.0)
    window.add(Ambiguous(code="timeout"), 1.0)
    assert window.figures(1.0).streak == 1
    window.add(Refused(code="550"), 2.0)
    now = window.figures(3.0)
    assert (now.streak, now.answered_s, now.calls) == (0, 1.0, 2)


def test_a_streak_is_about_credentials_if_its_last_failure_is() -> None:
    window = FailureWindow()
    window.add(DENIED, 0.0)
    assert window.figures(1.0).credentials
    window.add(DOWN, 1.0)
    assert not window.figures(1.0).credentials
    window.reset()
    assert window.figures(2.0) == ProviderFigures(refused=())
