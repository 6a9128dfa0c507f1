"""The whole scheduling side of a worker, opened and closed in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random

from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey
from notifier.ports.broker import Broker
from notifier.ports.heartbeat import QueueFigures
from notifier.ports.observer import Observer
from notifier.scheduling.consumers.consumer import Consumer
from notifier.scheduling.consumers.lane import Attempt, GiveBack, InFlightCounter, Lane, QueueRule
from notifier.scheduling.consumers.measurements import Clock
from notifier.scheduling.consumers.sampler import ALONE, AskWaiting, DemandSampler, Deployment
from notifier.scheduling.consumers.scheduler import Scheduler
from notifier.scheduling.gates.hang_detector import HangDetector
from notifier.scheduling.rates.provider_rate import ProviderRate


class ConsumerPool:
    """Lanes, consumers and scheduler at work. The stop sequence calls the methods in order."""

    def __init__(
        self,
        lanes: Mapping[QueueKey, Lane],
        in_flight: InFlightCounter,
        wake: asyncio.Event,
    ) -> None:
        self._lanes = lanes
        self._in_flight = in_flight
        self._wake = wake
        self.stop = asyncio.Event()

    def wake(self) -> None:
        """Let the next tick come sooner: work appeared where there was none."""
        self._wake.set()

    def apply(self, permission: Callable[[QueueKey], SendPermission]) -> None:
        """What may flow has changed: hold back at once what may not, and look soon at the rest."""
        for queue, lane in self._lanes.items():
            if permission(queue) in {SendPermission.PAUSED, SendPermission.BREAKER_OPEN}:
                lane.hold_back()
        self.wake()

    def figures(self) -> Mapping[QueueKey, QueueFigures]:
        """For the heartbeat."""
        return {queue: lane.figures() for queue, lane in self._lanes.items()}

    def has_work(self, queue: QueueKey) -> bool:
        """Whether anything waits in this queue, as of the last look."""
        lane = self._lanes[queue]
        return lane.measures.ready + lane.measures.waiting.due + len(lane.buffer) > 0

    @property
    def busy(self) -> int:
        """How many attempts are in flight."""
        return self._in_flight.count

    async def stop_taking(self) -> None:
        """End all subscriptions and give every buffer back through Postgres; final.

        Returns when all is confirmed, so bound it by a timeout: what was not confirmed by then
        stays unacked, and the broker delivers it again.
        """
        self.stop.set()
        self.wake()
        async with asyncio.TaskGroup() as group:
            for queue, lane in self._lanes.items():
                group.create_task(lane.close(), name=f"close {queue}")

    async def finish(self, within_s: float) -> int:
        """Wait for the attempts in flight, so long at most; says how many are left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._in_flight.wait_idle()
        return self._in_flight.count


@asynccontextmanager
async def open_consumer_pool(
    *,
    broker: Broker,
    rules: Sequence[QueueRule],
    attempt: Attempt,
    give_back: GiveBack,
    waiting: AskWaiting,
    observer: Observer,
    clock: Clock,
    random: Random,
    consumers: int = 64,
    deployment: Deployment = ALONE,
) -> AsyncIterator[ConsumerPool]:
    """Put `consumers` that move, and those that stand at a queue, to work.

    Leaving the block cancels what is in flight (the attempt itself records what that means) and
    ends the subscriptions. An error in any part leaves through the block as an exception group.
    """
    wake, in_flight = asyncio.Event(), InFlightCounter()
    lanes = {
        rule.queue: Lane(
            rule,
            attempt=attempt,
            give_back=give_back,
            clock=clock,
            on_full=wake.set,
            in_flight=in_flight,
        )
        for rule in rules
    }
    movers = [Consumer(deployment.rates) for _ in range(consumers)]
    sampler = DemandSampler(
        lanes,
        broker=broker,
        waiting=waiting,
        clock=clock,
        deployment=deployment,
        hangs=HangDetector(consumers, observer=observer, is_alive=deployment.is_alive),
    )
    scheduler = Scheduler(
        lanes=lanes,
        movers=movers,
        sampler=sampler,
        observer=observer,
        clock=clock,
        random=random,
        wake=wake,
    )
    pool = ConsumerPool(lanes, in_flight, wake)
    async with AsyncExitStack() as stack:
        for queue, lane in lanes.items():
            subscription = broker.subscribe(queue, on_delivery=lane.deliver, on_lost=lane.lose)
            lane.attach(await stack.enter_async_context(subscription))
        async with asyncio.TaskGroup() as group:
            tasks = _start(group, lanes, movers, deployment.rates)
            tasks.append(group.create_task(scheduler.run(pool.stop), name="scheduler"))
            yield pool
            for task in tasks:
                task.cancel()


def _start(
    group: asyncio.TaskGroup,
    lanes: Mapping[QueueKey, Lane],
    movers: Sequence[Consumer],
    rates: Mapping[QueueKey, ProviderRate],
) -> list[asyncio.Task[None]]:
    tasks = [
        group.create_task(lane.run(), name=f"lane {lane.rule.queue}") for lane in lanes.values()
    ]
    for lane in lanes.values():
        for _ in range(lane.rule.standing):
            standing = Consumer(rates)
            standing.assign(lane)
            tasks.append(group.create_task(standing.run(), name=f"standing {lane.rule.queue}"))
    for number, mover in enumerate(movers, 1):
        tasks.append(group.create_task(mover.run(), name=f"consumer {number}"))
    return tasks
