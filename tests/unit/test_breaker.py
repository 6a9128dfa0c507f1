"""When a breaker opens, by examples."""

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
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)

DOWN = Unavailable(code="503")
DENIED = Misconfigured(code="401", is_credentials=True)
NO_CONNECTION = Unavailable(code="no_connection", is_local=True)


def report(
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
    ("outcome", "expected"),
    [
        (Accepted(), False),
        (Refused(code="550"), False),
        (Throttled(code="429"), False),
        (DOWN, True),
        (DENIED, True),
        (NO_CONNECTION, None),
        (Ambiguous(code="disconnected"), True),
        (Ambiguous(code="timeout"), None),
        (Ambiguous(code="stopped"), None),
    ],
)
def test_which_outcomes_are_failures_of_the_provider(
    outcome: Outcome, expected: bool | None
) -> None:
    assert is_failure(outcome) is expected


def test_a_refusal_that_spends_no_try_is_about_credentials() -> None:
    assert is_about_credentials(DENIED)
    assert not is_about_credentials(DOWN)
    assert not is_about_credentials(NO_CONNECTION)


def test_only_a_call_that_did_not_reach_the_provider_is_unasked() -> None:
    assert is_unasked(NO_CONNECTION)
    assert not is_unasked(DENIED)
    assert not is_unasked(Ambiguous(code="timeout"))


@pytest.mark.parametrize(
    ("reports", "opening"),
    [
        ([], None),
        ([report(1, 1, 1, 9.0)], None),
        ([report(19, 19, 4, 1.0)], None),
        ([report(20, 10)], Opening.ERRORS),
        ([report(20, 9)], None),
        ([report(10, 5), report(10, 5)], Opening.ERRORS),
        ([report(5, 5, 5, 3.0)], Opening.IN_A_ROW),
        ([report(5, 5, 5, 2.9)], None),
        ([report(3, 3, 3, 3.0), report(2, 2, 2, 1.0)], Opening.IN_A_ROW),
        ([report(5, 5, 5, 4.0), report(1, 0, 0, 0.0, 1.0)], None),
        ([report(5, 5, 5, 4.0), report(1, 0, 0, 0.0, 6.0)], Opening.IN_A_ROW),
        ([report(3, 3, 3, 1.0, credentials=True)], Opening.CREDENTIALS),
        ([report(2, 2, 2, 5.0, credentials=True)], None),
        ([report(3, 3, 3, 0.9, credentials=True)], None),
        ([report(20, 20, 20, 0.4, credentials=True)], Opening.CREDENTIALS),
        ([report(10, 10, 10, 0.4, credentials=True), report(10, 10, 10, 0.3)], Opening.ERRORS),
        ([report(19, 19, 19, 2.0), report(1, 1, 1, 2.0, credentials=True)], Opening.ERRORS),
    ],
)
def test_when_a_breaker_opens(reports: list[ProviderFigures], opening: Opening | None) -> None:
    assert decide_opening(reports) is opening
