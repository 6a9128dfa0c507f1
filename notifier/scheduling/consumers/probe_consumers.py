"""Consumers for probes, beside those that the scheduler allocates.

When a breaker opens, all consumers of a queue may be in calls that hang. A probe that waited for
one of them would find a provider late that answers again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from notifier.domain.notification import QueueKey
from notifier.lifecycle import Clock
from notifier.scheduling.consumers.consumer import Consumer
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.rates.provider_rate import ProviderRate


class ProbeConsumers:
    """Started when a probe needs one and none is free; kept for the next probe."""

    def __init__(self, provider_rates: Mapping[QueueKey, ProviderRate], *, clock: Clock) -> None:
        self._provider_rates = provider_rates
        self._clock = clock
        self._released: list[Consumer] = []
        self._assigned = defaultdict[QueueKey, list[Consumer]](list)
        self._added_at: dict[QueueKey, float] = {}
        """When the last consumer was added to a queue."""
        self._unstarted: asyncio.Queue[Consumer] = asyncio.Queue()

    async def run(self) -> None:
        """Run the consumers until cancelled. An error of an attempt ends all of them."""
        async with asyncio.TaskGroup() as group:
            while True:
                consumer = await self._unstarted.get()
                group.create_task(consumer.run(), name="probe consumer")

    def add(self, lane: Lane) -> None:
        """Let one more consumer work for the lane."""
        consumer = next((each for each in self._released if each.is_idle), None)
        if consumer is None:
            consumer = Consumer(self._provider_rates, clock=self._clock)
            self._unstarted.put_nowait(consumer)
        else:
            self._released.remove(consumer)
        consumer.assign(lane)
        self._assigned[lane.queue].append(consumer)
        self._added_at[lane.queue] = self._clock()

    def release(self, lane: Lane) -> None:
        """Take the consumers of the lane back, once the calls from before them have ended.

        Until then they stand in for the consumers in these calls. One in a call finishes it first.
        """
        added_at = self._added_at.get(lane.queue)
        if added_at is None or len(lane.calls) > lane.calls.begun_since(added_at):
            return
        del self._added_at[lane.queue]
        for consumer in self._assigned.pop(lane.queue):
            consumer.assign(None)
            self._released.append(consumer)
