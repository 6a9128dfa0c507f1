"""The loop that measures, asks the allocator, and moves consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

import structlog

from notifier.domain.allocation import (
    TICK_S,
    Allocation,
    Holding,
    Move,
    QueueDemand,
    entitlement,
    moves,
)
from notifier.domain.notification import QueueKey
from notifier.lifecycle import wait
from notifier.ports.observer import Observer
from notifier.scheduling.consumers.consumer import Consumer
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.consumers.measurements import Clock
from notifier.scheduling.consumers.sampler import DemandSampler

JITTER: Final = 0.1
EARLIEST_S: Final = 0.05
MUTED_S: Final = 1.0

log = structlog.get_logger(__name__)


class Scheduler:
    """Divides `movers` over `lanes`, dealt by weight at first. Standing consumers stay.

    Setting `wake` lets the next tick come sooner.
    """

    def __init__(
        self,
        *,
        lanes: Mapping[QueueKey, Lane],
        movers: Sequence[Consumer],
        sampler: DemandSampler,
        observer: Observer,
        clock: Clock,
        random: Random,
        wake: asyncio.Event,
    ) -> None:
        self._lanes = lanes
        self._movers = len(movers)
        self._assigned: dict[QueueKey | None, list[Consumer]] = {queue: [] for queue in lanes}
        self._assigned[None] = list(movers)
        self._sampler = sampler
        self._observer = observer
        self._clock = clock
        self._random = random
        self._short_since: dict[QueueKey, float] = {}
        self._wake = wake
        self._muted_until = -1.0
        self._deal()

    async def run(self, stop: asyncio.Event) -> None:
        """Tick every 250 ms, more or less, until `stop` is set; seen within one tick."""
        while not stop.is_set():
            was_poked = self._wake.is_set()
            self._wake.clear()
            if await self.run_once() == 0 and was_poked:
                self._muted_until = self._clock() + MUTED_S
            await self._rest()

    async def run_once(self) -> int:
        """One tick; says how many consumers moved. Nothing the world may answer makes it raise."""
        demands = await self._sampler.take()
        allocation = entitlement(demands, self._movers)
        # Whoever came to the bench in the middle of a call is still in it: nobody to count on.
        bench = sum(consumer.is_idle for consumer in self._assigned[None])
        made = moves(demands, allocation, self._holdings(demands), bench=bench)
        before = self._counts()
        for move in made:
            self._carry_out(move)
        for demand in demands:
            self._staff(demand, allocation)
        self._report(made, before)
        return sum(move.count for move in made)

    async def _rest(self) -> None:
        """Until the next tick. A poke ends it early, unless the last one was for nothing."""
        began = self._clock()
        latest = began + TICK_S * self._random.uniform(1 - JITTER, 1 + JITTER)
        await asyncio.sleep(min(latest, max(began + EARLIEST_S, self._muted_until)) - began)
        await wait(self._wake, max(0.0, latest - self._clock()))

    def _deal(self) -> None:
        """Before anything is measured everybody stands where the weights say."""
        demands = [self._sampler.demand(lane) for lane in self._lanes.values()]
        allocation = entitlement(demands, self._movers)
        for demand in demands:
            self._carry_out(Move(None, demand.queue, allocation[demand.queue].consumers))
            self._staff(demand, allocation)

    def _holdings(self, demands: Sequence[QueueDemand]) -> dict[QueueKey, Holding]:
        now = self._clock()
        return {demand.queue: self._holding(demand, now) for demand in demands}

    def _holding(self, demand: QueueDemand, now: float) -> Holding:
        queue, consumers = demand.queue, len(self._assigned[demand.queue])
        short_ticks = 0
        if demand.is_short(consumers + demand.standing, TICK_S):
            # Counted in time: a poke must not make a short while seem long.
            short_ticks = 1 + int((now - self._short_since.setdefault(queue, now)) / TICK_S)
        else:
            self._short_since.pop(queue, None)
        peak_use = self._lanes[queue].measures.peak.value
        return Holding(consumers=consumers, peak_use=peak_use, short_ticks=short_ticks)

    def _carry_out(self, move: Move) -> None:
        """Whoever waits goes first: it can start at once."""
        pool = self._assigned[move.source]
        pool.sort(key=lambda consumer: consumer.is_idle)
        lane = None if move.target is None else self._lanes[move.target]
        for _ in range(move.count):
            consumer = pool.pop()
            consumer.assign(lane)
            self._assigned[move.target].append(consumer)

    def _staff(self, demand: QueueDemand, allocation: Allocation) -> None:
        lane = self._lanes[demand.queue]
        lane.limited_by = allocation[demand.queue].limited_by
        all_of_them = len(self._assigned[demand.queue]) + demand.standing
        lane.set_consumers(
            1 if demand.is_probed else all_of_them,
            may_take=not (demand.is_paused or demand.is_open),
            rate_per_s=demand.rate_per_s,
        )

    def _counts(self) -> dict[str, int]:
        return {str(queue or "bench"): len(pool) for queue, pool in self._assigned.items()}

    def _report(self, made: Sequence[Move], before: Mapping[str, int]) -> None:
        for queue, lane in self._lanes.items():
            measures = lane.measures
            self._observer.queue_measured(
                queue,
                ready=measures.ready,
                due=measures.waiting.due,
                oldest_wait_s=self._sampler.oldest_wait_s(lane),
            )
            self._observer.consumers_measured(
                queue, consumers=lane.consumers, busy=lane.busy, limited_by=lane.limited_by
            )
        for move in made:
            if move.target is not None:
                self._observer.consumers_moved(move.target, move.count)
        if made:
            after = self._counts()
            changed = {name: [before[name], after[name]] for name in after}
            changed = {name: both for name, both in changed.items() if both[0] != both[1]}
            log.info("consumers_moved", moved=sum(move.count for move in made), queues=changed)
