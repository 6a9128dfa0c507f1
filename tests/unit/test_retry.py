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
    Deferred,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.domain.retry import (
    DEFERRED_BACKOFF,
    LOCAL_BACKOFF,
    MAX_DEATHS,
    MISCONFIGURED_BACKOFF,
    THROTTLED_BACKOFF,
    AmbiguityRule,
    Decision,
    Fail,
    OnAmbiguous,
    Retry,
    RetryPolicy,
    Settle,
    Spent,
    UnspentBackoff,
    decide,
    decide_after_death,
)
from tests.transitions import TRANSITIONS, is_legal

POLICY = RetryPolicy(base=timedelta(seconds=1), factor=2, cap=timedelta(seconds=60), tries=8)


def decided(
    outcome: Outcome,
    *,
    tries: int = 0,
    deferrals: int = 0,
    unspent: int = 0,
    ambiguous: int = 0,
    max_tries: int | None = None,
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND,
    ambiguous_tries: int = 1,
    after_timeout: timedelta = timedelta(0),
    draw: float = 0.5,
) -> Decision:
    return decide(
        outcome,
        spent=Spent(tries=tries, deferrals=deferrals, unspent=unspent, ambiguous=ambiguous),
        max_tries=max_tries,
        policy=POLICY,
        ambiguity=AmbiguityRule(
            on_ambiguous=on_ambiguous, tries=ambiguous_tries, after_timeout=after_timeout
        ),
        draw=draw,
    )


def delay_after(outcome: Outcome, *, deferrals: int = 0, unspent: int = 0) -> timedelta:
    """The delay after an outcome that spends no try, without jitter."""
    decision = decided(outcome, tries=99, deferrals=deferrals, unspent=unspent, draw=0.0)
    assert isinstance(decision, Retry)
    assert not decision.spends
    return decision.after


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


def test_after_a_time_out_it_is_sent_again_when_a_silent_provider_is_known_to_be_silent() -> None:
    span = timedelta(seconds=9)
    for code, expected in (("timeout", span), ("disconnected", timedelta(seconds=0.75))):
        decision = decided(Ambiguous(code=code), after_timeout=span)
        assert decision == Retry(expected, spends=True)


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


def test_ambiguous_under_resend_is_repeated_once_although_tries_are_left() -> None:
    outcome = Ambiguous(code="timeout")
    assert isinstance(decided(outcome, tries=0), Retry)
    assert decided(outcome, tries=1, ambiguous=1) == Fail("ambiguous")


@pytest.mark.parametrize("ambiguous_tries", [0, 1, 3])
def test_a_channel_sets_how_often_an_ambiguous_send_is_repeated(ambiguous_tries: int) -> None:
    decisions = [
        decided(Ambiguous(code="timeout"), ambiguous=before, ambiguous_tries=ambiguous_tries)
        for before in range(ambiguous_tries + 1)
    ]
    assert all(isinstance(decision, Retry) for decision in decisions[:-1])
    assert decisions[-1] == Fail("ambiguous")


def test_an_ambiguous_send_spends_a_try_and_is_never_repeated_without_one() -> None:
    outcome = Ambiguous(code="timeout")
    assert decided(outcome, ambiguous_tries=9).spends
    assert decided(outcome, tries=7, ambiguous_tries=9) == Fail("exhausted")
    assert decided(outcome, max_tries=1) == Fail("exhausted")


def test_a_deferred_notification_waits_for_minutes_and_longer_each_time() -> None:
    minutes = [
        delay_after(Deferred(code="451"), deferrals=before).total_seconds() / 60
        for before in range(7)
    ]
    assert minutes == [1, 2, 4, 8, 16, 20, 20]


def test_a_deferred_notification_waits_at_least_as_long_as_the_provider_asked() -> None:
    hour = timedelta(hours=1)
    assert delay_after(Deferred(code="450", after=hour)) == hour
    assert delay_after(Deferred(code="450", after=timedelta(seconds=5))) == timedelta(minutes=1)


def test_what_others_made_it_wait_for_does_not_make_a_deferral_longer() -> None:
    assert delay_after(Deferred(code="451"), unspent=50) == timedelta(minutes=1)
    assert delay_after(Throttled(code="429"), deferrals=50) == timedelta(seconds=1)


@pytest.mark.parametrize(
    ("outcome", "first_s", "longest_s"),
    [
        (Throttled(code="429"), 1, 2.5),
        (Throttled(code="429", after=timedelta(0)), 1, 2.5),
        (Misconfigured(code="550 5.7.1"), 5, 120),
        (Misconfigured(code="401", is_credentials=True), 5, 120),
        (Unavailable(code="no_connection", is_local=True), 1, 10),
    ],
)
def test_waits_that_spend_no_try_grow_with_each_repetition(
    outcome: Outcome, first_s: float, longest_s: float
) -> None:
    delays = [delay_after(outcome, unspent=before).total_seconds() for before in range(12)]
    assert delays[0] == first_s
    assert delays[1] == 2 * first_s
    assert delays == sorted(delays)
    assert delays[-1] == longest_s


@given(
    backoff=st.sampled_from(
        (DEFERRED_BACKOFF, THROTTLED_BACKOFF, MISCONFIGURED_BACKOFF, LOCAL_BACKOFF)
    ),
    before=st.integers(0, 32_767),
    draws=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_no_wait_without_a_try_is_shorter_than_the_one_before_until_the_longest(
    backoff: UnspentBackoff, before: int, draws: tuple[float, float]
) -> None:
    delay, next_delay = backoff.delay(before, draws[0]), backoff.delay(before + 1, draws[1])
    assert backoff.base <= delay <= 1.5 * backoff.cap
    assert delay <= next_delay or next_delay >= backoff.cap


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
