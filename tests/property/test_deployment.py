"""Whatever is lost, doubled, killed, frozen or late: no two sends of a claim, and no row forgotten.

A state machine over the real statements on a real Postgres.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from enum import Enum, auto
from typing import Final, TypeVar, assert_never

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from notifier.domain.notification import (
    FINAL,
    Claimed,
    NewNotification,
    NotificationId,
    QueueKey,
    Status,
    WorkerId,
)
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.domain.retry import Fail, Retry, Settle, decide
from notifier.ports.broker import Pointer
from notifier.ports.store import AttemptResult, ClaimRequest, Recorded
from tests.builders import (
    EMAIL_HIGH,
    SMS_HIGH,
    a_notification,
    a_result,
    claim_request,
    quotas,
    worker_id,
)
from tests.property.deployment import (
    ON_AMBIGUOUS,
    POLICY,
    Database,
    Held,
    Row,
    Worker,
    open_database,
)
from tests.transitions import is_legal

T = TypeVar("T")

NOTIFICATIONS_MOST: Final = 3
WORKERS_MOST: Final = 2
TTL: Final = timedelta(hours=1)
BOTH: Final = (EMAIL_HIGH, SMS_HIGH)
A_QUEUE: Final = st.sampled_from(BOTH)
ONE_OF: Final = st.integers(0, 5)
"""Which of those there are; counted on from the first again."""
OUTCOMES: Final = st.sampled_from(
    (
        Accepted(),
        Refused(code="550"),
        Throttled(code="429"),
        Unavailable(code="503"),
        Unavailable(code="401", spends=False),
        Ambiguous(code="timeout"),
    )
)


class Publish(Enum):
    """What becomes of pointers that the relay took."""

    CONFIRMED = auto()
    ARRIVED_UNCONFIRMED = auto()
    LOST_UNCONFIRMED = auto()
    RELAY_DIED = auto()


class Taken(Enum):
    """What a worker does with the answer to a claim."""

    SENDS = auto()
    HOLDS = auto()
    NEVER_HEARS = auto()


class Send(Enum):
    """What is known of one provider call."""

    OPEN = auto()
    MAY_REPEAT = auto()
    OF_THE_DEAD = auto()
    ACCEPTED = auto()


class Deployment(RuleBasedStateMachine):
    """Every rule is one statement of the product, or one fault."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.rows: dict[NotificationId, Row] = {}
        self.accepted: dict[NotificationId, NewNotification] = {}
        self.broker: list[Pointer] = []
        self.published: list[Pointer] = []
        self.unconfirmed: list[Pointer] = []
        self.workers: list[Worker] = []
        self.gone: list[WorkerId] = []
        self.silent: list[tuple[WorkerId, int]] = []
        self.sends: dict[tuple[NotificationId, int], Send] = {}
        self.accepts_late: set[tuple[NotificationId, int]] = set()
        self.let_go: set[tuple[WorkerId, NotificationId, int]] = set()
        database.clear()

    # ---- accept and relay -----------------------------------------------------------------------

    @initialize()
    def two_workers(self) -> None:
        self.start()
        self.start()

    @precondition(lambda self: len(self.accepted) < NOTIFICATIONS_MOST)
    @rule(
        queue=A_QUEUE,
        delay=st.sampled_from((None, None, timedelta(seconds=30))),
        max_tries=st.sampled_from((None, None, 1, 2)),
        what=st.none() | st.sampled_from(Publish),
    )
    def accept(
        self,
        queue: QueueKey,
        delay: timedelta | None,
        max_tries: int | None,
        what: Publish | None,
    ) -> None:
        """Those before once more in the same batch: the answer to them was lost.

        All are due, or stored as taken and published.
        """
        item = a_notification(queue, delay=delay, ttl=TTL, max_tries=max_tries)
        self.accepted[item.id] = item
        items = list(self.accepted.values())
        taken = {each.id for each in items if what and each.status is Status.QUEUED}
        pointers = self.database.run(self.workers[0].store.insert(items, published=taken))
        self.published += pointers
        self.publish(pointers, what or Publish.RELAY_DIED)

    @precondition(lambda self: any(row.is_due for row in self.rows.values()))
    @rule(most=st.integers(1, 3), what=st.sampled_from(Publish))
    def relay(self, most: int, what: Publish) -> None:
        self.publish(self.take_due(most), what)

    def publish(self, pointers: Sequence[Pointer], what: Publish) -> None:
        if what in {Publish.CONFIRMED, Publish.ARRIVED_UNCONFIRMED}:
            self.broker += pointers
        if what in {Publish.ARRIVED_UNCONFIRMED, Publish.LOST_UNCONFIRMED}:
            self.unconfirmed += pointers

    @precondition(lambda self: self.unconfirmed)
    @rule()
    def unpublish(self) -> None:
        self.database.run(self.workers[0].store.unpublish(self.unconfirmed))
        self.unconfirmed.clear()

    @precondition(lambda self: self.running and any(row.is_due for row in self.rows.values()))
    @rule(who=ONE_OF)
    def relay_claim_and_send(self, who: int) -> None:
        """What mostly happens, in one step, so that the rest happens to more than `queued`."""
        pointers = self.take_due(NOTIFICATIONS_MOST)
        self.check()
        self.take(one_of(self.running, who), pointers, Taken.SENDS)

    # ---- the broker -----------------------------------------------------------------------------

    @precondition(lambda self: self.broker)
    @rule(which=ONE_OF)
    def lose_messages(self, which: int) -> None:
        """One; or all, as a broker in memory does at its start."""
        if which:
            self.broker.remove(one_of(self.broker, which))
        else:
            self.broker.clear()
            self.database.run(self.workers[0].store.requeue_all())

    @precondition(lambda self: self.broker)
    @rule(which=ONE_OF)
    def double_a_message(self, which: int) -> None:
        self.broker.append(one_of(self.broker, which))

    @precondition(lambda self: any(worker.hand for worker in self.workers))
    @rule()
    def cut_every_connection(self) -> None:
        """What was in hand is delivered again, while its workers go on."""
        for worker in self.workers:
            self.broker += [held.pointer for held in worker.hand]

    # ---- claim, send, record --------------------------------------------------------------------

    @precondition(lambda self: self.broker and self.running)
    @rule(who=ONE_OF, which=ONE_OF, count=st.integers(1, 3), what=st.sampled_from(Taken))
    def claim(self, who: int, which: int, count: int, what: Taken) -> None:
        taken = [
            self.broker.pop(which % len(self.broker)) for _ in range(min(count, len(self.broker)))
        ]
        self.take(one_of(self.running, who), taken, what)

    @precondition(lambda self: self.running and any(worker.hand for worker in self.workers))
    @rule(who=ONE_OF, which=ONE_OF, what=st.sampled_from(Taken))
    def claim_what_is_in_a_hand(self, who: int, which: int, what: Taken) -> None:
        """Its connection was cut, and it was delivered again to another."""
        held = one_of([held for worker in self.workers for held in worker.hand], which)
        self.take(one_of(self.running, who), [held.pointer], what)

    @precondition(lambda self: self.running and self.outlived)
    @rule(who=ONE_OF, which=ONE_OF)
    def claim_an_old_copy(self, who: int, which: int) -> None:
        """It turns up now, of all times: whoever takes it gets nothing."""
        pointer = one_of(self.outlived, which)
        claim = self.rows[pointer.id].claim
        self.take(one_of(self.running, who), [pointer], Taken.HOLDS)
        assert self.database.rows()[pointer.id].claim == claim

    @precondition(lambda self: self.unsent)
    @rule(which=ONE_OF)
    def send_what_is_held(self, which: int) -> None:
        _, held = one_of(self.unsent, which)
        if held.claimed is not None and not held.is_stale:
            self.send(held)

    @precondition(lambda self: self.sent)
    @rule(which=ONE_OF, outcome=OUTCOMES, is_repeated=st.booleans())
    def record(self, which: int, outcome: Outcome, *, is_repeated: bool) -> None:
        worker, held = one_of(self.sent, which)
        self.settle(worker, held, outcome)
        if is_repeated:
            self.check()
            self.record_again(worker, held, outcome)

    # ---- what goes back -------------------------------------------------------------------------

    @precondition(lambda self: self.unsent)
    @rule(which=ONE_OF)
    def give_back_what_was_not_sent(self, which: int) -> None:
        worker, held = one_of(self.unsent, which)
        self.give_back(worker, [claim_request(held.pointer)])
        worker.hand.remove(held)

    @precondition(lambda self: self.broker and self.running)
    @rule(who=ONE_OF, which=ONE_OF)
    def give_back_what_was_buffered(self, who: int, which: int) -> None:
        pointer = self.broker.pop(which % len(self.broker))
        self.give_back(
            one_of(self.running, who), [replace(claim_request(pointer), is_buffered=True)]
        )

    @precondition(lambda self: self.unsent)
    @rule(which=ONE_OF)
    def forget_what_was_not_sent(self, which: int) -> None:
        """A consumer that was cancelled: unacknowledged, its message is delivered again."""
        worker, held = one_of(self.unsent, which)
        worker.hand.remove(held)
        self.broker.append(held.pointer)

    @precondition(lambda self: self.running and Status.SENDING in self.statuses)
    @rule(who=ONE_OF)
    def release_orphans(self, who: int) -> None:
        worker = one_of(self.running, who)
        mine = self.database.run(worker.store.claimed_by_me())
        if orphans := [each for each in mine if not worker.holds(each.id)]:
            self.give_back(worker, orphans)

    # ---- workers --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < WORKERS_MOST)
    @rule()
    def start(self) -> None:
        worker = Worker(self.database.store(worker_id()))
        self.database.beat(worker)
        self.workers.append(worker)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(who=ONE_OF, leaves_a_row=st.booleans())
    def kill(self, who: int, *, leaves_a_row: bool) -> None:
        worker = one_of(self.workers, who)
        self.lose_connections(worker)
        self.workers.remove(worker)
        self.gone.append(worker.id)
        if leaves_a_row:
            self.silent.append((worker.id, worker.beat))
        else:
            self.database.forget(worker)

    @precondition(lambda self: len(self.running) > 1)
    @rule(who=ONE_OF)
    def freeze(self, who: int) -> None:
        """Others see its counter stand still; it knows nothing of that."""
        worker = one_of(self.running, who)
        self.lose_connections(worker)
        for held in worker.hand:
            held.is_stale = True
        worker.is_frozen = True
        self.silent.append((worker.id, worker.beat))

    @precondition(lambda self: len(self.running) < len(self.workers))
    @rule()
    def thaw(self) -> None:
        """They beat again. What others had seen of their counters stays in their minds."""
        for worker in self.workers:
            if worker.is_frozen:
                worker.is_frozen = False
                worker.beat += 1
                self.database.beat(worker)

    @precondition(lambda self: self.running and Status.SENDING in self.statuses)
    @rule(who=ONE_OF)
    def bury_the_dead(self, who: int) -> None:
        self.database.settle_orphans(one_of(self.running, who), self.silent)

    @precondition(lambda self: len(self.running) > 1)
    @rule(who=ONE_OF)
    def freeze_until_buried(self, who: int) -> None:
        """Long enough to be taken for dead, and no longer."""
        self.freeze(who)
        self.bury_the_dead(0)
        self.check()
        self.thaw()

    # ---- time -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((2, 15, 15, 60, 60, 1800)))
    def time_passes(self, seconds: int) -> None:
        self.database.let_pass(timedelta(seconds=seconds))
        self.unconfirmed = [aged(pointer, seconds) for pointer in self.unconfirmed]
        self.broker = [aged(pointer, seconds) for pointer in self.broker]

    @precondition(lambda self: any(row.is_published for row in self.rows.values()))
    @rule(queue=A_QUEUE)
    def rescue(self, queue: QueueKey) -> None:
        """Of whatever is out for 10 s, be it lost or not: a rescue in error must do no harm."""
        store, before = self.workers[0].store, self.database.rows()
        self.database.run(store.rescue(queue, self.database.run(store.database_now())))
        for id_, row in self.database.rows().items():
            if before[id_].is_published and not row.is_published:
                assert row.rescues == before[id_].rescues + 1, (
                    "the next is waited for twice as long"
                )

    @precondition(lambda self: self.rows)
    @rule()
    def sweep(self) -> None:
        self.database.run(self.workers[0].store.sweep())

    # ---- what must hold -------------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        before, self.rows = self.rows, self.database.rows()
        assert self.rows.keys() == self.accepted.keys()
        for id_, row in self.rows.items():
            self.something_will_move(row)
            assert row.has_failure is (row.status is Status.FAILED)
            if id_ in before and before[id_] != row:
                self.may_become(id_, before[id_], row)
        self.let_go, self.accepts_late = set(), set()

    def something_will_move(self, row: Row) -> None:
        """Relay, rescuer or record; or nothing needs to."""
        match row.status:
            case Status.SCHEDULED | Status.RETRYING:
                assert row.has_due_at
            case Status.QUEUED:
                assert row.has_due_at or row.is_published
            case Status.SENDING:
                assert row.claimed_by in [*self.gone, *(worker.id for worker in self.workers)]
                assert not row.has_due_at
            case _:
                assert row.status in FINAL
                assert (row.has_due_at, row.claimed_by) == (False, None)

    def may_become(self, id_: NotificationId, before: Row, row: Row) -> None:
        is_claimed = row.claim == before.claim + 1
        assert is_claimed or row.claim == before.claim
        assert is_claimed is (row.status is Status.SENDING and before.status is Status.QUEUED)
        assert row.tries >= before.tries
        if row.status is not before.status:
            assert is_legal(before.status, row.status)
        if before.status in FINAL:
            assert row.status is Status.SENT
            assert (id_, before.claim) in self.accepts_late
        if before.status is Status.SENDING:
            living = [worker.id for worker in self.running if worker.id == before.claimed_by]
            let_go = [(worker, id_, before.claim) for worker in living]
            assert self.let_go.issuperset(let_go), "taken from a living worker"

    def teardown(self) -> None:
        if sys.exception() is None:  # else that is what is to be told
            self.everything_becomes_final()

    def everything_becomes_final(self) -> None:
        """One worker is left, which was taken for dead, with all it held; it finishes the rest."""
        self.start()
        self.thaw()
        self.check()
        self.freeze_until_buried(0)
        self.check()
        while len(self.workers) > 1:
            self.kill(1, leaves_a_row=False)
        [last] = self.workers
        for late_outcome in (Unavailable(code="503"), Accepted()):
            held_before = list(last.hand)
            self.finish_what_can_be(last)
            for held in held_before:
                self.let_go_of(last, held, late_outcome)
            for held in list(last.hand):
                self.let_go_of(last, held, Accepted())
        assert self.statuses <= FINAL

    def finish_what_can_be(self, last: Worker) -> None:
        self.database.settle_orphans(last, self.silent)
        self.database.let_all_be_overdue()
        for queue in BOTH:
            self.rescue(queue)
        self.check()
        pointers = self.take_due(500)
        self.check()
        self.take(last, self.broker, Taken.SENDS)
        self.check()
        self.take(last, pointers, Taken.SENDS)
        self.check()

    def let_go_of(self, last: Worker, held: Held, outcome: Outcome) -> None:
        if held.is_sent:
            self.settle(last, held, outcome)
        else:
            self.give_back(last, [claim_request(held.pointer)])
            last.hand.remove(held)
        self.check()

    # ---- steps ----------------------------------------------------------------------------------

    @property
    def statuses(self) -> set[Status]:
        return {row.status for row in self.rows.values()}

    @property
    def running(self) -> Sequence[Worker]:
        return [worker for worker in self.workers if not worker.is_frozen]

    @property
    def unsent(self) -> Sequence[tuple[Worker, Held]]:
        return [(by, held) for by in self.running for held in by.hand if not held.is_sent]

    @property
    def outlived(self) -> Sequence[Pointer]:
        """What names a claim that is over, of rows that wait for the next."""
        return [
            pointer
            for pointer in self.published
            if self.rows[pointer.id].status is Status.QUEUED
            and pointer.claim < self.rows[pointer.id].claim
        ]

    @property
    def sent(self) -> Sequence[tuple[Worker, Held]]:
        return [(by, held) for by in self.running for held in by.hand if held.is_sent]

    def take_due(self, most: int) -> list[Pointer]:
        taken = self.database.run(self.workers[0].store.take_due(quotas(*BOTH), most))
        assert len(taken) <= most
        pointers = [pointer for pointer, _ in taken]
        self.published += pointers
        return pointers

    def take(self, worker: Worker, pointers: Sequence[Pointer], what: Taken) -> None:
        pointers = fresh(worker, pointers)
        if not pointers:
            return
        answers = self.database.run(worker.store.claim([claim_request(each) for each in pointers]))
        for pointer, answer in zip(pointers, answers, strict=True):
            if what is Taken.NEVER_HEARS:
                worker.hand.append(Held(pointer, None))
            elif isinstance(answer, Claimed):
                assert (answer.id, answer.claim) == (pointer.id, pointer.claim + 1)
                worker.hand.append(Held(pointer, answer))
                if what is Taken.SENDS:
                    self.send(worker.hand[-1])

    def send(self, held: Held) -> None:
        """The provider is called. Never twice for one claim, nor beside another call."""
        assert held.claimed is not None
        sends = {claim: send for (id_, claim), send in self.sends.items() if id_ == held.claimed.id}
        assert held.claimed.claim not in sends
        assert set(sends.values()) <= {Send.MAY_REPEAT, Send.OF_THE_DEAD}
        self.sends[held.claimed.id, held.claimed.claim] = Send.OPEN
        held.is_sent = True

    def settle(self, worker: Worker, held: Held, outcome: Outcome) -> None:
        """Record what came of a send, and acknowledge."""
        assert held.claimed is not None
        key = held.claimed.id, held.claimed.claim
        before, result = self.rows[held.claimed.id], result_of(held.claimed, outcome)
        recorded = self.write(worker, held.claimed, result)
        is_ours = (before.status, before.claim, before.claimed_by) == (
            Status.SENDING,
            held.claimed.claim,
            worker.id,
        )
        assert recorded.late is not is_ours
        if is_ours:
            assert recorded.status in {result.status, expired_instead_of(result.status)}
        elif recorded.status is not None:
            assert (recorded.status, result.status) == (Status.SENT, Status.SENT)
        if self.sends[key] is Send.OPEN:
            is_done = isinstance(outcome, Accepted)
            self.sends[key] = Send.ACCEPTED if is_done else Send.MAY_REPEAT
        worker.hand.remove(held)

    def record_again(self, worker: Worker, held: Held, outcome: Outcome) -> None:
        """The answer was lost, so the same is written once more: nothing may come of that."""
        assert held.claimed is not None
        before = self.rows
        recorded = self.write(worker, held.claimed, result_of(held.claimed, outcome))
        assert not recorded.late
        assert self.database.rows() == before

    def write(self, worker: Worker, claimed: Claimed, result: AttemptResult) -> Recorded:
        self.let_go.add((worker.id, claimed.id, claimed.claim))
        if result.status is Status.SENT:
            self.accepts_late.add((claimed.id, claimed.claim))
        [recorded] = self.database.run(worker.store.record([(result, 0.0)]))
        return recorded

    def give_back(self, worker: Worker, asks: Sequence[ClaimRequest]) -> None:
        self.let_go |= {
            (worker.id, each.id, each.claim + 1) for each in asks if not each.is_buffered
        }
        before = self.rows
        self.database.run(worker.store.give_back(asks))
        after = self.database.rows()
        for each in asks:
            if before[each.id].claim not in {each.claim, each.claim + 1}:
                assert after[each.id].has_due_at is before[each.id].has_due_at, "an old copy's"

    def lose_connections(self, worker: Worker) -> None:
        """Its messages return; what it was sending is nobody's knowledge any more."""
        self.broker += [held.pointer for held in worker.hand]
        for held in worker.hand:
            if held.is_sent and held.claimed is not None:
                self.sends[held.claimed.id, held.claimed.claim] = Send.OF_THE_DEAD


def fresh(worker: Worker, pointers: Sequence[Pointer]) -> Sequence[Pointer]:
    """Without copies of what the worker has in hand, which it acknowledges and forgets."""
    in_hand = {claim_request(held.pointer) for held in worker.hand}
    return [
        each
        for each in {claim_request(each): each for each in pointers}.values()
        if claim_request(each) not in in_hand
    ]


def one_of(things: Sequence[T], which: int) -> T:
    return things[which % len(things)]


def aged(pointer: Pointer, seconds: int) -> Pointer:
    return replace(pointer, published_at=pointer.published_at - seconds)


def expired_instead_of(status: Status) -> Status:
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
    match decision:
        case Settle():
            result, _ = a_result(claimed)
        case Retry(after=after, spends=spends):
            result, _ = a_result(
                claimed, Status.RETRYING, outcome=outcome.name, spends=spends, after=after
            )
        case Fail(reason=reason, spends=spends):
            result, _ = a_result(
                claimed, Status.FAILED, outcome=outcome.name, spends=spends, reason=reason
            )
        case _:
            assert_never(decision)
    return result


def on(database: Database) -> type[Deployment]:
    class OnDatabase(Deployment):
        def __init__(self) -> None:
            super().__init__(database)

    return OnDatabase


def test_no_claim_is_sent_twice_and_no_notification_is_forgotten(database_url: str) -> None:
    with open_database(database_url) as database:
        run_state_machine_as_test(on(database), settings=bounded())


def bounded() -> settings:
    """The same some dozens every time, or as the profile says."""
    if settings.get_current_profile_name() == "long":
        return settings(suppress_health_check=list(HealthCheck))
    return settings(
        max_examples=60,
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
