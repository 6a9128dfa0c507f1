"""The state of a deployment under test, its invariants, and the steps that its rules consist of.

The invariants: no claim is sent twice, and relay, rescuer or record can move every row.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, TypeVar

from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)
from msgspec.structs import replace

from notifier.delivery.attempt import CallTimes, attempt_result
from notifier.domain.notification import (
    FINAL,
    WAITING,
    Claimed,
    NewNotification,
    NotificationId,
    Status,
    WorkerId,
)
from notifier.domain.outcome import (
    Accepted,
    Outcome,
)
from notifier.domain.retry import decide
from notifier.ports.broker import Pointer
from notifier.ports.store import AttemptResult, ClaimRequest, Recorded
from tests.builders import (
    EMAIL_HIGH,
    SMS_HIGH,
    claim_request,
    quotas,
)
from tests.property.deployment import (
    ON_AMBIGUOUS,
    POLICY,
    Database,
    HeldMessage,
    Row,
    Worker,
)
from tests.transitions import is_legal

T = TypeVar("T")

TWO_QUEUES: Final = (EMAIL_HIGH, SMS_HIGH)
"""Of a channel that resends after an ambiguous result, and of one that holds."""


class PublishResult(Enum):
    """What happens to the pointers that the relay took."""

    CONFIRMED = auto()
    ARRIVED_UNCONFIRMED = auto()
    LOST_UNCONFIRMED = auto()
    RELAY_DIED = auto()


class AfterClaim(Enum):
    """What a worker does with the reply to a claim."""

    SENDS = auto()
    HOLDS = auto()
    LOSES_REPLY = auto()


class CallState(Enum):
    """The state of one provider call."""

    OPEN = auto()
    MAY_REPEAT = auto()
    WORKER_DIED = auto()
    ACCEPTED = auto()


class DeploymentModel(RuleBasedStateMachine):
    """What broker, workers and Postgres hold, as the rules have changed it."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.rows: dict[NotificationId, Row] = {}
        self.accepted: dict[NotificationId, NewNotification] = {}
        self.broker: list[Pointer] = []
        self.published: list[Pointer] = []
        self.unconfirmed: list[Pointer] = []
        self.workers: list[Worker] = []
        self.dead_ids: list[WorkerId] = []
        self.dead: list[tuple[WorkerId, int]] = []
        self.calls: dict[tuple[NotificationId, int], CallState] = {}
        self.late_accepted: set[tuple[NotificationId, int]] = set()
        self.released: set[tuple[WorkerId, NotificationId, int]] = set()
        database.clear()

    @invariant()
    def check(self) -> None:
        before, self.rows = self.rows, self.database.rows()
        assert self.rows.keys() == self.accepted.keys()
        for id_, row in self.rows.items():
            self.check_progress(row)
            assert row.has_failure is (row.status is Status.FAILED)
            if id_ in before and before[id_] != row:
                self.check_transition(id_, before[id_], row)
        self.released, self.late_accepted = set(), set()

    def check_counters(self, before: Row, row: Row) -> None:
        """Check that an attempt spends at most one try, and that a death spends none."""
        spent = row.tries - before.tries
        died = row.deaths - before.deaths
        assert (spent, died) in {(0, 0), (1, 0), (0, 1)}
        if spent or died:
            assert before.status is Status.SENDING

    def check_progress(self, row: Row) -> None:
        """Check that relay, rescuer or record will move the row, or that it is final."""
        match row.status:
            case Status.QUEUED:
                assert row.has_due_at or row.is_published
            case Status.SENDING:
                assert row.claimed_by in [*self.dead_ids, *(worker.id for worker in self.workers)]
                assert not row.has_due_at
            case status if status in WAITING:
                assert row.has_due_at
            case _:
                assert row.status in FINAL
                assert (row.has_due_at, row.claimed_by) == (False, None)

    def check_transition(self, id_: NotificationId, before: Row, row: Row) -> None:
        is_claimed = row.claim == before.claim + 1
        assert is_claimed or row.claim == before.claim
        assert is_claimed is (row.status is Status.SENDING and before.status is Status.QUEUED)
        self.check_counters(before, row)
        if row.status is not before.status:
            assert is_legal(before.status, row.status)
        if before.status in FINAL:
            assert row.status is Status.SENT
            assert (id_, before.claim) in self.late_accepted
        if before.status is Status.SENDING:
            live_ids = [worker.id for worker in self.running if worker.id == before.claimed_by]
            released = [(worker, id_, before.claim) for worker in live_ids]
            assert self.released.issuperset(released), "the row was taken from a live worker"

    @property
    def statuses(self) -> set[Status]:
        return {row.status for row in self.rows.values()}

    @property
    def running(self) -> Sequence[Worker]:
        return [worker for worker in self.workers if not worker.is_frozen]

    @property
    def unsent(self) -> Sequence[tuple[Worker, HeldMessage]]:
        return [
            (worker, held)
            for worker in self.running
            for held in worker.messages
            if not held.is_sent
        ]

    @property
    def superseded(self) -> Sequence[Pointer]:
        """Return the pointers of earlier claims, of rows that wait for the next claim."""
        return [
            pointer
            for pointer in self.published
            if self.rows[pointer.id].status is Status.QUEUED
            and pointer.claim < self.rows[pointer.id].claim
        ]

    @property
    def sent(self) -> Sequence[tuple[Worker, HeldMessage]]:
        return [
            (worker, held) for worker in self.running for held in worker.messages if held.is_sent
        ]

    def take_due(self, limit: int) -> list[Pointer]:
        taken = self.database.run(self.workers[0].store.take_due(quotas(*TWO_QUEUES), limit))
        assert len(taken) <= limit
        pointers = [pointer for pointer, _ in taken]
        self.published += pointers
        return pointers

    def take(self, worker: Worker, pointers: Sequence[Pointer], then: AfterClaim) -> None:
        pointers = not_held(worker, pointers)
        if not pointers:
            return
        replies = self.database.run(
            worker.store.claim([claim_request(pointer) for pointer in pointers])
        )
        for pointer, reply in zip(pointers, replies, strict=True):
            if then is AfterClaim.LOSES_REPLY:
                worker.messages.append(HeldMessage(pointer, None))
            elif isinstance(reply, Claimed):
                assert (reply.id, reply.claim) == (pointer.id, pointer.claim + 1)
                worker.messages.append(HeldMessage(pointer, reply))
                if then is AfterClaim.SENDS:
                    self.send(worker.messages[-1])

    def send(self, held: HeldMessage) -> None:
        """Call the provider: at most once per claim, and not during another call."""
        assert held.claimed is not None
        calls = {claim: call for (id_, claim), call in self.calls.items() if id_ == held.claimed.id}
        assert held.claimed.claim not in calls
        assert set(calls.values()) <= {CallState.MAY_REPEAT, CallState.WORKER_DIED}
        self.calls[held.claimed.id, held.claimed.claim] = CallState.OPEN
        held.is_sent = True

    def record_call(self, worker: Worker, held: HeldMessage, outcome: Outcome) -> None:
        """Record the result of a provider call and acknowledge the message."""
        assert held.claimed is not None
        key = held.claimed.id, held.claimed.claim
        before, result = self.rows[held.claimed.id], result_of(held.claimed, outcome)
        recorded = self.record_result(worker, held.claimed, result)
        is_ours = (before.status, before.claim, before.claimed_by) == (
            Status.SENDING,
            held.claimed.claim,
            worker.id,
        )
        assert recorded.late is not is_ours
        if is_ours:
            assert recorded.status in {result.status, or_expired(result.status)}
        elif recorded.status is not None:
            assert (recorded.status, result.status) == (Status.SENT, Status.SENT)
        if self.calls[key] is CallState.OPEN:
            is_accepted = isinstance(outcome, Accepted)
            self.calls[key] = CallState.ACCEPTED if is_accepted else CallState.MAY_REPEAT
        worker.messages.remove(held)

    def repeat_record(self, worker: Worker, held: HeldMessage, outcome: Outcome) -> None:
        """Record the same result again, as after a lost reply: nothing may change."""
        assert held.claimed is not None
        before = self.rows
        recorded = self.record_result(worker, held.claimed, result_of(held.claimed, outcome))
        assert not recorded.late
        assert self.database.rows() == before

    def record_result(self, worker: Worker, claimed: Claimed, result: AttemptResult) -> Recorded:
        self.released.add((worker.id, claimed.id, claimed.claim))
        if result.status is Status.SENT:
            self.late_accepted.add((claimed.id, claimed.claim))
        [recorded] = self.database.run(worker.store.record([(result, 0.0)]))
        return recorded

    def give_back(self, worker: Worker, requests: Sequence[ClaimRequest]) -> None:
        self.released |= {
            (worker.id, request.id, request.claim + 1)
            for request in requests
            if not request.is_buffered
        }
        before = self.rows
        self.database.run(worker.store.give_back(requests))
        after = self.database.rows()
        for request in requests:
            if before[request.id].claim not in {request.claim, request.claim + 1}:
                assert after[request.id].has_due_at is before[request.id].has_due_at, (
                    "an old copy changed the row"
                )

    def lose_connections(self, worker: Worker) -> None:
        """Return the worker's messages to the broker; its calls' results are lost."""
        self.broker += [held.pointer for held in worker.messages]
        for held in worker.messages:
            if held.is_sent and held.claimed is not None:
                self.calls[held.claimed.id, held.claimed.claim] = CallState.WORKER_DIED

    def publish(self, pointers: Sequence[Pointer], result: PublishResult) -> None:
        if result in {PublishResult.CONFIRMED, PublishResult.ARRIVED_UNCONFIRMED}:
            self.broker += pointers
        if result in {PublishResult.ARRIVED_UNCONFIRMED, PublishResult.LOST_UNCONFIRMED}:
            self.unconfirmed += pointers


def not_held(worker: Worker, pointers: Sequence[Pointer]) -> Sequence[Pointer]:
    """Return the pointers that the worker does not hold yet; it acknowledges the others."""
    held = {claim_request(held.pointer) for held in worker.messages}
    distinct = {claim_request(pointer): pointer for pointer in pointers}
    return [pointer for request, pointer in distinct.items() if request not in held]


def pick(things: Sequence[T], index: int) -> T:
    return things[index % len(things)]


def aged(pointer: Pointer, seconds: int) -> Pointer:
    return replace(pointer, published_at=pointer.published_at - seconds)


def or_expired(status: Status) -> Status:
    return Status.EXPIRED if status is Status.RETRYING else status


def result_of(claimed: Claimed, outcome: Outcome) -> AttemptResult:
    decision = decide(
        outcome,
        tries=claimed.tries,
        max_tries=claimed.max_tries,
        policy=POLICY,
        on_ambiguous=ON_AMBIGUOUS[claimed.queue.channel],
        draw=0.5,
    )
    now = time.monotonic()
    times = CallTimes(claimed.waited_s, started_at=now - 0.01, finished_at=now)
    return attempt_result(claimed, outcome, decision, "smtp", times)
