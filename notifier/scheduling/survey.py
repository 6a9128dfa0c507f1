"""One look at all queues: asks broker and store, and says what the allocator is to know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from notifier.domain.allocation import QueueDemand
from notifier.domain.errors import InfrastructureError
from notifier.domain.notification import QueueKey
from notifier.ports import Broker, Waiting
from notifier.scheduling.lane import Lane
from notifier.scheduling.measures import NOTHING_WAITS, Clock

ANSWER_TIMEOUT_S: Final = 1.0

AskWaiting = Callable[[], Awaitable[Mapping[QueueKey, Waiting]]]
"""Counts the due rows of every queue. A queue that is left out has none."""

T = TypeVar("T")


class Survey:
    """What is known of every lane's queue. A side that does not answer leaves its last figures."""

    def __init__(
        self,
        lanes: Mapping[QueueKey, Lane],
        *,
        broker: Broker,
        waiting: AskWaiting,
        clock: Clock,
    ) -> None:
        self._lanes = lanes
        self._broker = broker
        self._ask_waiting = waiting
        self._clock = clock

    async def take(self) -> list[QueueDemand]:
        """Ask both sides at once, each for a second at most, and say what each queue demands."""
        async with asyncio.TaskGroup() as group:
            depths = group.create_task(_ask(self._broker.depths), name="depths")
            waiting = group.create_task(_ask(self._ask_waiting), name="waiting")
        ready, due = depths.result() or {}, waiting.result()
        for queue, lane in self._lanes.items():
            depth = ready.get(queue)
            lane.trace.polled(depth, held=lane.held, now=self._clock())
            rows = None if due is None else due.get(queue, NOTHING_WAITS)
            lane.measures.observe(depth, rows, lane.held)
            lane.note_use()
        return [self.demand(lane) for lane in self._lanes.values()]

    def demand(self, lane: Lane) -> QueueDemand:
        """The allocator's input, from what is known now."""
        rule, measures = lane.rule, lane.measures
        slot_s = 0.0 if rule.consumer_rate is None else 1 / rule.consumer_rate
        return QueueDemand(
            queue=rule.queue,
            depth=measures.ready + measures.waiting.due + len(lane.buffer),
            arrivals_per_s=measures.arrivals_per_s,
            service_s=max(measures.service_s, slot_s),
            target_wait_s=rule.target_wait_s,
            weight=rule.weight,
            oldest_wait_s=self.oldest_wait_s(lane),
            rate_per_s=rule.rate_per_s,
            max_consumers=rule.max_consumers,
            stuck=lane.stuck,
        )

    def oldest_wait_s(self, lane: Lane) -> float:
        """How long the oldest waits, among due rows and in this worker's buffer."""
        since = lane.buffer.oldest_since()
        buffered_s = 0.0 if since is None else self._clock() - since
        return max(lane.measures.waiting.oldest_wait.total_seconds(), buffered_s)


async def _ask(question: Callable[[], Awaitable[T]]) -> T | None:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await question()
    except (TimeoutError, InfrastructureError):
        return None
