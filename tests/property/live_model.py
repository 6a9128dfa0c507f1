"""The state of a deployment under test, its invariants, and the steps that its rules consist of.

The invariants: a notification waits, has ended or was accepted, and never two of the first two; no
claim is given or sent twice; a repeated send follows a failed one, a death or a person's request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.due import DueClass
from notifier.domain.holds import PauseParking
from notifier.domain.notification import (
    Claimed,
    NewNotification,
    NotificationId,
    Status,
    WorkerId,
)
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import DeadProcess
from notifier.ports.store import (
    AttemptResult,
    ClaimRequest,
    DueRead,
    LiveRow,
    Orphan,
    OrphanDecision,
    Parked,
    ParkRequest,
    Recorded,
)
from tests.builders import claim_request, due_ranges, row_pointer
from tests.property.live_database import (
    QUEUE,
    Database,
    HeldRow,
    Holder,
    LateClaim,
    OpenAccept,
    RecordedResult,
    Row,
    StoredLease,
    Worker,
)

T = TypeVar("T")

ALL_CLASSES: Final = tuple(DueClass)
LOOK_ROWS: Final = 2


class PublishResult(Enum):
    """What happens to pointers that are published."""

    CONFIRMED = auto()
    ARRIVED_UNCONFIRMED = auto()
    LOST_UNCONFIRMED = auto()


class AfterClaim(Enum):
    """What a worker does with the reply to a claim."""

    SENDS = auto()
    HOLDS = auto()
    LOSES_REPLY = auto()
    CLAIM_IS_LATE = auto()


class CallState(Enum):
    """The state of one provider call."""

    OPEN = auto()
    MAY_REPEAT = auto()
    WORKER_DIED = auto()
    SENT_AGAIN_BY_A_PERSON = auto()
    ACCEPTED = auto()


TAG: Final = "sale"
"""Some notifications have it."""
PAUSED: Final = Scope(ScopeKind.TAG, TAG)
"""A pause that has ended by the time that a row is looked at again."""
REPEATABLE: Final = frozenset(
    {CallState.MAY_REPEAT, CallState.WORKER_DIED, CallState.SENT_AGAIN_BY_A_PERSON}
)


class DeploymentModel(RuleBasedStateMachine):
    """What broker, processes and Postgres hold, as the rules have changed it."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.may_lose_messages = False
        self.may_look = False
        self.has_slow_commit = False
        self.rows: dict[NotificationId, Row] = {}
        self.accepted: dict[NotificationId, NewNotification] = {}
        self.direct: set[NotificationId] = set()
        self.open_accepts: list[OpenAccept] = []
        self.broker: list[Pointer] = []
        self.published: list[Pointer] = []
        self.lease = StoredLease()
        self.holders = [Holder(), Holder()]
        self.workers: list[Worker] = []
        self.dead_ids: list[WorkerId] = []
        self.dead: list[tuple[WorkerId, int]] = []
        self.calls: dict[tuple[NotificationId, int], CallState] = {}
        self.given: dict[NotificationId, int] = {}
        self.late_claims: list[LateClaim] = []
        self.recorded: list[RecordedResult] = []
        database.clear()
        self.checked_at = database.now()

    @invariant()
    def check(self) -> None:
        rows = self.database.rows()
        assert rows.keys() == self.accepted.keys()
        # In the order of the commits, so that each example can be repeated.
        before, self.rows = self.rows, {id_: rows[id_] for id_ in self.accepted}
        since, self.checked_at = self.checked_at, self.database.now()
        self.check_held_rows()
        worker_ids = {*self.dead_ids, *(worker.id for worker in self.workers)}
        for id_, row in self.rows.items():
            assert row.is_stored
            assert not (row.is_live and row.end_status), "a row lives and has ended"
            assert row.is_live or row.end_status or row.is_accepted, "a notification is lost"
            assert row.has_content is not row.is_erased
            assert not (row.is_erased and row.has_details), "an answer about an erased one is kept"
            assert not (row.is_erased and row.is_live), "an erased notification may be called"
            if row.is_claimed:
                assert row.claimed_by in worker_ids
                assert row.claim == self.given[id_], "a claim that nobody was given"
            claim = row.claim if row.claim is not None else row.end_claim
            assert claim is None or claim >= self.given.get(id_, 0), "a claim went back"
            if id_ in before:
                self.check_transition(id_, before[id_], row, since)

    def check_held_rows(self) -> None:
        """Check that no row was taken from a worker that has been alive since its claim."""
        for worker in self.running:
            for held in worker.rows:
                if held.claimed is not None and not held.is_stale:
                    row = self.rows[held.claimed.id]
                    assert (row.claim, row.claimed_by) == (held.claimed.claim, worker.id)

    def check_transition(self, id_: NotificationId, before: Row, row: Row, since: datetime) -> None:
        if before.claim is not None and row.claim is not None:
            assert row.claim >= before.claim
        if not before.is_live and not before.end_status:
            assert not row.is_live, "a notification was accepted twice"
            assert not row.end_status
        if before.is_live and not row.is_live and not row.end_status:
            assert CallState.ACCEPTED in self.states(id_), "the row went without being sent"
        is_new = (row.claim, row.due_at) != (before.claim, before.due_at)
        if row.is_waiting and (not before.is_waiting or is_new):
            assert row.due_at is not None
            assert row.due_at >= since, "a row is due again where a cursor may have passed"

    def states(self, id_: NotificationId) -> set[CallState]:
        """The states of all calls of a notification."""
        return {state for (called, _), state in self.calls.items() if called == id_}

    @property
    def running(self) -> Sequence[Worker]:
        return [worker for worker in self.workers if not worker.is_frozen]

    @property
    def unsent(self) -> Sequence[tuple[Worker, HeldRow]]:
        return [
            (worker, held) for worker in self.running for held in worker.rows if not held.is_sent
        ]

    @property
    def sent(self) -> Sequence[tuple[Worker, HeldRow]]:
        return [(worker, held) for worker in self.running for held in worker.rows if held.is_sent]

    @property
    def any_row_is_held(self) -> bool:
        return any(worker.rows for worker in self.workers)

    @property
    def claimed(self) -> Sequence[NotificationId]:
        return [id_ for id_, row in self.rows.items() if row.is_claimed]

    @property
    def superseded(self) -> Sequence[Pointer]:
        """Pointers of earlier claims, of rows that wait for a later one."""
        return [
            pointer
            for pointer in self.published
            if self.rows[pointer.id].is_waiting
            and pointer.claim < (self.rows[pointer.id].claim or 0)
        ]

    @property
    def waiting(self) -> Sequence[NotificationId]:
        return [id_ for id_, row in self.rows.items() if row.is_waiting]

    @property
    def ended(self) -> Sequence[NotificationId]:
        return [id_ for id_, row in self.rows.items() if row.end_status and not row.is_erased]

    @property
    def erased(self) -> Sequence[NotificationId]:
        return [id_ for id_, row in self.rows.items() if row.is_erased]

    @property
    def acting_holders(self) -> Sequence[Holder]:
        """Those who publish; also one whose lease was taken over, and who does not know it yet."""
        return [holder for holder in self.holders if holder.cursor is not None]

    def publish(self, pointers: Sequence[Pointer], result: PublishResult) -> None:
        self.published += pointers
        if result is not PublishResult.LOST_UNCONFIRMED:
            self.broker += pointers

    def begin_read(self, holder: Holder, room: int) -> None:
        assert holder.cursor is not None
        limits = dict.fromkeys(ALL_CLASSES, room)
        ranges = holder.cursor.ranges(limits, room, self.database.monotonic())
        holder.read = self.database.run(self.workers[0].store.read_due(ranges))

    def finish_read(self, holder: Holder, result: PublishResult) -> None:
        """Publish what a read returned; its snapshot may be old by now."""
        assert holder.cursor is not None
        assert holder.read is not None
        read, holder.read = holder.read, None
        batch = holder.cursor.read(read.rows, read, self.database.monotonic())
        self.publish(pointers_of(batch.rows), result)
        is_confirmed = result is PublishResult.CONFIRMED
        holder.cursor.settle(batch, [] if is_confirmed else batch.rows)

    def run_pass(self, holder: Holder, room: int, result: PublishResult) -> None:
        self.begin_read(holder, room)
        self.finish_read(holder, result)

    def look(self, holder: Holder, *, is_long: bool) -> None:
        cursor = holder.cursor
        assert cursor is not None
        cursor.begin_look(self.database.monotonic(), is_long=is_long)
        while ranges := cursor.look_ranges(LOOK_ROWS):
            read = self.database.run(self.workers[0].store.look(ranges))
            batch = cursor.looked(read.rows, read, self.database.monotonic())
            self.publish(pointers_of(batch.rows), PublishResult.CONFIRMED)
            cursor.settle(batch)

    def publish_lost(self, holder: Holder) -> None:
        """Publish again what was published before now and is unclaimed, lost or not."""
        assert holder.cursor is not None
        now = self.read_nothing().now
        rows = holder.cursor.lost(now)
        self.publish(pointers_of(rows), PublishResult.CONFIRMED)
        holder.cursor.published_again(rows, now, self.database.monotonic())

    def write_progress(self, holder: Holder) -> None:
        """Renew the lease, unless another process has taken it over."""
        if self.lease.holder is holder and self.lease.term == holder.term:
            assert holder.cursor is not None
            self.lease.progress = holder.cursor.progress(is_backlogged=False)

    def read_nothing(self) -> DueRead:
        return self.database.run(self.workers[0].store.look([]))

    def take(
        self,
        worker: Worker,
        pointers: Sequence[Pointer],
        then: AfterClaim,
        *,
        pauses: Sequence[PauseParking] | None = None,
    ) -> None:
        pointers = not_held(worker, pointers)
        if not pointers:
            return
        requests = [claim_request(pointer) for pointer in pointers]
        if then is AfterClaim.CLAIM_IS_LATE:
            worker.rows += [HeldRow(pointer, None) for pointer in pointers]
            self.late_claims += [LateClaim(worker, request, pauses) for request in requests]
            return
        before = self.database.rows()
        replies = self.database.run(worker.store.claim(requests, pauses=pauses))
        self.check_parked(requests, before, pauses)
        if then is AfterClaim.LOSES_REPLY:
            self.note_claims(worker, before)
            worker.rows += [HeldRow(pointer, None) for pointer in pointers]
            return
        for pointer, reply in zip(pointers, replies, strict=True):
            if isinstance(reply, Claimed):
                assert (reply.id, reply.claim) == (pointer.id, pointer.claim + 1)
                self.note_claim(reply.id, reply.claim)
                held = HeldRow(pointer, reply)
                worker.rows.append(held)
                if then is AfterClaim.SENDS:
                    self.send(held)
            is_parked = bool(pauses) and self.is_claimable(pointer, before[pointer.id])
            assert isinstance(reply, Parked) is (is_parked and self.has_tag(pointer.id))

    def has_tag(self, id_: NotificationId) -> bool:
        return self.accepted[id_].tag == TAG

    @staticmethod
    def is_claimable(wanted: Pointer | ClaimRequest, row: Row) -> bool:
        return row.is_waiting and row.claim == wanted.claim and not row.is_expired

    def check_parked(
        self,
        requests: Sequence[ClaimRequest],
        before: dict[NotificationId, Row],
        pauses: Sequence[PauseParking] | None,
    ) -> None:
        """Check that a claim beside a pause parks what that holds and claims nothing of it."""
        after = self.database.rows()
        for request in requests if pauses else ():
            old, new = before[request.id], after[request.id]
            if self.has_tag(request.id) and self.is_claimable(request, old):
                assert (new.claim, new.is_claimed, new.is_due) == (request.claim + 1, False, False)
                assert (new.tries, new.deaths) == (old.tries, old.deaths)
                assert request.id in self.database.ids("SELECT id FROM parked")

    def note_claims(self, worker: Worker, before: dict[NotificationId, Row]) -> None:
        """Note the claims of a worker that got no answer."""
        for id_, row in self.database.rows().items():
            if row.claimed_by == worker.id and before[id_] != row:
                assert row.claim is not None
                self.note_claim(id_, row.claim)

    def note_claim(self, id_: NotificationId, claim: int) -> None:
        assert claim > self.given.get(id_, 0), "a claim was given twice"
        self.given[id_] = claim

    def arrive(self, late: LateClaim) -> None:
        """Execute a claim whose worker gave up waiting; nothing claims the row but that worker.

        Once the worker has given the row back, the claim must fail.
        """
        before = self.database.rows()
        self.database.run(late.worker.store.claim([late.request], pauses=late.pauses))
        self.check_parked([late.request], before, late.pauses)
        self.note_claims(late.worker, before)
        is_awaited = any(
            claim_request(held.pointer) == late.request and held.claimed is None
            for held in late.worker.rows
        )
        is_dead = late.worker not in self.workers
        after = self.database.rows()
        assert is_awaited or is_dead or after == before, "a claim succeeded that nobody awaits"

    def send(self, held: HeldRow) -> None:
        """Call the provider: at most once per claim, and again only for a reason."""
        assert held.claimed is not None
        key = held.claimed.id, held.claimed.claim
        assert key not in self.calls
        assert not self.database.rows()[held.claimed.id].is_erased, "an erased one was called"
        assert self.states(held.claimed.id) <= REPEATABLE, "a notification was sent twice"
        self.calls[key] = CallState.OPEN
        held.is_sent = True

    def record_call(
        self, worker: Worker, held: HeldRow, status: Status, after: timedelta | None = None
    ) -> None:
        """Record the result of a provider call."""
        assert held.claimed is not None
        key = held.claimed.id, held.claimed.claim
        row = self.database.rows()[held.claimed.id]
        result = result_of(held.claimed, status, after)
        is_accepted = status is Status.SENT
        if self.calls[key] is CallState.OPEN:
            self.calls[key] = CallState.ACCEPTED if is_accepted else CallState.MAY_REPEAT
        recorded = self.record(worker, result)
        is_ours = (row.claim, row.claimed_by) == (held.claimed.claim, worker.id)
        assert recorded.late is not is_ours
        if is_ours:
            expected = {status, Status.EXPIRED} if status is Status.RETRYING else {status}
            assert recorded.status in expected
        elif recorded.status is not None:
            assert is_accepted
            assert recorded.status is Status.SENT
        is_newest = self.given[held.claimed.id] == held.claimed.claim
        if is_accepted and is_newest and (row.is_waiting or row.end_status):
            assert recorded.status is Status.SENT, "what was accepted may be sent again"
        if recorded.status is Status.SENT:
            self.calls[key] = CallState.ACCEPTED
        worker.rows.remove(held)
        self.recorded.append(RecordedResult(worker, result))

    def repeat_record(self, repeated: RecordedResult) -> None:
        """Record a result again, as after a lost answer: nothing may change.

        But an Accepted settles a row that is not being sent any more.
        """
        before, result = self.database.rows(), repeated.result
        recorded = self.record(repeated.worker, result)
        assert not recorded.late
        after = self.database.rows()
        if after[result.id] != before[result.id]:
            assert (result.status, recorded.status) == (Status.SENT, Status.SENT)
            assert not before[result.id].is_claimed
            self.calls[result.id, result.claim] = CallState.ACCEPTED
            before[result.id] = after[result.id]
        assert after == before

    def record(self, worker: Worker, result: AttemptResult) -> Recorded:
        [recorded] = self.database.run(worker.store.record([(result, 0.0)]))
        return recorded

    def give_back(self, worker: Worker, requests: Sequence[ClaimRequest]) -> None:
        """Give rows back: afterwards nobody claims them at that claim, and they are due now."""
        before = self.database.rows()
        self.database.run(worker.store.give_back(requests))
        after = self.database.rows()
        for request in requests:
            old, new = before[request.id], after[request.id]
            if new != old:
                assert (new.claim, new.is_claimed) == (request.claim + 1, False)
                assert (new.tries, new.deaths) == (old.tries, old.deaths)
            else:
                assert not (old.is_waiting and old.claim == request.claim)

    def park(self, worker: Worker, claimed: Claimed, after_s: float) -> None:
        """Park a row that this worker has claimed; one that it lost does not change."""
        before = self.database.rows()
        request = ParkRequest(id=claimed.id, claim=claimed.claim, after_s=after_s)
        queues = self.database.run(worker.store.park([request]))
        old, new = before[claimed.id], self.database.rows()[claimed.id]
        is_ours = (old.claim, old.claimed_by) == (claimed.claim, worker.id)
        assert bool(queues) is is_ours
        if is_ours:
            assert (new.claim, new.is_claimed, new.is_due) == (claimed.claim, False, False)
            assert (new.tries, new.deaths) == (old.tries, old.deaths)
        else:
            assert new == old

    def bury(self, worker: Worker, status: Status) -> None:
        """Settle the rows that are claimed by a process that is dead for this worker."""
        gone = {id_ for id_, _ in self.dead} | set(self.dead_ids)
        read = self.database.run(worker.store.look(due_ranges(QUEUE)))
        decisions = [orphan_decision(row, status) for row in read.rows if row.claimed_by in gone]
        if decisions:
            dead = [DeadProcess(*process) for process in self.dead]
            self.database.run(worker.store.settle_orphans(decisions, dead))

    def lose_connections(self, worker: Worker) -> None:
        """Return the worker's messages to the broker; its calls' results are lost."""
        self.broker += [held.pointer for held in worker.rows]
        for held in worker.rows:
            if held.is_sent and held.claimed is not None:
                self.calls[held.claimed.id, held.claimed.claim] = CallState.WORKER_DIED


def pointers_of(rows: Sequence[LiveRow]) -> list[Pointer]:
    return [row_pointer(row) for row in rows]


def not_held(worker: Worker, pointers: Sequence[Pointer]) -> Sequence[Pointer]:
    """Return the pointers that the worker does not hold yet; it acknowledges the others."""
    held = {claim_request(held.pointer) for held in worker.rows}
    distinct = {claim_request(pointer): pointer for pointer in pointers}
    return [pointer for request, pointer in distinct.items() if request not in held]


def pick(things: Sequence[T], index: int) -> T:
    return things[index % len(things)]


def orphan_decision(row: LiveRow, status: Status) -> OrphanDecision:
    assert row.claimed_by is not None
    orphan = Orphan(
        id=NotificationId(row.position.id),
        claim=row.claim,
        worker=row.claimed_by,
        queue=row.queue,
        deaths=row.deaths,
    )
    reason = "ambiguous" if status is Status.FAILED else ""
    return OrphanDecision(orphan=orphan, provider="smtp", status=status, reason=reason)


def result_of(claimed: Claimed, status: Status, after: timedelta | None) -> AttemptResult:
    outcomes = {Status.SENT: "accepted", Status.RETRYING: "unavailable", Status.FAILED: "refused"}
    now = time.monotonic()
    return AttemptResult(
        id=claimed.id,
        claim=claimed.claim,
        status=status,
        spends=True,
        after=after,
        reason="refused" if status is Status.FAILED else "",
        outcome=outcomes[status],
        provider="smtp",
        code="",
        detail="for ada@example.com",
        reference="<1@relay>",
        waited_s=claimed.waited_s,
        started_at_monotonic=now - 0.01,
        finished_at_monotonic=now,
    )
