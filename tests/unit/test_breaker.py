"""When a breaker opens, by examples."""

from __future__ import annotations

import pytest

from notifier.domain.breaker import (
    BreakerRule,
    Opening,
    ProviderFigures,
    closes,
    decide_opening,
    is_about_credentials,
    is_failure,
    is_unanswered,
    is_unasked,
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

DOWN = Unavailable(code="503")
DENIED = Misconfigured(code="401", is_credentials=True)
NO_CONNECTION = Unavailable(code="no_connection", is_local=True)
UNSENDABLE = Refused(code="template", is_local=True)


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
        (Deferred(code="450"), False),
        (Misconfigured(code="550 5.7.1"), True),
        (NO_CONNECTION, None),
        (UNSENDABLE, None),
        (Ambiguous(code="disconnected"), True),
        (Ambiguous(code="timeout"), None),
        (Ambiguous(code="stopped"), None),
    ],
)
def test_which_outcomes_are_failures_of_the_provider(
    outcome: Outcome, expected: bool | None
) -> None:
    assert is_failure(outcome) is expected


def test_only_misconfigured_credentials_are_about_credentials() -> None:
    assert is_about_credentials(DENIED)
    assert not is_about_credentials(Misconfigured(code="550 5.7.1"))
    assert not is_about_credentials(DOWN)
    assert not is_about_credentials(NO_CONNECTION)


def test_only_a_call_that_did_not_reach_the_provider_is_unasked() -> None:
    assert is_unasked(NO_CONNECTION)
    assert is_unasked(UNSENDABLE)
    assert not is_unasked(Refused(code="550"))
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
        ([report(5, 5, 5, 3.0)], Opening.CONSECUTIVE),
        ([report(5, 5, 5, 2.9)], None),
        ([report(3, 3, 3, 3.0), report(2, 2, 2, 1.0)], Opening.CONSECUTIVE),
        ([report(5, 5, 5, 4.0), report(1, 0, 0, 0.0, 1.0)], None),
        ([report(5, 5, 5, 4.0), report(1, 0, 0, 0.0, 6.0)], Opening.CONSECUTIVE),
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


def ours(
    streak: int, streak_s: float, *, accepted_s: float | None = None, calls: int = 0
) -> ProviderFigures:
    """A report of failures in a row that blame our settings, and of other calls, all accepted."""
    return ProviderFigures(
        calls=streak + calls,
        failures=streak,
        misconfigured=streak,
        streak=streak,
        streak_s=streak_s,
        answered_s=accepted_s,
        accepted_s=accepted_s,
        configuration=True,
        refused=(),
    )


@pytest.mark.parametrize(
    ("reports", "opening"),
    [
        ([ours(3, 1.0)], Opening.CONFIGURATION),
        ([ours(2, 9.0)], None),
        ([ours(3, 0.9)], None),
        ([ours(1, 1.0), ours(2, 1.0)], Opening.CONFIGURATION),
        ([ours(20, 0.4)], Opening.CONFIGURATION),
        ([ours(4, 1.0), report(4, 4, 4, 1.0, credentials=True)], Opening.CREDENTIALS),
        ([ours(5, 3.0, accepted_s=4.0)], Opening.CONFIGURATION),
    ],
)
def test_what_blames_our_settings_opens_a_breaker_as_fast_as_refused_credentials(
    reports: list[ProviderFigures], opening: Opening | None
) -> None:
    assert decide_opening(reports) is opening


@pytest.mark.parametrize(
    "reports",
    [
        [ours(4, 1.5, accepted_s=2.0)],
        [ours(30, 0.5, accepted_s=0.6, calls=10)],
        [ours(4, 1.5), ProviderFigures(calls=9, answered_s=0.2, accepted_s=0.2, refused=())],
    ],
)
def test_what_blames_our_settings_while_others_are_accepted_opens_no_breaker(
    reports: list[ProviderFigures],
) -> None:
    assert decide_opening(reports) is None


def refusing(
    *recipients: int, refused_s: float = 5.0, accepted_s: float | None = None
) -> ProviderFigures:
    return ProviderFigures(
        answered_s=0.1, accepted_s=accepted_s, refused=recipients, refused_s=refused_s
    )


@pytest.mark.parametrize(
    ("reports", "limit", "opening"),
    [
        ([refusing(1, 2, 3)], 3, Opening.REFUSALS),
        ([refusing(1, 2, 3)], 4, None),
        ([refusing(1, 2, 3)], 0, None),
        ([refusing(1, 2), refusing(3)], 3, Opening.REFUSALS),
        ([refusing(1, 2), refusing(1, 2)], 3, None),
        ([refusing(1, 2, 3), refusing(accepted_s=1.0)], 3, None),
        ([refusing(1, 2, 3), refusing(accepted_s=9.0)], 3, Opening.REFUSALS),
        ([refusing(1, 2, 3), report(calls=5, answered_s=1.0)], 3, None),
    ],
)
def test_refusals_of_different_recipients_in_a_row_open_a_breaker(
    reports: list[ProviderFigures], limit: int, opening: Opening | None
) -> None:
    assert decide_opening(reports, BreakerRule(refusals_in_a_row=limit)) is opening


def throttling(throttled: int, accepted_s: float | None = None) -> ProviderFigures:
    return ProviderFigures(answered_s=0.1, throttled=throttled, accepted_s=accepted_s, refused=())


@pytest.mark.parametrize(
    ("reports", "opening"),
    [
        ([throttling(5)], Opening.THROTTLED),
        ([throttling(4)], None),
        ([throttling(2), throttling(3)], Opening.THROTTLED),
        ([throttling(50, accepted_s=0.5)], None),
        ([throttling(50), throttling(0, accepted_s=0.5)], None),
        ([throttling(50, accepted_s=1.5)], Opening.THROTTLED),
    ],
)
def test_a_provider_that_only_throttles_rests(
    reports: list[ProviderFigures], opening: Opening | None
) -> None:
    assert decide_opening(reports) is opening


@pytest.mark.parametrize(
    ("unanswered_s", "limit_s", "answered_s", "expected"),
    [
        (10.0, 10.0, None, True),
        (9.9, 10.0, None, False),
        (60.0, 0.0, None, False),
        (60.0, 10.0, 11.0, True),
        (60.0, 10.0, 3.0, False),
    ],
)
def test_calls_are_unanswered_if_no_worker_had_an_answer_for_long(
    unanswered_s: float, limit_s: float, answered_s: float | None, *, expected: bool
) -> None:
    reports = [report(), report(answered_s=answered_s)]
    assert is_unanswered(unanswered_s, limit_s, reports) is expected


@pytest.mark.parametrize(
    ("reason", "outcome", "expected"),
    [
        (Opening.ERRORS, Refused(code="550"), True),
        (Opening.ERRORS, DOWN, False),
        (Opening.ERRORS, UNSENDABLE, False),
        (Opening.CONFIGURATION, Refused(code="550"), True),
        (Opening.CONFIGURATION, DENIED, False),
        (Opening.REFUSALS, Accepted(), True),
        (Opening.REFUSALS, Refused(code="550"), False),
        (Opening.THROTTLED, Throttled(code="429"), False),
        (Opening.THROTTLED, Refused(code="550"), True),
        (Opening.UNANSWERED, Ambiguous(code="timeout"), False),
        ("a reason of a newer version", Accepted(), True),
    ],
)
def test_which_probe_closes_a_breaker(reason: str, outcome: Outcome, *, expected: bool) -> None:
    assert closes(reason, outcome) is expected
