"""The scheduling side of a worker, opened and closed as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random

import msgspec

from notifier.domain.controls import SendPermission
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.lifecycle import Clock
from notifier.ports.attempts import AttemptRunner
from notifier.ports.broker import Broker
from notifier.ports.controls import Permissions
from notifier.ports.heartbeat import QueueFigures
from notifier.ports.observer import PoolObserver
from notifier.ports.store import WaitingCounter
from notifier.scheduling.consumers.claim_budget import ClaimBudget
from notifier.scheduling.consumers.claim_loop import ClaimLoop
from notifier.scheduling.consumers.consumer import Consumer
from notifier.scheduling.consumers.deployment import Deployment
from notifier.scheduling.consumers.lane import InFlightCounter, Lane, QueueRule
from notifier.scheduling.consumers.probe_consumers import ProbeConsumers
from notifier.scheduling.consumers.sampler import DemandSampler
from notifier.scheduling.consumers.scheduler import Scheduler
from notifier.scheduling.consumers.ticker import Ticker
from notifier.scheduling.gates.hang_detector import HangDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """The rule of each queue, and the number of floating consumers."""

    rules: Sequence[QueueRule]
    consumers: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPorts:
    """What a consumer pool works with."""

    broker: Broker
    store: WaitingCounter
    attempts: AttemptRunner
    observer: PoolObserver


class _LaneFigures(Mapping[QueueKey, QueueFigures]):
    """The figures of lanes, each computed when it is read: of many queues few are."""

    def __init__(self, lanes: Mapping[QueueKey, Lane], foreign: Mapping[QueueKey, int]) -> None:
        self._lanes = lanes
        self._foreign = foreign

    def __getitem__(self, queue: QueueKey) -> QueueFigures:
        figures, foreign = self._lanes[queue].figures(), self._foreign.get(queue)
        return msgspec.structs.replace(figures, foreign=foreign) if foreign else figures

    def __contains__(self, queue: object) -> bool:
        return queue in self._lanes  # that of Mapping would compute the figures

    def __iter__(self) -> Iterator[QueueKey]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)


class ConsumerPool:
    """The running lanes, consumers and scheduler. To stop: `stop_taking`, then `finish`."""

    def __init__(
        self,
        lanes: Mapping[QueueKey, Lane],
        *,
        gates: Permissions,
        hangs: HangDetector,
        sampler: DemandSampler,
        ticker: Ticker,
        in_flight: InFlightCounter,
        claim_loops: Sequence[ClaimLoop],
        broker: Broker,
    ) -> None:
        self._sampler = sampler
        self._lanes = lanes
        self._broker = broker
        self._claim_loops = claim_loops
        self._gates = gates
        self._hangs = hangs
        self._ticker = ticker
        self._in_flight = in_flight
        self.stop = asyncio.Event()

    def wake(self) -> None:
        """Make the next tick come earlier: a queue that was empty has work."""
        self._ticker.wake()

    def apply_permissions(self) -> None:
        """Suspend the queues that are paused or whose breaker is open, and tick earlier."""
        stopped = {SendPermission.PAUSED, SendPermission.BREAKER_OPEN}
        for queue, lane in self._lanes.items():
            if self._gates.permission(queue) in stopped:
                lane.suspend()
        self._sampler.poll_all()
        self.wake()

    def return_claims(self) -> None:
        """Give back all rows that were claimed until now and that no consumer has taken."""
        for lane in self._lanes.values():
            lane.return_claims()

    def figures(self) -> Mapping[QueueKey, QueueFigures]:
        """This worker's side of every queue, for the heartbeat; computed when it is read."""
        return _LaneFigures(self._lanes, self._broker.foreign_pointers())

    @property
    def consumers(self) -> int:
        """The number of consumers that work for some queue."""
        return sum(lane.open_consumers for lane in self._lanes.values())

    def has_work(self, queue: QueueKey) -> bool:
        """Whether messages of this queue waited at the last poll."""
        measured = self._lanes[queue].snapshot()
        return measured.ready + measured.due + measured.buffered > 0

    def unanswered_s(self, channel: Channel) -> float:
        """For how long the calls of a channel have had no answer; 0 if none runs."""
        return self._hangs.unanswered_s(channel)

    @property
    def busy(self) -> int:
        """The number of attempts in flight."""
        return self._in_flight.count

    async def stop_taking(self) -> None:
        """End all subscriptions and give every buffer back through Postgres, for good.

        Returns when all is confirmed, so bound it by a timeout: messages not confirmed by then
        stay unacknowledged, and the broker delivers them again.
        """
        self.stop.set()
        self.wake()
        for lane in self._lanes.values():
            lane.stop_taking()
        # A claim that is cancelled may be committed after the rows have been given back.
        for loop in self._claim_loops:
            await loop.wait_idle()
        async with asyncio.TaskGroup() as group:
            for queue, lane in self._lanes.items():
                group.create_task(lane.close(), name=f"close {queue}")

    async def finish(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for the attempts in flight; returns how many are left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._in_flight.wait_idle()
        return self.busy


@asynccontextmanager
async def open_consumer_pool(
    settings: PoolSettings,
    ports: PoolPorts,
    deployment: Deployment,
    *,
    clock: Clock,
    random: Random,
) -> AsyncIterator[ConsumerPool]:
    """Start the floating consumers and the reserved ones of each queue.

    Leaving the block cancels the attempts in flight (each records what that means for its outcome)
    and ends the subscriptions. An error in any part leaves the block as an exception group.
    """
    ticker, in_flight = Ticker(clock, random), InFlightCounter()
    budget = ClaimBudget(clock)
    lanes = {
        rule.queue: Lane(
            rule,
            attempts=ports.attempts,
            ticker=ticker,
            in_flight=in_flight,
            budget=budget,
            clock=clock,
        )
        for rule in (_with_rate(rule, deployment) for rule in settings.rules)
    }
    claim_loops = _claim_loops(lanes.values(), ports.attempts, budget)
    floating = [Consumer(deployment.rates, clock=clock) for _ in range(settings.consumers)]
    reserved = {
        queue: [Consumer(deployment.rates, clock=clock) for _ in range(lane.rule.reserved)]
        for queue, lane in lanes.items()
    }
    hangs = HangDetector(
        settings.consumers,
        observer=ports.observer,
        liveness=deployment.cluster,
        gates=deployment.gates,
    )
    sampler = DemandSampler(
        lanes,
        broker=ports.broker,
        store=ports.store,
        deployment=deployment,
        hangs=hangs,
        clock=clock,
    )
    probe_consumers = ProbeConsumers(deployment.rates, clock=clock)
    scheduler = Scheduler(
        lanes,
        floating,
        probe_consumers=probe_consumers,
        sampler=sampler,
        ticker=ticker,
        observer=ports.observer,
        clock=clock,
    )
    pool = ConsumerPool(
        lanes,
        gates=deployment.gates,
        hangs=hangs,
        sampler=sampler,
        ticker=ticker,
        in_flight=in_flight,
        claim_loops=claim_loops,
        broker=ports.broker,
    )
    async with AsyncExitStack() as stack:
        for queue, lane in lanes.items():
            subscription = ports.broker.subscribe(queue, lane)
            lane.attach(await stack.enter_async_context(subscription))
        async with asyncio.TaskGroup() as group:
            tasks = _start(group, lanes, floating, reserved)
            tasks.append(group.create_task(probe_consumers.run(), name="probe consumers"))
            tasks.append(group.create_task(scheduler.run(pool.stop), name="scheduler"))
            tasks += [group.create_task(loop.run(), name="claims") for loop in claim_loops]
            yield pool
            for task in tasks:
                task.cancel()
        for lane in lanes.values():
            lane.abandon()


def _with_rate(rule: QueueRule, deployment: Deployment) -> QueueRule:
    has_rate = rule.consumer_rate is not None or rule.queue in deployment.rates
    return replace(rule, has_rate=has_rate)


def _claim_loops(
    lanes: Collection[Lane], attempts: AttemptRunner, budget: ClaimBudget
) -> list[ClaimLoop]:
    """One loop for the lanes of high and one for the others: high never waits for their claims."""
    urgent = [lane for lane in lanes if lane.queue.priority is Priority.HIGH]
    others = [lane for lane in lanes if lane.queue.priority is not Priority.HIGH]
    return [
        ClaimLoop(urgent, attempts=attempts, budget=budget, is_urgent=True),
        ClaimLoop(others, attempts=attempts, budget=budget, is_urgent=False),
    ]


def _start(
    group: asyncio.TaskGroup,
    lanes: Mapping[QueueKey, Lane],
    floating: Sequence[Consumer],
    reserved: Mapping[QueueKey, Sequence[Consumer]],
) -> list[asyncio.Task[None]]:
    tasks = [
        group.create_task(lane.run(), name=f"lane {lane.rule.queue}") for lane in lanes.values()
    ]
    for queue, lane in lanes.items():
        for consumer in reserved[queue]:
            consumer.assign(lane)
            tasks.append(group.create_task(consumer.run(), name=f"reserved {queue}"))
    for number, consumer in enumerate(floating, 1):
        tasks.append(group.create_task(consumer.run(), name=f"consumer {number}"))
    return tasks
