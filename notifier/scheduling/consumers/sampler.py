"""Polls broker and store once per tick and builds the allocator's input."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import ceil
from typing import Final

from notifier.domain.allocation.demand import ROUNDING_TOLERANCE, QueueDemand
from notifier.domain.errors import InfrastructureError
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Clock
from notifier.ports.broker import Broker, Depth
from notifier.ports.store import Waiting, WaitingCounter
from notifier.scheduling.cluster.peer_load import NO_PEER_LOAD
from notifier.scheduling.consumers.deployment import Deployment
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.consumers.measurements import NOTHING_WAITS
from notifier.scheduling.gates.hang_detector import HangDetector

POLL_TIMEOUT_S: Final = 1.0


class DemandSampler:
    """Measures every lane. While broker or store does not reply, its last figures are used."""

    def __init__(
        self,
        lanes: Mapping[QueueKey, Lane],
        *,
        broker: Broker,
        store: WaitingCounter,
        deployment: Deployment,
        hangs: HangDetector,
        clock: Clock,
    ) -> None:
        self._lanes = lanes
        self._broker = broker
        self._store = store
        self._deployment = deployment
        self._hangs = hangs
        self._clock = clock

    async def sample(self) -> list[QueueDemand]:
        """Poll broker and store concurrently, for up to 1 s, and return each queue's demand."""
        async with asyncio.TaskGroup() as group:
            depths = group.create_task(self._depths(), name="depths")
            waiting = group.create_task(self._waiting(), name="waiting")
        peer_load = self._deployment.cluster.peer_load()
        for queue, lane in self._lanes.items():
            lane.observe(
                depths.result().get(queue),
                waiting.result().get(queue),
                peer_load.get(queue, NO_PEER_LOAD),
            )
        self._hangs.check(self._lanes.values(), self._clock())
        return self.demands()

    async def _depths(self) -> Mapping[QueueKey, Depth]:
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                return await self._broker.depths()
        except (TimeoutError, InfrastructureError):
            return {}

    async def _waiting(self) -> Mapping[QueueKey, Waiting]:
        """The due rows of every queue, also where there are none; empty if the store failed."""
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                waiting = await self._store.waiting(list(self._lanes))
        except (TimeoutError, InfrastructureError):
            return {}
        return {queue: waiting.get(queue, NOTHING_WAITS) for queue in self._lanes}

    def demands(self) -> list[QueueDemand]:
        """The allocator's input, from the latest measurements."""
        return [self._demand(lane) for lane in self._lanes.values()]

    def _demand(self, lane: Lane) -> QueueDemand:
        rule, measured = lane.rule, lane.snapshot()
        share = self._deployment.cluster.share()
        rate = self._deployment.rates.get(rule.queue)
        slot_s = 0.0 if rule.consumer_rate is None else 1 / rule.consumer_rate
        return QueueDemand(
            queue=rule.queue,
            depth=_part(measured.ready + measured.due, share) + measured.buffered,
            arrivals_per_s=measured.arrivals_per_s * share,
            service_s=max(measured.service_s, slot_s),
            target_wait_s=rule.target_wait_s,
            weight=rule.weight,
            oldest_wait_s=measured.oldest_wait_s,
            rate_per_s=None if rate is None else rate.rate_per_s * share,
            max_consumers=rule.max_consumers,
            reserved=rule.reserved,
            permission=self._deployment.gates.permission(rule.queue),
            hang_limit=self._hangs.queue_limit(lane),
            channel_hang_limit=self._hangs.channel_limit(rule.queue.channel),
            bulkhead=_least(
                rule.bulkhead, self._deployment.call_limits.call_limit(rule.queue.channel)
            ),
            stuck=lane.calls.stuck,
            stuck_before_recovery=lane.calls.stuck_before_recovery,
            is_refused=rule.queue in self._broker.refused_queues(),
            has_slow_consumer_rate=slot_s > measured.service_s,
        )


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _part(messages: int, share: float) -> int:
    # Rounded up: every worker counts a single message that waits.
    return ceil(messages * share - ROUNDING_TOLERANCE)
