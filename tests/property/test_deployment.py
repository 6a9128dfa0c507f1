"""A state machine of a deployment in which messages and workers are lost, duplicated or late.

The rules run the real statements on a real Postgres; tests/property/model.py has the invariants.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from notifier.domain.notification import (
    FINAL,
    QueueKey,
    Status,
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
from notifier.ports.heartbeat import DeadProcess
from tests.builders import (
    a_notification,
    claim_request,
    worker_id,
)
from tests.live_rows import sweep
from tests.property.deployment import (
    Database,
    HeldMessage,
    Worker,
    open_database,
)
from tests.property.model import (
    DIRECT_AFTER_S,
    TWO_QUEUES,
    AfterClaim,
    DeploymentModel,
    PublishResult,
    pick,
)

MAX_NOTIFICATIONS: Final = 3
MAX_WORKERS: Final = 2
TTL: Final = timedelta(hours=1)
ANY_QUEUE: Final = st.sampled_from(TWO_QUEUES)
INDEX: Final = st.integers(0, 5)
"""Selects an element of a list, modulo the list's length."""
OUTCOMES: Final = st.sampled_from(
    (
        Accepted(),
        Refused(code="550"),
        Throttled(code="429"),
        Unavailable(code="503"),
        Misconfigured(code="401", is_credentials=True),
        Ambiguous(code="timeout"),
    )
)


class Deployment(DeploymentModel):
    """Every rule is one statement of the product or one fault."""

    @initialize()
    def two_workers(self) -> None:
        self.start()
        self.start()

    @precondition(lambda self: len(self.accepted) < MAX_NOTIFICATIONS)
    @rule(
        queue=ANY_QUEUE,
        delay=st.sampled_from((None, None, timedelta(seconds=30))),
        max_tries=st.sampled_from((None, None, 1, 2)),
        result=st.none() | st.sampled_from(PublishResult),
    )
    def accept(
        self,
        queue: QueueKey,
        delay: timedelta | None,
        max_tries: int | None,
        result: PublishResult | None,
    ) -> None:
        """Store one more notification, and all earlier ones again: their reply was lost.

        With a `result` they are published directly, otherwise read from Postgres.
        """
        item = a_notification(queue, delay=delay, ttl=TTL, max_tries=max_tries)
        self.accepted[item.id] = item
        items = list(self.accepted.values())
        direct = {stored.id for stored in items if result and stored.status is Status.QUEUED}
        pointers = self.database.run(self.workers[0].store.insert(items, direct=direct))
        assert {pointer.id for pointer in pointers} == direct & {item.id}, "stored again"
        self.published += pointers
        if result in {PublishResult.CONFIRMED, PublishResult.ARRIVED_UNCONFIRMED}:
            self.broker += pointers

    @precondition(lambda self: any(row.is_due for row in self.rows.values()))
    @rule(limit=st.integers(1, 3), result=st.sampled_from(PublishResult))
    def relay(self, limit: int, result: PublishResult) -> None:
        self.publish(self.unpublished[:limit], result)

    @precondition(lambda self: self.running and any(row.is_due for row in self.rows.values()))
    @rule(worker_index=INDEX)
    def relay_claim_and_send(self, worker_index: int) -> None:
        """Do the usual sequence in one step, so that faults also hit rows that are being sent."""
        pointers = self.unpublished
        self.published += pointers
        self.known.update(map(claim_request, pointers))
        self.take(pick(self.running, worker_index), pointers, AfterClaim.SENDS)

    @precondition(lambda self: self.broker)
    @rule(index=INDEX)
    def lose_messages(self, index: int) -> None:
        """Lose one message, or all messages as an in-process broker does at its start."""
        if index:
            self.broker.remove(pick(self.broker, index))
        else:
            self.broker.clear()
            self.known.clear()

    @precondition(lambda self: self.broker)
    @rule(index=INDEX)
    def duplicate_a_message(self, index: int) -> None:
        self.broker.append(pick(self.broker, index))

    @precondition(lambda self: any(worker.messages for worker in self.workers))
    @rule()
    def cut_all_connections(self) -> None:
        """Deliver all held messages again, while their workers continue."""
        for worker in self.workers:
            self.broker += [held.pointer for held in worker.messages]

    @precondition(lambda self: self.broker and self.running)
    @rule(
        worker_index=INDEX, index=INDEX, count=st.integers(1, 3), then=st.sampled_from(AfterClaim)
    )
    def claim(self, worker_index: int, index: int, count: int, then: AfterClaim) -> None:
        taken = [
            self.broker.pop(index % len(self.broker)) for _ in range(min(count, len(self.broker)))
        ]
        self.take(pick(self.running, worker_index), taken, then)

    @precondition(lambda self: self.running and any(worker.messages for worker in self.workers))
    @rule(worker_index=INDEX, index=INDEX, then=st.sampled_from(AfterClaim))
    def claim_a_redelivered_message(self, worker_index: int, index: int, then: AfterClaim) -> None:
        """Claim a held message for another worker, as if it was redelivered after a cut."""
        held = pick([held for worker in self.workers for held in worker.messages], index)
        self.take(pick(self.running, worker_index), [held.pointer], then)

    @precondition(lambda self: self.delayed)
    @rule(index=INDEX)
    def let_a_delayed_claim_arrive(self, index: int) -> None:
        """Let a claim reach Postgres that its worker has given up, given back, or left by dying."""
        worker, request = pick(self.delayed, index)
        self.delayed.remove((worker, request))
        self.database.run(worker.store.claim([request]))
        if worker in self.workers and request not in worker.orphans:
            assert self.rows == self.database.rows(), "the claim was given back before"

    @precondition(lambda self: self.running and self.superseded)
    @rule(worker_index=INDEX, index=INDEX)
    def claim_a_superseded_pointer(self, worker_index: int, index: int) -> None:
        """Claim a copy that arrives late: the claim must fail."""
        self.take(
            pick(self.running, worker_index), [pick(self.superseded, index)], AfterClaim.HOLDS
        )
        assert self.database.rows() == self.rows

    @precondition(lambda self: self.broker and self.running)
    @rule(worker_index=INDEX, index=INDEX)
    def reject_a_claim(self, worker_index: int, index: int) -> None:
        """Let Postgres reject the claim of a row: the worker fails it."""
        pointer = self.broker.pop(index % len(self.broker))
        before = self.rows[pointer.id]
        store = pick(self.running, worker_index).store
        reply = self.database.run(store.fail_unclaimable(claim_request(pointer), provider="smtp"))
        is_claimable = (before.claim, before.claimed_by) == (pointer.claim, None)
        assert reply.status == (Status.FAILED if before.is_live and is_claimable else None)

    @precondition(lambda self: self.unsent)
    @rule(index=INDEX)
    def send_a_held_message(self, index: int) -> None:
        _, held = pick(self.unsent, index)
        if held.claimed is not None and not held.is_stale:
            self.send(held)

    @precondition(lambda self: self.sent)
    @rule(index=INDEX, outcome=OUTCOMES, is_repeated=st.booleans())
    def record(self, index: int, outcome: Outcome, *, is_repeated: bool) -> None:
        worker, held = pick(self.sent, index)
        self.record_call(worker, held, outcome)
        if is_repeated:
            self.check()
            self.repeat_record(worker, held, outcome)

    @precondition(lambda self: self.unsent)
    @rule(index=INDEX)
    def give_back_a_held_message(self, index: int) -> None:
        worker, held = pick(self.unsent, index)
        self.give_back(worker, [claim_request(held.pointer)])
        worker.messages.remove(held)

    @precondition(lambda self: self.broker and self.running)
    @rule(worker_index=INDEX, index=INDEX)
    def give_back_a_buffered_message(self, worker_index: int, index: int) -> None:
        pointer = self.broker.pop(index % len(self.broker))
        self.give_back(
            pick(self.running, worker_index), [replace(claim_request(pointer), is_buffered=True)]
        )

    @precondition(lambda self: self.unsent)
    @rule(index=INDEX)
    def drop_a_held_message(self, index: int) -> None:
        """Cancel a consumer: its message is not acknowledged and is delivered again."""
        worker, held = pick(self.unsent, index)
        worker.messages.remove(held)
        worker.orphans.add(claim_request(held.pointer))
        self.broker.append(held.pointer)

    @precondition(lambda self: any(worker.orphans for worker in self.running))
    @rule(worker_index=INDEX)
    def release_orphans(self, worker_index: int) -> None:
        worker = pick([worker for worker in self.running if worker.orphans], worker_index)
        self.give_back(worker, list(worker.orphans))
        worker.orphans.clear()

    @precondition(lambda self: len(self.workers) < MAX_WORKERS)
    @rule()
    def start(self) -> None:
        worker = Worker(self.database.store(worker_id()))
        self.database.beat(worker)
        self.workers.append(worker)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(worker_index=INDEX, leaves_a_row=st.booleans())
    def kill(self, worker_index: int, *, leaves_a_row: bool) -> None:
        worker = pick(self.workers, worker_index)
        self.lose_connections(worker)
        self.workers.remove(worker)
        self.dead_ids.append(worker.id)
        if leaves_a_row:
            self.dead.append(DeadProcess(worker.id, worker.beat))
        else:
            self.database.forget(worker)

    @precondition(lambda self: len(self.running) > 1)
    @rule(worker_index=INDEX)
    def freeze(self, worker_index: int) -> None:
        """Stop a worker's heartbeat counter; the worker does not notice."""
        worker = pick(self.running, worker_index)
        self.lose_connections(worker)
        for held in worker.messages:
            held.is_stale = True
        worker.is_frozen = True
        self.dead.append(DeadProcess(worker.id, worker.beat))

    @precondition(lambda self: len(self.running) < len(self.workers))
    @rule()
    def thaw(self) -> None:
        """Let frozen workers beat again. Their peers still have the old counters."""
        for worker in self.workers:
            if worker.is_frozen:
                worker.is_frozen = False
                worker.beat += 1
                self.database.beat(worker)

    @precondition(lambda self: self.running and Status.SENDING in self.statuses)
    @rule(worker_index=INDEX)
    def recover_orphans(self, worker_index: int) -> None:
        self.settle_orphans(pick(self.running, worker_index))

    @precondition(lambda self: len(self.running) > 1)
    @rule(worker_index=INDEX)
    def freeze_until_orphans_are_settled(self, worker_index: int) -> None:
        """Freeze a worker just long enough to count as dead."""
        self.freeze(worker_index)
        self.settle_orphans(self.running[0])
        self.check()
        self.thaw()

    @rule(seconds=st.sampled_from((2, 15, 15, 60, 60, 1800)))
    def advance_time(self, seconds: float) -> None:
        self.database.advance_time(timedelta(seconds=seconds))
        self.read_at -= timedelta(seconds=seconds)

    @precondition(lambda self: self.known)
    @rule(queue=ANY_QUEUE)
    def publish_again(self, queue: QueueKey) -> None:
        """Take all messages of a queue for lost, rightly or not: the next pass publishes again."""
        ids = {pointer.id for pointer in self.published if pointer.queue == queue}
        self.known = {request for request in self.known if request.id not in ids}

    @precondition(lambda self: self.rows)
    @rule()
    def sweep(self) -> None:
        self.database.run(sweep(self.workers[0].store))

    def teardown(self) -> None:
        if sys.exception() is None:  # otherwise that error is the result
            self.finish_all_rows()

    def finish_all_rows(self) -> None:
        """Leave one worker, which counted as dead while it held messages; it finishes all rows."""
        self.start()
        self.thaw()
        self.check()
        self.freeze_until_orphans_are_settled(0)
        self.check()
        while len(self.workers) > 1:
            self.kill(1, leaves_a_row=False)
        [last] = self.workers
        for late_outcome in (Unavailable(code="503"), Accepted()):
            held_before = list(last.messages)
            self.finish_due_rows(last)
            for held in held_before:
                self.settle_or_give_back(last, held, late_outcome)
            for held in list(last.messages):
                self.settle_or_give_back(last, held, Accepted())
        assert self.statuses <= FINAL

    def finish_due_rows(self, last: Worker) -> None:
        self.give_back(last, list(last.orphans))
        last.orphans.clear()
        self.settle_orphans(last)
        self.database.make_all_due()
        self.database.run(sweep(last.store))
        self.check()
        self.known.clear()
        self.advance_time(DIRECT_AFTER_S)
        pointers = self.unpublished
        self.take(last, self.broker, AfterClaim.SENDS)
        self.check()
        self.take(last, pointers, AfterClaim.SENDS)
        self.check()

    def settle_or_give_back(self, last: Worker, held: HeldMessage, outcome: Outcome) -> None:
        if held.is_sent:
            self.record_call(last, held, outcome)
        else:
            self.give_back(last, [claim_request(held.pointer)])
            last.messages.remove(held)
        self.check()


def machine_on(database: Database) -> type[Deployment]:
    class BoundDeployment(Deployment):
        def __init__(self) -> None:
            super().__init__(database)

    return BoundDeployment


def test_no_claim_is_sent_twice_and_every_notification_becomes_final(database_url: str) -> None:
    with open_database(database_url) as database:
        run_state_machine_as_test(machine_on(database), settings=run_settings())


def run_settings() -> settings:
    """Return the settings for the same 60 examples each time, or those of the profile."""
    if settings.get_current_profile_name() == "long":
        return settings(suppress_health_check=list(HealthCheck))
    return settings(
        max_examples=60,
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
