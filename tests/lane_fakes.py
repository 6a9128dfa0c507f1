"""Lanes with their claim loops and consumers, without a scheduler, for tests on a virtual clock.

The broker's side of each queue is here too: its messages carry as many pointers as the test says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.notification import Priority, QueueKey
from notifier.ports.broker import Depth, Message, Pointer
from notifier.ports.rates import Slice
from notifier.scheduling.cluster.peer_load import PeerLoad
from notifier.scheduling.consumers.claim_budget import ClaimBudget
from notifier.scheduling.consumers.claim_loop import ClaimLoop
from notifier.scheduling.consumers.consumer import Consumer
from notifier.scheduling.consumers.held import LanePointer
from notifier.scheduling.consumers.lane import InFlightCounter, Lane, QueueRule
from notifier.scheduling.consumers.ticker import Ticker
from notifier.scheduling.rates.provider_rate import ProviderRate
from tests.builders import EMAIL_LOW
from tests.scheduling_fakes import CountingObserver, FakeBackend, now, rule

TICK_S = 0.25


class Schedule:
    """A store of rates that gives evenly spaced slots."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self.reserved = 0

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        assert provider == "smtp"
        starts_at = max(self._next_at, now())
        given = count if starts_at < now() + 0.15 else 0
        self._next_at = starts_at + given / rate_per_s
        self.reserved += given
        return Slice(
            starts_in_s=starts_at - now(),
            spacing_s=1 / rate_per_s,
            count=given,
            rate_per_s=rate_per_s,
        )

    async def cut(self, provider: str) -> bool:
        raise AssertionError(provider)


def rate_of(backend: FakeBackend, rate_per_s: float) -> ProviderRate:
    return ProviderRate(
        "smtp",
        rate_per_s,
        store=Schedule(),
        observer=CountingObserver(backend),
        clock=now,
        random=Random(1),
    )


class FakeQueue:
    """One queue of the broker. Implements ports.broker.Subscription for its only lane."""

    def __init__(self, lane: Lane) -> None:
        self.prefetch = 0
        self.acked: list[Message] = []
        self._lane = lane
        self._ready: deque[Message] = deque()
        self._unacked: dict[Message, None] = {}

    @property
    def unacked(self) -> int:
        """How many messages the lane holds, as the broker counts."""
        return len(self._unacked)

    @property
    def depth(self) -> int:
        """How many messages are here that are not acked."""
        return len(self._ready) + len(self._unacked)

    def put(self, pointers: Sequence[Pointer]) -> Message:
        """Store one message with these pointers."""
        message = Message(pointers, redelivered=False, tag=None)
        self._ready.append(message)
        self._deliver_soon()
        return message

    async def set_prefetch(self, prefetch: int) -> None:
        await asyncio.sleep(0)
        self.prefetch = prefetch
        self._deliver_soon()

    def ack(self, message: Message) -> None:
        assert message in self._unacked, "acked twice, or after its connection was lost"
        del self._unacked[message]
        self.acked.append(message)
        self._deliver_soon()

    def cut(self) -> None:
        """Lose the connection: what is not acked is delivered again, as other messages."""
        again = [Message(message.pointers, True, tag=None) for message in self._unacked]
        self._unacked.clear()
        self._ready.extendleft(reversed(again))
        self._lane.connection_lost()
        self._deliver_soon()

    def _deliver_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        while self._ready and len(self._unacked) < self.prefetch:
            message = self._ready.popleft()
            self._unacked[message] = None
            self._lane.deliver(message)


class CheckedLane(Lane):
    """A lane that checks that each pointer is settled once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settled: set[LanePointer] = set()

    def settled(self, held: LanePointer) -> None:
        assert held not in self._settled, "settled twice"
        self._settled.add(held)
        super().settled(held)


class LaneGroup:
    """The lanes of one worker; the test decides what a scheduler would decide."""

    def __init__(
        self,
        backend: FakeBackend,
        rules: Sequence[QueueRule],
        *,
        consumers: Mapping[QueueKey, int],
        rates: Mapping[QueueKey, ProviderRate],
    ) -> None:
        self.backend = backend
        self.budget = ClaimBudget(now)
        self.in_flight = InFlightCounter()
        self.peer_load: dict[QueueKey, PeerLoad] = {}
        self.stopped: set[QueueKey] = set()
        self.probed: set[QueueKey] = set()
        self.lanes = {rule.queue: self._lane(rule) for rule in rules}
        self.queues = {queue: FakeQueue(lane) for queue, lane in self.lanes.items()}
        self.loops = [self._claim_loop(is_urgent=True), self._claim_loop(is_urgent=False)]
        self.tasks: dict[Consumer, asyncio.Task[None]] = {}
        self.consumers = {
            queue: [Consumer(rates, clock=now) for _ in range(n)] for queue, n in consumers.items()
        }
        for queue, lane in self.lanes.items():
            lane.attach(self.queues[queue])
            for consumer in self.consumers[queue]:
                consumer.assign(lane)

    def _lane(self, rule: QueueRule) -> Lane:
        return CheckedLane(
            rule,
            attempts=self.backend,
            ticker=Ticker(now, Random(1)),
            in_flight=self.in_flight,
            budget=self.budget,
            clock=now,
        )

    def _claim_loop(self, *, is_urgent: bool) -> ClaimLoop:
        lanes = [
            lane
            for lane in self.lanes.values()
            if (lane.queue.priority is Priority.HIGH) is is_urgent
        ]
        return ClaimLoop(lanes, attempts=self.backend, budget=self.budget, is_urgent=is_urgent)

    def put(
        self,
        number: int,
        queue: QueueKey = EMAIL_LOW,
        *,
        messages: int = 1,
        size: int = 0,
        deaths: int = 0,
    ) -> list[Message]:
        """Store messages of `number` pointers each."""
        return [
            self.queues[queue].put(self.backend.pointers(queue, number, size=size, deaths=deaths))
            for _ in range(messages)
        ]

    def tick(self) -> None:
        """Apply what the test has decided, as the scheduler does every 250 ms."""
        for queue, lane in self.lanes.items():
            lane.observe(Depth(0, 1), None, self.peer_load.get(queue, PeerLoad()))
            is_probe = queue in self.probed
            lane.set_consumers(
                1 if is_probe else len(self.consumers[queue]),
                limited_by=Limit.NEED,
                may_take=queue not in self.stopped,
                is_probe=is_probe,
            )

    async def keep_ticking(self) -> None:
        while True:
            self.tick()
            await asyncio.sleep(TICK_S)


@asynccontextmanager
async def open_lanes(
    backend: FakeBackend,
    queues: Sequence[QueueKey] = (EMAIL_LOW,),
    *,
    consumers: int | Mapping[QueueKey, int] = 4,
    claims_ahead: bool = True,
    consumer_rate: float | None = None,
    rates: Mapping[QueueKey, ProviderRate] | None = None,
) -> AsyncIterator[LaneGroup]:
    """Run lanes with these consumers, one of each queue reserved."""
    by_queue = rates or {}
    rules = [
        replace(
            rule(queue, consumer_rate),
            claims_ahead=claims_ahead,
            has_rate=consumer_rate is not None or queue in by_queue,
        )
        for queue in queues
    ]
    if isinstance(consumers, int):
        consumers = dict.fromkeys(queues, consumers)
    lanes = LaneGroup(backend, rules, consumers=consumers, rates=by_queue)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop.run()) for loop in lanes.loops]
        tasks += [group.create_task(lane.run()) for lane in lanes.lanes.values()]
        lanes.tasks = {
            consumer: group.create_task(consumer.run())
            for queue in queues
            for consumer in lanes.consumers[queue]
        }
        tasks += lanes.tasks.values()
        tasks.append(group.create_task(lanes.keep_ticking()))
        await asyncio.sleep(TICK_S)
        yield lanes
        for task in tasks:
            task.cancel()
    for lane in lanes.lanes.values():
        lane.abandon()
