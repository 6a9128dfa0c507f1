"""The decision that follows from an outcome."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.notification import FINAL, WAITING, Status
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.domain.retry import (
    MAX_DEATHS,
    Decision,
    Fail,
    OnAmbiguous,
    Retry,
    RetryPolicy,
    Settle,
    decide,
    decide_after_death,
)
from tests.transitions import TRANSITIONS, is_legal

POLICY = RetryPolicy(base=timedelta(seconds=1), factor=2, cap=timedelta(seconds=60), tries=8)


def decided(
    outcome: Outcome,
    *,
    tries: int = 0,
    max_tries: int | None = None,
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND,
    draw: float = 0.5,
) -> Decision:
    return decide(
        outcome,
        tries=tries,
        max_tries=max_tries,
        policy=POLICY,
        on_ambiguous=on_ambiguous,
        draw=draw,
    )


def test_accepted_settles_the_notification() -> None:
    assert decided(Accepted()) == Settle()


def test_a_refused_notification_is_never_retried() -> None:
    assert decided(Refused(code="550"), tries=0) == Fail("refused")


def test_throttled_waits_as_long_as_the_provider_asked_and_spends_no_try() -> None:
    delay = timedelta(seconds=7)
    assert decided(Throttled(code="429", after=delay), tries=99) == Retry(delay, spends=False)


def test_throttled_without_a_delay_still_waits() -> None:
    decision = decided(Throttled(code="450"))
    assert isinstance(decision, Retry)
    assert decision.after >= timedelta(seconds=1)


def test_rejected_credentials_spend_no_try() -> None:
    decision = decided(Misconfigured(code="535", is_credentials=True), tries=99)
    assert isinstance(decision, Retry)
    assert not decision.spends


def test_unavailable_is_retried_until_no_try_is_left() -> None:
    assert isinstance(decided(Unavailable(code="503"), tries=6), Retry)
    assert decided(Unavailable(code="503"), tries=7) == Fail("exhausted")


def test_a_notification_may_set_its_own_number_of_tries() -> None:
    assert decided(Unavailable(code="503"), tries=0, max_tries=1) == Fail("exhausted")
    assert isinstance(decided(Unavailable(code="503"), tries=8, max_tries=20), Retry)


def test_unavailable_waits_as_long_as_the_provider_asked() -> None:
    decision = decided(Unavailable(code="503", after=timedelta(minutes=5)))
    assert decision == Retry(timedelta(minutes=5), spends=True)


@pytest.mark.parametrize("tries", [0, 7])
def test_ambiguous_under_hold_fails_at_once(tries: int) -> None:
    outcome = Ambiguous(code="timeout")
    assert decided(outcome, tries=tries, on_ambiguous=OnAmbiguous.HOLD) == Fail("ambiguous")


def test_ambiguous_under_resend_is_retried_like_unavailable() -> None:
    assert isinstance(decided(Ambiguous(code="timeout"), tries=0), Retry)
    assert decided(Ambiguous(code="timeout"), tries=7) == Fail("exhausted")


def test_a_death_under_resend_spends_no_try_and_the_retry_is_due_at_once() -> None:
    for deaths in range(1, MAX_DEATHS):
        decision = decide_after_death(deaths, OnAmbiguous.RESEND)
        assert decision == Retry(timedelta(0), spends=False)


def test_the_first_death_under_hold_fails_the_notification_and_spends_no_try() -> None:
    assert decide_after_death(1, OnAmbiguous.HOLD) == Fail("ambiguous", spends=False)


@pytest.mark.parametrize("on_ambiguous", OnAmbiguous)
@pytest.mark.parametrize("deaths", [MAX_DEATHS, MAX_DEATHS + 1])
def test_from_the_third_death_on_a_notification_is_poison(
    deaths: int, on_ambiguous: OnAmbiguous
) -> None:
    assert decide_after_death(deaths, on_ambiguous) == Fail("poison", spends=False)


@given(
    base=st.floats(0.01, 1000),
    factor=st.floats(2, 10),
    spent=st.integers(1, 10_000),
    draws=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_delays_grow_until_the_cap(
    base: float, factor: float, spent: int, draws: tuple[float, float]
) -> None:
    cap = timedelta(hours=2)
    policy = RetryPolicy(base=timedelta(seconds=base), factor=factor, cap=cap, tries=8)
    delay, next_delay = policy.delay(spent, draws[0]), policy.delay(spent + 1, draws[1])
    assert timedelta(0) < delay <= cap
    assert delay <= next_delay or next_delay >= cap / 2


def test_every_status_has_transitions() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_a_waiting_notification_can_expire_and_be_cancelled() -> None:
    for status in WAITING:
        assert is_legal(status, Status.EXPIRED)
        assert is_legal(status, Status.CANCELLED)


def test_only_a_redrive_a_late_result_or_a_receipt_changes_a_final_status() -> None:
    for status in FINAL:
        assert TRANSITIONS[status] <= {
            Status.QUEUED,
            Status.SENT,
            Status.DELIVERED,
            Status.UNDELIVERED,
        }
    assert not is_legal(Status.SENT, Status.QUEUED)
