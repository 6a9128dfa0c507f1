"""Lanes, claim loops and consumers, driven at random on a virtual clock.

Each pointer of a message is settled exactly once or dropped by a lost connection, no row is begun
twice, and in the end nothing is claimed, held or lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from random import Random

import pytest

from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.ports.attempts import ClaimedRow
from notifier.scheduling.cluster.peer_load import PeerLoad
from notifier.scheduling.consumers.claim_budget import MAX_CLAIMED_BYTES, MAX_CLAIMED_ROWS
from notifier.scheduling.consumers.consumer import Consumer
from tests.builders import EMAIL_HIGH, EMAIL_LOW
from tests.lane_fakes import LaneGroup, open_lanes, rate_of
from tests.scheduling_fakes import FakeBackend, now
from tests.virtual_time import run_virtually

EMAIL_MEDIUM = QueueKey(Channel("email"), Priority.MEDIUM)
QUEUES = (EMAIL_HIGH, EMAIL_MEDIUM, EMAIL_LOW)
STEPS = 300
LIVES = 40


class RandomBackend(FakeBackend):
    """Calls, claims, records and returns of random duration."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self.is_calm = False
        self.in_call = Counter[NotificationId]()

    async def wait_until_ready(self) -> None:
        self.claim_s = 0.0 if self.is_calm else self._random.choice([0.0, 0.001, 0.05, 0.5])
        self.return_s = 0.0 if self.is_calm else self._random.choice([0.001, 0.1])
        self.record_s = 0.0 if self.is_calm else self._random.choice([0.0, 0.01, 1.0])
        await super().wait_until_ready()

    async def call(self, row: ClaimedRow) -> bool:
        assert not self.in_call[row.claimed.id]
        self.in_call[row.claimed.id] += 1
        slow = [0.0, 0.01] if self.is_calm else [0.0, 0.0, 0.01, 0.3, 3.0]
        try:
            await asyncio.sleep(self._random.choice(slow))
        finally:
            self.in_call[row.claimed.id] -= 1
        return True


class Driver:
    """Applies random events to the lanes, one after the other."""

    def __init__(self, group: LaneGroup, backend: RandomBackend, random: Random) -> None:
        self._group = group
        self._backend = backend
        self._random = random
        self.published = set[NotificationId]()
        self._everybody = [consumer for of in group.consumers.values() for consumer in of]

    async def run(self) -> None:
        events = [self._publish] * 8 + [self._move] * 4
        events += [self._pause, self._resume, self._probe, self._cut, self._peers, self._fail]
        events += [self._cancel]
        for _ in range(STEPS):
            self._random.choice(events)()
            self._publish_returned()
            await asyncio.sleep(self._random.choice([0.0, 0.0, 0.001, 0.05, 0.4]))
            self.check()

    async def settle(self) -> None:
        """End all faults, and wait until nothing is held."""
        self._backend.is_calm = True
        self._backend.loses_reply = lambda: False
        self._backend.is_ready.set()
        self._group.stopped.clear()
        self._group.probed.clear()
        for number, consumer in enumerate(self._everybody):
            self._assign(consumer, QUEUES[number % len(QUEUES)])
        deadline = now() + 600
        while self._backend.recorded.keys() != self.published or self._held():
            assert now() < deadline, (len(self.published), len(self._backend.recorded))
            self._publish_returned()
            await asyncio.sleep(0.25)

    def check(self) -> None:
        """Nothing was begun twice, and the limits hold."""
        backend = self._backend
        begun = Counter(id_ for _, _, id_ in backend.calls)
        assert max(begun.values(), default=0) <= 1
        assert max(backend.recorded.values(), default=0) <= 1
        assert 0 <= self._group.budget.rows_left <= MAX_CLAIMED_ROWS

    def _held(self) -> int:
        # A consumer may still wait for a slot although another has sent the row.
        return sum(lane.held + lane.in_use for lane in self._group.lanes.values())

    def _publish(self) -> None:
        deaths = self._random.choice([0, 0, 0, 0, 1, 2])
        number = 1 if deaths else self._random.choice([1, 3, 20, 64])
        size = self._random.choice([0, 100, 1_000_000])
        queue = self._random.choice(QUEUES)
        for message in self._group.put(number, queue, size=size, deaths=deaths):
            self.published.update(pointer.id for pointer in message.pointers)

    def _publish_returned(self) -> None:
        returned, self._backend.returned = self._backend.returned, []
        for pointer in returned:
            self._group.queues[pointer.queue].put([pointer])

    def _move(self) -> None:
        self._assign(self._random.choice(self._everybody), self._random.choice([None, *QUEUES]))

    def _assign(self, consumer: Consumer, queue: QueueKey | None) -> None:
        for consumers in self._group.consumers.values():
            with suppress(ValueError):
                consumers.remove(consumer)
        if queue is not None:
            self._group.consumers[queue].append(consumer)
        consumer.assign(None if queue is None else self._group.lanes[queue])

    def _cancel(self) -> None:
        if len(self._everybody) > len(QUEUES):
            consumer = self._everybody.pop()
            self._assign(consumer, None)
            self._group.tasks[consumer].cancel()

    def _pause(self) -> None:
        queue = self._random.choice(QUEUES)
        self._group.stopped.add(queue)
        self._group.lanes[queue].suspend()

    def _resume(self) -> None:
        self._group.stopped.clear()
        self._group.probed.clear()
        self._group.tick()

    def _probe(self) -> None:
        self._group.probed.add(self._random.choice(QUEUES))

    def _cut(self) -> None:
        for queue in self._group.queues.values():
            queue.cut()

    def _peers(self) -> None:
        for queue in QUEUES:
            self._group.peer_load[queue] = PeerLoad(idle=self._random.choice([0, 5]))

    def _fail(self) -> None:
        fault = self._random.choice(["reply", "refusal", "heartbeat", "none"])
        self._backend.loses_reply = lambda: fault == "reply"
        self._backend.refusals += fault == "refusal"
        if fault == "heartbeat":
            self._backend.is_ready.clear()
        else:
            self._backend.is_ready.set()


@pytest.mark.parametrize("seed", range(LIVES))
def test_every_row_is_sent_once_and_nothing_stays_claimed_or_held(seed: int) -> None:
    async def scene() -> None:
        random = Random(seed)
        backend = RandomBackend(random)
        shared = rate_of(backend, random.choice([20.0, 300.0]))
        stop = asyncio.Event()
        async with (
            asyncio.TaskGroup() as tasks,
            open_lanes(
                backend,
                QUEUES,
                consumers=random.choice([1, 4, 16]),
                consumer_rate=random.choice([None, None, 50.0, 1_000.0]),
                claims_ahead=random.choice([True, True, False]),
                rates=random.choice([{}, dict.fromkeys(QUEUES, shared)]),
            ) as group,
        ):
            tasks.create_task(shared.run(stop))
            driver = Driver(group, backend, random)
            await driver.run()
            await driver.settle()
            driver.check()
            assert backend.ids_called().keys() == driver.published
            assert (group.budget.rows_left, group.budget.bytes_left) == (
                MAX_CLAIMED_ROWS,
                MAX_CLAIMED_BYTES,
            )
            assert group.in_flight.count == 0
            assert all(queue.unacked == 0 for queue in group.queues.values())
            assert all(lane.in_use == 0 for lane in group.lanes.values())
            stop.set()

    run_virtually(scene())
