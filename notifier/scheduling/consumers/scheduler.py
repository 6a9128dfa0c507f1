"""The loop that measures the queues, runs the allocator and moves consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from notifier.domain.allocation.demand import TICK_S, QueueDemand
from notifier.domain.allocation.entitlement import Allocation, allocate
from notifier.domain.allocation.moves import UNASSIGNED, Assignment, Move, Place, plan_moves
from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Clock
from notifier.ports.observer import SchedulerObserver
from notifier.scheduling.consumers.consumer import Consumer
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.consumers.probe_consumers import ProbeConsumers
from notifier.scheduling.consumers.sampler import DemandSampler
from notifier.scheduling.consumers.ticker import Ticker

log = structlog.get_logger(__name__)


class Scheduler:
    """Divides the floating consumers over the lanes, by weight at first."""

    def __init__(
        self,
        lanes: Mapping[QueueKey, Lane],
        floating: Sequence[Consumer],
        *,
        probe_consumers: ProbeConsumers,
        sampler: DemandSampler,
        ticker: Ticker,
        observer: SchedulerObserver,
        clock: Clock,
    ) -> None:
        self._lanes = lanes
        self._count = len(floating)
        self._assigned: dict[Place, list[Consumer]] = {queue: [] for queue in lanes}
        self._assigned[UNASSIGNED] = list(floating)
        self._probe_consumers = probe_consumers
        self._sampler = sampler
        self._ticker = ticker
        self._observer = observer
        self._clock = clock
        self._short_since: dict[QueueKey, float] = {}
        self._assign_by_weight()

    async def run(self, stop: asyncio.Event) -> None:
        """Tick about every 250 ms until `stop`, which ends the loop within one tick."""
        while not stop.is_set():
            self._ticker.start_tick()
            moved = await self.run_once()
            await self._ticker.wait(was_useful=moved > 0)

    async def run_once(self) -> int:
        """Run one tick; returns how many consumers moved. A failing broker or store is no error."""
        demands = await self._sampler.sample()
        allocation = allocate(demands, self._count)
        # A consumer that was unassigned during a call is still in it, and cannot be used yet.
        unassigned = sum(consumer.is_idle for consumer in self._assigned[UNASSIGNED])
        assignments = self._assignments(demands)
        moves = plan_moves(demands, allocation, assignments, unassigned=unassigned)
        if self._sampler.polls_some:
            moves = (*moves, *self._releases(demands, moves))
        before = self._counts(moves)
        for move in moves:
            self._move(move)
        self._set_consumers(demands, allocation)
        self._report(demands, moves, before)
        return sum(move.count for move in moves)

    def _assign_by_weight(self) -> None:
        # Before anything is measured the entitlements follow from the weights alone.
        demands = self._sampler.demands()
        allocation = allocate(demands, self._count)
        if not self._sampler.polls_some:
            for queue, entitlement in allocation.items():
                self._move(Move(UNASSIGNED, queue, entitlement.consumers))
        self._set_consumers(demands, allocation)

    def _releases(self, demands: Sequence[QueueDemand], moves: Sequence[Move]) -> Sequence[Move]:
        """Take the floating consumers of idle queues away, so that these need not be polled."""
        moved = {place for move in moves for place in (move.source, move.target)}
        return [
            Move(queue, UNASSIGNED, len(self._assigned[queue]))
            for queue in (demand.queue for demand in demands)
            if self._assigned[queue] and queue not in moved and self._lanes[queue].is_idle
        ]

    def _assignments(self, demands: Sequence[QueueDemand]) -> dict[QueueKey, Assignment]:
        now = self._clock()
        return {demand.queue: self._assignment(demand, now) for demand in demands}

    def _assignment(self, demand: QueueDemand, now: float) -> Assignment:
        queue, consumers = demand.queue, len(self._assigned[demand.queue])
        short_ticks = 0
        if demand.is_short(consumers + demand.reserved, TICK_S):
            # Counted by time: a wake-up must not make the shortage seem longer.
            short_ticks = 1 + int((now - self._short_since.setdefault(queue, now)) / TICK_S)
        else:
            self._short_since.pop(queue, None)
        peak_use = self._lanes[queue].snapshot().peak_use
        return Assignment(consumers=consumers, peak_use=peak_use, short_ticks=short_ticks)

    def _move(self, move: Move) -> None:
        consumers = self._assigned[move.source]
        # Idle ones are taken first: they can start at once.
        consumers.sort(key=lambda consumer: consumer.is_idle)
        lane = None if move.target is UNASSIGNED else self._lanes[move.target]
        for _ in range(move.count):
            consumer = consumers.pop()
            consumer.assign(lane)
            self._assigned[move.target].append(consumer)

    def _set_consumers(self, demands: Sequence[QueueDemand], allocation: Allocation) -> None:
        for demand in demands:
            lane = self._lanes[demand.queue]
            is_probe = demand.permission is SendPermission.PROBE
            lane.set_consumers(
                1 if is_probe else len(self._assigned[demand.queue]) + demand.reserved,
                limited_by=allocation[demand.queue].limited_by,
                may_take=not demand.is_stopped,
                is_probe=is_probe,
                rate_per_s=demand.rate_per_s,
            )
            if lane.lacks_probe_consumer:
                self._probe_consumers.add(lane)
            elif not is_probe:
                self._probe_consumers.release(lane)

    def _counts(self, moves: Sequence[Move]) -> dict[Place, int]:
        """Return the consumers of the places of these moves, in the order of the queues."""
        places = {place for move in moves for place in (move.source, move.target)}
        return {place: len(self._assigned[place]) for place in self._assigned if place in places}

    def _report(
        self, demands: Sequence[QueueDemand], moves: Sequence[Move], before: Mapping[Place, int]
    ) -> None:
        for queue in (demand.queue for demand in demands):
            lane = self._lanes[queue]
            measured = lane.snapshot()
            self._observer.queue_measured(
                queue,
                ready=measured.ready,
                due=measured.due,
                oldest_wait_s=measured.oldest_wait_s,
            )
            self._observer.consumers_measured(
                queue, consumers=lane.consumers, busy=lane.busy, limited_by=lane.limited_by
            )
        for move in moves:
            if move.target is not UNASSIGNED:
                self._observer.consumers_moved(move.target, move.count)
        if moves:
            after = self._counts(moves)
            changed = {
                str(place): [before[place], after[place]]
                for place in after
                if before[place] != after[place]
            }
            log.info("consumers_moved", moved=sum(move.count for move in moves), queues=changed)
