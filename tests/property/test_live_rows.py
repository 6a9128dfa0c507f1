"""A state machine of a deployment in which messages and processes are lost, duplicated or late.

The rules run the real statements on a real Postgres, and the real cursors of two holders of the
queue's lease; tests.property.live_model.py has the invariants.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from notifier.adapters.postgres.statements import statement
from notifier.delivery.class_cursor import PROVED_AFTER_S
from notifier.delivery.cursor import QueueCursor
from notifier.domain.holds import PauseParking
from notifier.domain.notification import NotificationId, Status
from tests.builders import a_notification, claim_request, worker_id
from tests.live_rows import sweep
from tests.property.live_database import (
    OPEN_ACCEPTS,
    QUEUE,
    Database,
    Holder,
    OpenAccept,
    Worker,
    open_database,
)
from tests.property.live_model import (
    PAUSED,
    TAG,
    AfterClaim,
    CallState,
    DeploymentModel,
    PublishResult,
    not_held,
    pick,
)

MAX_NOTIFICATIONS: Final = 4
MAX_WORKERS: Final = 3
LAST_ROUNDS: Final = 40
INDEX: Final = st.integers(0, 5)
"""Selects an element of a list, modulo the list's length."""
ROOM: Final = st.sampled_from((5, 5, 1))
RESULT: Final = st.sampled_from(PublishResult)


class Deployment(DeploymentModel):
    """Every rule is one statement of the product or one fault."""

    @initialize(may_lose_messages=st.booleans(), may_look=st.booleans())
    def start_all(self, *, may_lose_messages: bool, may_look: bool) -> None:
        """Start two workers and a holder, and accept two notifications.

        Without lost messages all rows must become final without the evidence for lost messages,
        and also without looks: both would hide that a cursor passed a row.
        """
        self.may_lose_messages = may_lose_messages
        self.may_look = may_look or may_lose_messages
        self.start()
        self.start()
        self.take_over(0)
        for is_direct in (False, True):
            self.begin_accept(is_direct=is_direct, delay_s=0, ttl_s=3600, tag=TAG)
            self.commit_accept(0, PublishResult.CONFIRMED)
        self.check()

    @precondition(
        lambda self: (
            len(self.accepted) + len(self.open_accepts) < MAX_NOTIFICATIONS
            and len(self.open_accepts) < OPEN_ACCEPTS
        )
    )
    @rule(
        is_direct=st.booleans(),
        delay_s=st.sampled_from((0, 0, 1, 30)),
        ttl_s=st.sampled_from((3600, 3600, 40)),
        tag=st.sampled_from((None, TAG)),
    )
    def begin_accept(self, *, is_direct: bool, delay_s: int, ttl_s: int, tag: str | None) -> None:
        delay = timedelta(seconds=delay_s) if delay_s else None
        item = a_notification(QUEUE, delay=delay, ttl=timedelta(seconds=ttl_s), tag=tag)
        is_direct = is_direct and not delay
        sessions = {accept.session for accept in self.open_accepts}
        session = min(set(range(OPEN_ACCEPTS)) - sessions)
        direct = {item.id} if is_direct else set[NotificationId]()
        pointers = self.database.begin_insert(session, [item], direct)
        self.open_accepts.append(
            OpenAccept(session, [item], is_direct, pointers, self.database.monotonic())
        )

    @precondition(lambda self: self.open_accepts)
    @rule(index=INDEX, result=st.none() | RESULT)
    def commit_accept(self, index: int, result: PublishResult | None) -> None:
        """Commit an accept. With a result its answer arrives, and direct rows are published."""
        accept = pick(self.open_accepts, index)
        self.open_accepts.remove(accept)
        self.database.commit(accept.session)
        if self.age_of(accept) > PROVED_AFTER_S:  # or the machine was busy for as long
            self.has_slow_commit = self.may_lose_messages = self.may_look = True
        for item in accept.items:
            self.accepted[item.id] = item
            if accept.is_direct:
                self.direct.add(item.id)
        if result is not None:
            self.publish(accept.pointers, result)

    def age_of(self, accept: OpenAccept) -> float:
        return self.database.monotonic() - accept.began_at

    @precondition(lambda self: self.accepted)
    @rule()
    def accept_again(self) -> None:
        """Repeat all accepts: their answers were lost. Nothing may change."""
        before = self.database.rows()
        store = self.workers[0].store
        items = list(self.accepted.values())
        assert self.database.run(store.insert(items, direct=self.direct)) == []
        assert self.database.rows() == before

    @rule(index=INDEX)
    def take_over(self, index: int) -> None:
        """Let a process take the lease over, from its holder or from nobody."""
        holder = pick(self.holders, index)
        self.lease.term += 1
        self.lease.holder = holder
        holder.term = self.lease.term
        holder.read = None
        holder.cursor = QueueCursor(QUEUE, self.lease.progress, self.database.monotonic())

    @precondition(lambda self: self.acting_holders)
    @rule(index=INDEX, room=ROOM, result=RESULT, writes=st.booleans())
    def relay(self, index: int, room: int, result: PublishResult, *, writes: bool) -> None:
        holder = pick(self.acting_holders, index)
        if holder.read is None:
            self.run_pass(holder, room, result)
        else:
            self.finish_read(holder, result)
        if writes:
            self.write_progress(holder)

    @precondition(lambda self: any(h.read is None for h in self.acting_holders) and self.waiting)
    @rule(index=INDEX, room=ROOM)
    def read_only(self, index: int, room: int) -> None:
        """Read in the snapshot of now, to publish later."""
        holders = [holder for holder in self.acting_holders if holder.read is None]
        self.begin_read(pick(holders, index), room)

    @precondition(lambda self: self.may_look and self.acting_holders and self.waiting)
    @rule(index=INDEX, is_long=st.booleans())
    def look_for_missed_rows(self, index: int, *, is_long: bool) -> None:
        self.look(pick(self.acting_holders, index), is_long=is_long)

    @precondition(lambda self: self.may_lose_messages and self.acting_holders and self.waiting)
    @rule(index=INDEX)
    def publish_what_seems_lost(self, index: int) -> None:
        """Publish all unclaimed rows again, lost or not: a needless publish must do no harm."""
        holder = pick(self.acting_holders, index)
        self.look(holder, is_long=False)
        self.publish_lost(holder)

    @precondition(lambda self: self.running and self.acting_holders)
    @rule(index=INDEX, worker_index=INDEX)
    def relay_claim_and_send(self, index: int, worker_index: int) -> None:
        """Do the usual sequence in one step, so that faults also hit rows that are being sent."""
        holder = pick(self.acting_holders, index)
        if holder.read is None:
            self.run_pass(holder, 5, PublishResult.CONFIRMED)
            self.write_progress(holder)
        messages, self.broker = self.broker, []
        self.take(pick(self.running, worker_index), messages, AfterClaim.SENDS)

    @precondition(lambda self: self.broker and self.may_lose_messages)
    @rule(index=INDEX)
    def lose_messages(self, index: int) -> None:
        if index:
            self.broker.remove(pick(self.broker, index))
        else:
            self.broker.clear()

    @precondition(lambda self: self.broker)
    @rule(index=INDEX)
    def duplicate_a_message(self, index: int) -> None:
        self.broker.append(pick(self.broker, index))

    @precondition(lambda self: self.any_row_is_held)
    @rule()
    def cut_all_connections(self) -> None:
        """Deliver all held messages again, while their workers continue."""
        for worker in self.workers:
            self.broker += [held.pointer for held in worker.rows]

    @precondition(lambda self: self.broker and self.running)
    @rule(
        worker_index=INDEX, index=INDEX, count=st.integers(1, 3), then=st.sampled_from(AfterClaim)
    )
    def claim(self, worker_index: int, index: int, count: int, then: AfterClaim) -> None:
        taken = [
            self.broker.pop(index % len(self.broker)) for _ in range(min(count, len(self.broker)))
        ]
        self.take(pick(self.running, worker_index), taken, then)

    @precondition(lambda self: self.broker and self.running)
    @rule(
        worker_index=INDEX,
        count=st.integers(1, 3),
        then=st.sampled_from(AfterClaim),
        after_s=st.sampled_from((1.0, 30.0)),
    )
    def claim_beside_a_pause(
        self, worker_index: int, count: int, then: AfterClaim, after_s: float
    ) -> None:
        """Claim while a tag is paused: what has the tag is parked, the rest is claimed."""
        taken, self.broker = self.broker[:count], self.broker[count:]
        pauses = [PauseParking(PAUSED, after_s)]
        self.take(pick(self.running, worker_index), taken, then, pauses=pauses)

    @precondition(lambda self: self.broker and len(self.running) > 1)
    @rule(worker_index=INDEX, index=INDEX)
    def give_back_while_another_worker_sends(self, worker_index: int, index: int) -> None:
        """Deliver two copies: the claim of one worker is late, and the other one sends."""
        pointer = self.broker.pop(index % len(self.broker))
        first, second = pick(self.running, worker_index), pick(self.running, worker_index + 1)
        if not not_held(first, [pointer]):
            return
        self.take(first, [pointer], AfterClaim.CLAIM_IS_LATE)
        self.take(second, [pointer], AfterClaim.SENDS)
        self.check()
        self.give_back(first, [claim_request(pointer)])
        first.rows.pop()

    @precondition(lambda self: self.running and self.superseded)
    @rule(worker_index=INDEX, index=INDEX)
    def claim_a_superseded_pointer(self, worker_index: int, index: int) -> None:
        """Claim a copy that arrives late: the claim must fail."""
        before = self.database.stored_rows()
        self.take(
            pick(self.running, worker_index), [pick(self.superseded, index)], AfterClaim.HOLDS
        )
        assert self.database.stored_rows() == before

    @precondition(lambda self: self.late_claims)
    @rule(index=INDEX)
    def let_a_late_claim_arrive(self, index: int) -> None:
        late = pick(self.late_claims, index)
        self.late_claims.remove(late)
        self.arrive(late)

    @precondition(lambda self: self.broker and self.running)
    @rule(worker_index=INDEX, index=INDEX)
    def reject_a_claim(self, worker_index: int, index: int) -> None:
        """Let Postgres reject the claim of a row: the worker fails it."""
        pointer = self.broker.pop(index % len(self.broker))
        row = self.rows[pointer.id]
        store = pick(self.running, worker_index).store
        reply = self.database.run(store.fail_unclaimable(claim_request(pointer), provider="smtp"))
        is_claimable = row.is_waiting and row.claim == pointer.claim
        assert reply.status == (Status.FAILED if is_claimable else None)

    @precondition(lambda self: self.unsent)
    @rule(index=INDEX)
    def send_a_held_row(self, index: int) -> None:
        worker, held = pick(self.unsent, index)
        if held.claimed is not None and not held.is_stale:
            self.send(held)
        elif held.is_stale:
            self.give_back(worker, [claim_request(held.pointer)])
            worker.rows.remove(held)

    @precondition(lambda self: self.sent)
    @rule(
        index=INDEX,
        status=st.sampled_from((Status.SENT, Status.SENT, Status.RETRYING, Status.FAILED)),
        after_s=st.sampled_from((0, 0, 20)),
    )
    def record_a_result(self, index: int, status: Status, after_s: int) -> None:
        worker, held = pick(self.sent, index)
        self.record_call(worker, held, status, timedelta(seconds=after_s))

    @precondition(lambda self: self.recorded)
    @rule(index=st.integers(0, 20))
    def record_a_result_again(self, index: int) -> None:
        self.repeat_record(pick(self.recorded, index))

    @precondition(lambda self: self.unsent)
    @rule(index=INDEX)
    def give_back_a_held_row(self, index: int) -> None:
        worker, held = pick(self.unsent, index)
        self.give_back(worker, [claim_request(held.pointer)])
        worker.rows.remove(held)

    @precondition(lambda self: self.unsent)
    @rule(index=INDEX, after_s=st.sampled_from((1.0, 30.0)))
    def park_a_held_row(self, index: int, after_s: float) -> None:
        """Park a row, also one that others have taken over: that stays as it is."""
        worker, held = pick(self.unsent, index)
        if held.claimed is not None:
            self.park(worker, held.claimed, after_s)
            worker.rows.remove(held)

    @precondition(lambda self: self.waiting)
    @rule()
    def wake(self) -> None:
        """Let all pauses end: what they parked is due."""
        found = self.database.ids("SELECT id FROM parked")
        assert self.database.run(self.workers[0].store.wake()).found == len(found)
        assert not self.database.ids("SELECT id FROM parked")

    @precondition(lambda self: self.broker and self.running)
    @rule(worker_index=INDEX, index=INDEX)
    def give_back_a_buffered_message(self, worker_index: int, index: int) -> None:
        pointer = self.broker.pop(index % len(self.broker))
        request = replace(claim_request(pointer), is_buffered=True)
        self.give_back(pick(self.running, worker_index), [request])

    @precondition(lambda self: len(self.workers) < MAX_WORKERS)
    @rule()
    def start(self) -> None:
        worker = Worker(self.database.store(worker_id()))
        self.database.beat(worker)
        self.workers.append(worker)

    @precondition(lambda self: len(self.workers) > 1 and self.any_row_is_held)
    @rule(worker_index=INDEX, leaves_a_row=st.booleans())
    def kill(self, worker_index: int, *, leaves_a_row: bool) -> None:
        worker = pick(self.workers, worker_index)
        self.lose_connections(worker)
        self.workers.remove(worker)
        self.dead_ids.append(worker.id)
        self.recorded = [result for result in self.recorded if result.worker is not worker]
        if leaves_a_row:
            self.dead.append((worker.id, worker.beat))
        else:
            self.database.forget(worker)

    @precondition(lambda self: len(self.running) > 1 and self.any_row_is_held)
    @rule(worker_index=INDEX)
    def freeze(self, worker_index: int) -> None:
        """Stop a worker's heartbeat counter; the worker does not notice."""
        worker = pick(self.running, worker_index)
        self.lose_connections(worker)
        for held in worker.rows:
            held.is_stale = True
        worker.is_frozen = True
        self.dead.append((worker.id, worker.beat))

    @precondition(lambda self: len(self.running) < len(self.workers))
    @rule()
    def thaw(self) -> None:
        """Let frozen workers beat again. Their peers still have the old counters."""
        for worker in self.workers:
            if worker.is_frozen:
                worker.is_frozen = False
                worker.beat += 1
                self.database.beat(worker)

    @precondition(lambda self: self.running and self.claimed)
    @rule(worker_index=INDEX, status=st.sampled_from((Status.QUEUED, Status.FAILED)))
    def settle_orphans(self, worker_index: int, status: Status) -> None:
        self.bury(pick(self.running, worker_index), status)

    @precondition(lambda self: len(self.running) > 1 and self.any_row_is_held)
    @rule(
        worker_index=INDEX,
        status=st.sampled_from((Status.QUEUED, Status.FAILED)),
        is_claimed_again=st.booleans(),
        records=st.booleans(),
    )
    def freeze_until_orphans_are_settled(
        self, worker_index: int, status: Status, *, is_claimed_again: bool, records: bool
    ) -> None:
        """Freeze a worker just long enough to count as dead; its calls may then end.

        Before that another worker may claim the rows.
        """
        frozen = pick(self.running, worker_index)
        self.freeze(worker_index)
        self.bury(self.running[0], status)
        self.check()
        if is_claimed_again:
            self.relay_claim_and_send(0, 0)
            self.check()
        self.thaw()
        for held in list(frozen.rows) if records else ():
            if held.is_sent:
                self.record_call(frozen, held, Status.SENT)
                self.check()

    @precondition(lambda self: self.waiting)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        id_ = pick(self.waiting, index)
        assert self.database.ids(statement("cancel"), [id_], None) == [id_]

    @precondition(lambda self: self.accepted)
    @rule(index=INDEX)
    def erase(self, index: int) -> None:
        """Erase a notification, whatever it does. One that is being sent stays as it is."""
        id_ = pick(list(self.accepted), index)
        was_claimed = self.rows[id_].is_claimed
        self.database.erase(id_)
        row = self.database.rows()[id_]
        assert row.is_erased is not was_claimed
        assert not row.is_erased or not row.is_live, "an erased row waits"

    @precondition(lambda self: self.erased)
    @rule(index=INDEX)
    def send_an_erased_one_again(self, index: int) -> None:
        id_ = pick(self.erased, index)
        assert self.database.ids(statement("retry"), [id_], id_, id_, None, None) == []

    @precondition(lambda self: self.ended)
    @rule(index=INDEX)
    def send_again(self, index: int) -> None:
        """Send a notification again that has ended, as a person may ask."""
        id_ = pick(self.ended, index)
        for called, claim in list(self.calls):
            if called == id_:
                self.calls[called, claim] = CallState.SENT_AGAIN_BY_A_PERSON
        assert self.database.ids(statement("retry"), [id_], id_, id_, None, None) == [id_]

    @rule(seconds=st.sampled_from((0.05, 0.2, 2.5, 2.5, 12, 60)))
    def advance_time(self, seconds: float) -> None:
        """Let time pass. Rows committed after more than 6 s may need the evidence for lost ones."""
        if not self.may_lose_messages:
            for accept in list(self.open_accepts):
                if self.age_of(accept) + seconds > PROVED_AFTER_S / 2:
                    self.commit_accept(self.open_accepts.index(accept), None)
        self.database.advance_time(seconds)

    @precondition(lambda self: self.waiting or self.claimed)
    @rule(index=INDEX)
    def expire(self, index: int) -> None:
        """Let the time of a row be over before the sweeper runs: what is being sent stays."""
        id_ = pick([*self.waiting, *self.claimed], index)
        self.database.execute("UPDATE live SET expires_at = now() WHERE id = $1", id_)
        self.sweep()
        expected = None if self.rows[id_].is_claimed else Status.EXPIRED
        assert self.database.rows()[id_].end_status == expected

    @precondition(lambda self: self.waiting)
    @rule()
    def sweep(self) -> None:
        self.database.run(sweep(self.workers[0].store))

    def teardown(self) -> None:
        if sys.exception() is None:  # otherwise that error is the result
            self.finish_all_rows()

    def finish_all_rows(self) -> None:
        """Let one worker finish all rows, published by whoever holds the lease."""
        while self.open_accepts:
            self.commit_accept(0, None)
        self.check()
        # Else the sweeper would end a row that nobody publishes.
        self.database.execute(
            "UPDATE live SET expires_at = now() + interval '30 days' WHERE expires_at > now()"
        )
        self.thaw()
        while len(self.workers) > 1:
            self.kill(1, leaves_a_row=False)
        [last] = self.workers
        self.late_claims = [late for late in self.late_claims if late.worker is last]
        while self.late_claims:
            self.let_a_late_claim_arrive(0)
        holder = self.lease.holder
        assert holder is not None
        holder.read = None
        for round_ in range(LAST_ROUNDS):
            self.finish_due_rows(holder, last)
            self.check()
            if not any(row.is_live for row in self.rows.values()):
                return
            # The waits of what seems lost double.
            self.database.advance_time(3.0 if round_ < LAST_ROUNDS // 2 else 3600.0)
        left = {id_: row for id_, row in self.rows.items() if row.is_live}
        raise AssertionError(f"never final: {left}")

    def finish_due_rows(self, holder: Holder, last: Worker) -> None:
        self.bury(last, Status.QUEUED)
        self.sweep()
        for held in list(last.rows):
            if held.is_sent:
                self.record_call(last, held, Status.SENT)
            else:
                self.give_back(last, [claim_request(held.pointer)])
                last.rows.remove(held)
        self.run_pass(holder, 5, PublishResult.CONFIRMED)
        if self.may_look:
            self.look(holder, is_long=self.has_slow_commit)
        if self.may_lose_messages:
            self.publish_lost(holder)
        messages, self.broker = self.broker, []
        self.take(last, messages, AfterClaim.SENDS)


def machine_on(database: Database) -> type[Deployment]:
    class BoundDeployment(Deployment):
        def __init__(self) -> None:
            super().__init__(database)

    return BoundDeployment


def test_no_claim_is_sent_twice_and_every_notification_becomes_final(database_url: str) -> None:
    with open_database(database_url) as database:
        run_state_machine_as_test(machine_on(database), settings=run_settings())


def run_settings() -> settings:
    """Return the settings for the same 80 examples each time, or those of the profile."""
    if settings.get_current_profile_name() == "long":
        return settings(suppress_health_check=list(HealthCheck))
    return settings(
        max_examples=80,
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
