"""Fallbacks: which status needs one, when it is looked at, and what its runner makes of answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from notifier.delivery.fallback_runner import HOLD_S, MAX_TAKEN, RETRY, FallbackRunner
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.fallbacks import (
    FIRST_LOOK,
    MAX_LOOK_INTERVAL,
    Decision,
    DueFallback,
    FallbackOutcome,
    decide,
)
from notifier.domain.idempotency import key_digest
from notifier.domain.notification import FINAL, EndReason, NotificationId, Status, Unless
from notifier.domain.schedules import KEY_KEPT
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.fallbacks import FallbackResult, NotSubmitted
from notifier.ports.schedules import Submitted

SINCE: Final = datetime(2026, 12, 1, 9, tzinfo=UTC)
AT: Final = SINCE + timedelta(minutes=10)
SECOND: Final = NotificationId(uuid4())
SECRET: Final = "ada@example.com"
SUCCESS: Final = {Status.SENT, Status.DELIVERED, Status.CANCELLED}


def a_fallback(**changes: object) -> DueFallback:
    fallback = DueFallback(
        id=NotificationId(uuid4()),
        status=Status.QUEUED,
        reason=None,
        tenant=DEFAULT_TENANT,
        mode=Mode.LIVE,
        submit=b"{}",
        unless=Unless.SENT,
        since=SINCE,
        at=AT,
        begun_at=None,
        held_until=AT + timedelta(seconds=HOLD_S),
        now=AT,
    )
    return replace(fallback, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("unless", Unless)
@pytest.mark.parametrize("is_due", [False, True])
def test_every_status_has_a_decision(is_due: bool, unless: Unless) -> None:
    awaited = {Status.SENT} if unless is Unless.DELIVERED else set()
    for status in Status:
        decision = decide(status, None, unless, is_due=is_due)
        if status in SUCCESS - awaited:
            assert decision is Decision.DROP
        elif status in FINAL - awaited or is_due:
            assert decision is Decision.SUBMIT
        else:
            assert decision is Decision.WAIT
    assert decide(None, None, unless, is_due=is_due) is Decision.DROP


@pytest.mark.parametrize("reason", list(EndReason))
def test_who_wants_no_notification_gets_no_fallback(reason: EndReason) -> None:
    wishes = {EndReason.UNSUBSCRIBE, EndReason.COMPLAINT, EndReason.ERASED}
    expected = Decision.DROP if reason in wishes else Decision.SUBMIT
    assert decide(Status.SUPPRESSED, reason, Unless.SENT, is_due=True) is expected


def test_a_sent_one_that_waits_for_a_receipt_is_looked_at_rarely() -> None:
    at = SINCE + timedelta(hours=8)
    looks, now = [], SINCE + FIRST_LOOK
    while now < at:
        looks.append(now)
        fallback = a_fallback(now=now, at=at, status=Status.SENT, unless=Unless.DELIVERED)
        assert fallback.decision is Decision.WAIT
        now = fallback.next_look_at
    assert now == at
    assert len(looks) < 16


def test_looks_come_at_twice_the_wait_then_once_a_minute_and_when_it_is_due() -> None:
    looks, now = [], SINCE + FIRST_LOOK
    while now < AT:
        looks.append(now)
        now = a_fallback(now=now).next_look_at
    seconds = [(each - SINCE).total_seconds() for each in looks]
    assert seconds[:7] == [2, 4, 8, 16, 32, 64, 124]
    assert max(b - a for a, b in pairwise(looks)) == MAX_LOOK_INTERVAL
    assert now == AT


def test_a_clock_that_goes_back_leaves_no_look_in_the_past() -> None:
    early = a_fallback(now=SINCE - timedelta(hours=1))
    assert early.next_look_at == early.now + FIRST_LOOK


def test_each_fallback_has_a_key_that_no_caller_can_have() -> None:
    one = a_fallback()
    keys = {
        one.key,
        a_fallback().key,
        replace(one, tenant=TenantId("shop")).key,
        replace(one, mode=Mode.TEST).key,
    }
    assert len(keys) == 4
    assert one.key.digest != key_digest(DEFAULT_TENANT, Mode.LIVE, f"fallback/{one.id}")
    assert one.key == replace(one, status=Status.FAILED, now=AT + timedelta(hours=1)).key


class Fallbacks:
    """Gives these fallbacks once; all are held, and all are settled."""

    def __init__(self, *fallbacks: DueFallback) -> None:
        self.fallbacks = list(fallbacks)
        self.results: list[FallbackResult] = []
        self.begun: list[NotificationId] = []
        self.holds = True
        self.settles = True
        self.error: Exception | None = None

    async def take(self, count: int, hold_s: float) -> Sequence[DueFallback]:
        assert (count, hold_s) == (MAX_TAKEN, HOLD_S)
        taken, self.fallbacks = self.fallbacks[:count], self.fallbacks[count:]
        return taken

    async def begin(self, fallbacks: Sequence[DueFallback]) -> Collection[NotificationId]:
        self.begun += [each.id for each in fallbacks]
        return self.begun if self.holds else []

    async def settle(self, results: Sequence[FallbackResult]) -> Collection[NotificationId]:
        if self.error is not None:
            raise self.error
        self.results += results
        return [each.id for each in results] if self.settles else []


class Submitter:
    """Answers each fallback with `answer`; raises it if it is an exception."""

    def __init__(self, answer: object, earlier: NotificationId | None = None) -> None:
        self.answer = answer
        self.before = earlier
        self.submitted: list[DueFallback] = []

    async def submit(self, fallback: DueFallback) -> Submitted | NotSubmitted:
        self.submitted.append(fallback)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    async def earlier(self, fallback: DueFallback) -> NotificationId | None:
        del fallback
        return self.before


class Observer:
    def __init__(self) -> None:
        self.ended = Counter[FallbackOutcome]()

    def fallback_ended(self, outcome: FallbackOutcome) -> None:
        self.ended[outcome] += 1


def runner_of(store: Fallbacks, submitter: Submitter) -> tuple[FallbackRunner, Observer]:
    observer = Observer()
    return FallbackRunner(store=store, submitter=submitter, observer=observer), observer


NOW: Final = AT
LATER: Final = AT + RETRY


@pytest.mark.parametrize(
    ("answer", "expected", "outcome"),
    [
        (Submitted(SECOND, is_replay=False), (None, SECOND, False), FallbackOutcome.SUBMITTED),
        (Submitted(SECOND, is_replay=True), (None, SECOND, False), FallbackOutcome.REPLAYED),
        (NotSubmitted("invalid-field", is_final=True), (None, None, False), "refused"),
        (NotSubmitted("overloaded", is_final=False), (LATER, None, False), "postponed"),
        (
            NotSubmitted("store-unavailable", is_final=False, may_be_stored=True),
            (LATER, None, True),
            "postponed",
        ),
        (StoreUnavailable("no answer"), (LATER, None, True), "postponed"),
        (ValueError(SECRET), (LATER, None, True), "postponed"),
    ],
)
async def test_each_answer_to_a_submit_has_its_result(
    answer: object, expected: tuple[object, ...], outcome: str
) -> None:
    fallback = a_fallback()
    store = Fallbacks(fallback)
    runner, observer = runner_of(store, Submitter(answer))
    with capture_logs() as logs:
        assert await runner.run_once() == 1
    assert store.begun == [fallback.id]
    (result,) = store.results
    assert result == FallbackResult(fallback.id, fallback.held_until, *expected)  # type: ignore[arg-type]
    assert observer.ended == {FallbackOutcome(outcome): 1}
    assert SECRET not in str(logs)


async def test_what_is_still_awaited_is_neither_begun_nor_submitted() -> None:
    fallback = a_fallback(now=SINCE + timedelta(seconds=8))
    store, submitter = Fallbacks(fallback), Submitter(None)
    runner, observer = runner_of(store, submitter)
    assert await runner.run_once() == 1
    look_at = SINCE + timedelta(seconds=16)
    assert store.results == [FallbackResult(fallback.id, fallback.held_until, look_at)]
    assert (store.begun, submitter.submitted, observer.ended) == ([], [], {})


async def test_what_another_process_has_taken_since_is_not_submitted() -> None:
    store, submitter = Fallbacks(a_fallback()), Submitter(None)
    store.holds = False
    runner, observer = runner_of(store, submitter)
    assert await runner.run_once() == 0
    assert (store.results, submitter.submitted, observer.ended) == ([], [], {})


async def test_what_another_process_has_settled_is_not_counted() -> None:
    store = Fallbacks(a_fallback())
    store.settles = False
    runner, observer = runner_of(store, Submitter(Submitted(SECOND, is_replay=False)))
    assert await runner.run_once() == 0
    assert observer.ended == {}


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SENT, Status.CANCELLED, None])
async def test_what_was_begun_is_looked_up_first_whatever_the_status(status: Status | None) -> None:
    begun_at = AT - 2 * KEY_KEPT
    store = Fallbacks(a_fallback(begun_at=begun_at, status=status))
    submitter = Submitter(None, earlier=SECOND)
    runner, observer = runner_of(store, submitter)
    assert await runner.run_once() == 1
    assert store.results[0].notification == SECOND
    assert (observer.ended, submitter.submitted) == ({FallbackOutcome.REPLAYED: 1}, [])


@pytest.mark.parametrize(
    ("begun_for", "outcome"),
    [(KEY_KEPT, FallbackOutcome.SUBMITTED), (KEY_KEPT + RETRY, FallbackOutcome.SKIPPED)],
)
async def test_what_was_begun_a_day_ago_is_not_submitted_again(
    begun_for: timedelta, outcome: FallbackOutcome
) -> None:
    store = Fallbacks(a_fallback(begun_at=AT - begun_for))
    runner, observer = runner_of(store, Submitter(Submitted(SECOND, is_replay=False)))
    assert await runner.run_once() == 1
    assert store.results[0].look_at is None
    assert observer.ended == {outcome: 1}


async def test_one_fault_stops_no_others_and_a_failure_of_the_store_is_logged() -> None:
    good, bad = a_fallback(status=Status.SENT), a_fallback()
    store = Fallbacks(bad, good)
    runner, observer = runner_of(store, Submitter(ValueError(SECRET)))
    assert await runner.run_once() == 2
    assert observer.ended == {FallbackOutcome.POSTPONED: 1, FallbackOutcome.DROPPED: 1}
    store.fallbacks, store.error = [a_fallback()], StoreUnavailable("gone")
    with capture_logs() as logs:
        assert await runner.run_once() == 0
    assert [entry["event"] for entry in logs] == ["fallback_raised", "fallbacks_failed"]
