"""The state of a deployment under test, its invariants, and the steps that its rules consist of.

The invariants: no claim is sent twice; no notification is lost; what may be claimed again lies
where its reader has not been yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final, TypeVar

from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)

from notifier.delivery.attempt import CallTimes, attempt_result
from notifier.domain.due import DueClass
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
from notifier.domain.retry import AmbiguityRule, Spent, decide
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import DeadProcess
from notifier.ports.store import AttemptResult, ClaimRequest, Recorded
from tests.builders import (
    EMAIL_HIGH,
    SMS_HIGH,
    claim_request,
    due_ranges,
    row_pointer,
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
DIRECT_AFTER_S: Final = 2.0
"""What was stored to be published directly is read once it has been due for so long."""
LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_ERROR: Final = timedelta(milliseconds=1)


class PublishResult(Enum):
    """What happens to the pointers that a process publishes."""

    CONFIRMED = auto()
    ARRIVED_UNCONFIRMED = auto()
    LOST_UNCONFIRMED = auto()
    PUBLISHER_DIED = auto()


class AfterClaim(Enum):
    """What a worker does with the reply to a claim.

    DELAYED: the worker gives up the claim while it is still on its way to Postgres.
    """

    SENDS = auto()
    HOLDS = auto()
    LOSES_REPLY = auto()
    DELAYED = auto()


class CallState(Enum):
    """The state of one provider call."""

    OPEN = auto()
    MAY_REPEAT = auto()
    WORKER_DIED = auto()
    ACCEPTED = auto()


class DeploymentModel(RuleBasedStateMachine):
    """What broker, workers and Postgres hold, as the rules have changed it.

    `known` are the pointers that the publisher has published and remembers; `read_at` is when it
    last read the rows that are due.
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.rows: dict[NotificationId, Row] = {}
        self.accepted: dict[NotificationId, NewNotification] = {}
        self.broker: list[Pointer] = []
        self.published: list[Pointer] = []
        self.known: set[ClaimRequest] = set()
        self.read_at = LONG_AGO
        self.delayed: list[tuple[Worker, ClaimRequest]] = []
        self.workers: list[Worker] = []
        self.dead_ids: list[WorkerId] = []
        self.dead: list[DeadProcess] = []
        self.calls: dict[tuple[NotificationId, int], CallState] = {}
        self.late_accepted: set[tuple[NotificationId, int]] = set()
        self.released: set[tuple[WorkerId, NotificationId, int]] = set()
        database.clear()

    @invariant()
    def check(self) -> None:
        before, self.rows = self.rows, self.database.rows()
        assert self.rows.keys() == self.accepted.keys()
        for id_, row in self.rows.items():
            self.check_row(row)
            if id_ in before and before[id_] != row:
                self.check_transition(id_, before[id_], row)
        self.released, self.late_accepted = set(), set()

    def check_row(self, row: Row) -> None:
        """Check that the row waits, or that a process answers for it, or that it is final."""
        assert not (row.is_live and row.is_ended)
        if row.status is Status.SENDING:
            assert row.claimed_by in [*self.dead_ids, *(worker.id for worker in self.workers)]
        elif row.status not in WAITING:
            assert row.status in FINAL

    def check_transition(self, id_: NotificationId, before: Row, row: Row) -> None:
        if row.status is not before.status:
            assert is_legal(before.status, row.status)
        if before.claim is not None and row.claim is not None:
            self.check_claim(before, row)
        if before.status in FINAL:
            assert row.status is Status.SENT
            assert (id_, before.claim) in self.late_accepted
        if before.claimed_by not in {None, row.claimed_by}:
            live_ids = [worker.id for worker in self.running if worker.id == before.claimed_by]
            released = [(worker, id_, before.claim) for worker in live_ids]
            assert self.released.issuperset(released), "the row was taken from a live worker"
        self.check_counters(before, row)

    def check_claim(self, before: Row, row: Row) -> None:
        """Check that the claim grows as it may, and that a freed row can be published again."""
        grew = row.claim != before.claim
        assert row.claim in {before.claim, before.claim + 1 if before.claim is not None else None}
        was_claimed = before.claimed_by is not None
        is_claimed = row.claimed_by is not None and not was_claimed
        assert grew or not is_claimed
        is_freed = row.is_live and row.claimed_by is None and (grew or was_claimed)
        assert not grew or is_claimed or is_freed
        if is_freed:
            assert row.due_at is not None
            assert row.due_at >= self.read_at - CLOCK_ERROR, "its reader has passed it"
            assert row.due_class in {DueClass.BACK, DueClass.RETRY}

    def check_counters(self, before: Row, row: Row) -> None:
        """Check that an attempt spends at most one try, and that a death spends none."""
        spent = 0 if row.tries is None or before.tries is None else row.tries - before.tries
        died = 0 if row.deaths is None or before.deaths is None else row.deaths - before.deaths
        assert (spent, died) in {(0, 0), (1, 0), (0, 1)}
        if spent or died:
            assert before.status is Status.SENDING

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
    def sent(self) -> Sequence[tuple[Worker, HeldMessage]]:
        return [
            (worker, held) for worker in self.running for held in worker.messages if held.is_sent
        ]

    @property
    def superseded(self) -> Sequence[Pointer]:
        """Return the pointers of earlier claims, of rows that wait for the next claim."""
        return [
            pointer
            for pointer in self.published
            if self.rows[pointer.id].status is Status.QUEUED
            and pointer.claim < (self.rows[pointer.id].claim or 0)
        ]

    @property
    def unpublished(self) -> Sequence[Pointer]:
        """Read what is due and return what is not known to be published."""
        ranges = [
            range_._replace(due_for_s=DIRECT_AFTER_S)
            if range_.due_class is DueClass.DIRECT
            else range_
            for range_ in due_ranges(*TWO_QUEUES)
        ]
        read = self.database.run(self.workers[0].store.read_due(ranges))
        self.read_at = read.now
        pointers = [
            row_pointer(row) for row in read.rows if row.claimed_by is None and not row.is_expired
        ]
        return [pointer for pointer in pointers if claim_request(pointer) not in self.known]

    def publish(self, pointers: Sequence[Pointer], result: PublishResult) -> None:
        """Publish as the holder of the lease: it reads again what is not confirmed."""
        self.published += pointers
        match result:
            case PublishResult.CONFIRMED:
                self.broker += pointers
                self.known.update(map(claim_request, pointers))
            case PublishResult.ARRIVED_UNCONFIRMED:
                self.broker += pointers
            case PublishResult.LOST_UNCONFIRMED:
                pass
            case PublishResult.PUBLISHER_DIED:
                self.known.clear()

    def take(self, worker: Worker, pointers: Sequence[Pointer], then: AfterClaim) -> None:
        pointers = not_held(worker, pointers)
        if not pointers:
            return
        requests = [claim_request(pointer) for pointer in pointers]
        if then is AfterClaim.DELAYED:
            self.delayed += [(worker, request) for request in requests]
            worker.orphans.update(requests)
            return
        replies = self.database.run(worker.store.claim(requests))
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
        is_ours = (before.claim, before.claimed_by) == (held.claimed.claim, worker.id)
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
            if is_returned(worker, before[request.id], request):
                assert after[request.id].claim == request.claim + 1
                assert after[request.id].claimed_by is None
            elif [other.id for other in requests].count(request.id) == 1:
                assert after[request.id] == before[request.id], "an old copy changed the row"

    def settle_orphans(self, worker: Worker) -> None:
        frozen = {other.id for other in self.workers if other.is_frozen}
        live = {other.id for other in self.workers} - frozen
        self.database.settle_orphans(worker, live, self.dead)

    def lose_connections(self, worker: Worker) -> None:
        """Return the worker's messages to the broker; its calls' results are lost."""
        self.broker += [held.pointer for held in worker.messages]
        for held in worker.messages:
            if held.is_sent and held.claimed is not None:
                self.calls[held.claimed.id, held.claimed.claim] = CallState.WORKER_DIED


def is_returned(worker: Worker, row: Row, request: ClaimRequest) -> bool:
    """Whether a give-back must change this row."""
    if not row.is_live:
        return False
    if row.claimed_by is None:
        return row.claim == request.claim
    is_own = (row.claim, row.claimed_by) == (request.claim + 1, worker.id)
    return is_own and not request.is_buffered


def not_held(worker: Worker, pointers: Sequence[Pointer]) -> Sequence[Pointer]:
    """Return the pointers that the worker has not in flight; it acknowledges the others."""
    in_flight = {claim_request(held.pointer) for held in worker.messages} | worker.orphans
    distinct = {claim_request(pointer): pointer for pointer in pointers}
    return [pointer for request, pointer in distinct.items() if request not in in_flight]


def pick(things: Sequence[T], index: int) -> T:
    return things[index % len(things)]


def or_expired(status: Status) -> Status:
    return Status.EXPIRED if status is Status.RETRYING else status


def result_of(claimed: Claimed, outcome: Outcome) -> AttemptResult:
    decision = decide(
        outcome,
        spent=Spent(
            tries=claimed.tries,
            deferrals=claimed.deferrals,
            unspent=claimed.unspent,
            ambiguous=claimed.ambiguous,
        ),
        max_tries=claimed.max_tries,
        policy=POLICY,
        ambiguity=AmbiguityRule(on_ambiguous=ON_AMBIGUOUS[claimed.queue.channel]),
        draw=0.5,
    )
    now = time.monotonic()
    times = CallTimes(claimed.waited_s, started_at=now - 0.01, finished_at=now)
    return attempt_result(claimed, outcome, decision, "smtp", times)
