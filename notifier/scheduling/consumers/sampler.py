"""Polls broker and store once per tick and builds the allocator's input."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import ceil
from typing import Final

from notifier.domain.allocation.demand import ROUNDING_TOLERANCE, QueueDemand
from notifier.domain.errors import InfrastructureError
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.domain.rotation import Rotation
from notifier.lifecycle import Clock
from notifier.ports.broker import Broker, Depth
from notifier.ports.store import Waiting, WaitingCounter
from notifier.scheduling.cluster.peer_load import NO_PEER_LOAD
from notifier.scheduling.consumers.deployment import Deployment
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.consumers.measurements import NOTHING_WAITS
from notifier.scheduling.gates.hang_detector import STOPPED, HangDetector

POLL_TIMEOUT_S: Final = 1.0
MAX_POLLED_QUEUES: Final = 36
"""With more queues than this, a tick polls the channels in use, and a few others in turn."""
CHANNELS_IN_TURN: Final = 3
STOPPED_IN_TURN: Final = MAX_POLLED_QUEUES // len(Priority)
"""Of the idle channels that a breaker stops: only what a poll finds can be sent as a probe."""


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
        self._channels = _by_channel(lanes.values())
        self._rotation = Rotation()
        self._stopped_rotation = Rotation()
        self._must_poll_all = True

    @property
    def polls_some(self) -> bool:
        """Whether there are too many queues to poll all of them at every tick."""
        return len(self._lanes) > MAX_POLLED_QUEUES

    def poll_all(self) -> None:
        """Let the next tick poll every queue."""
        self._must_poll_all = True

    async def sample(self) -> list[QueueDemand]:
        """Poll broker and store concurrently, for up to 1 s, and return each queue's demand.

        Of many queues it returns the demands of some: the others neither have work nor floating
        consumers.
        """
        lanes, in_use = self._lanes_to_poll()
        async with asyncio.TaskGroup() as group:
            depths = group.create_task(self._depths(in_use), name="depths")
            waiting = group.create_task(self._waiting(lanes), name="waiting")
        peer_load = self._deployment.cluster.peer_load()
        for queue, lane in lanes.items():
            lane.observe(
                depths.result().get(queue),
                waiting.result().get(queue),
                peer_load.get(queue, NO_PEER_LOAD),
            )
        self._hangs.check(lanes.values(), self._clock())
        return self._demands(lanes.values())

    def _lanes_to_poll(self) -> tuple[Mapping[QueueKey, Lane], Collection[QueueKey]]:
        """Return all lanes of the channels that this tick polls, and those polled in RabbitMQ too.

        Of a few these are all. An idle queue is polled in Postgres only: what waits has a row.
        """
        polls_all, self._must_poll_all = self._must_poll_all, False
        if polls_all or not self.polls_some:
            return self._lanes, self._lanes.keys()
        idle = [channel for channel, lanes in self._channels.items() if self._is_idle(lanes)]
        idle_channels = frozenset(idle)
        stopped = [channel for channel in idle if self._is_stopped(channel)]
        skipped = idle_channels.difference(
            self._rotation.take(idle, CHANNELS_IN_TURN),
            self._stopped_rotation.take(stopped, STOPPED_IN_TURN),
        )
        lanes = {queue: lane for queue, lane in self._lanes.items() if queue.channel not in skipped}
        return lanes, [queue for queue in lanes if queue.channel not in idle_channels]

    def _is_idle(self, lanes: Sequence[Lane]) -> bool:
        """Whether a channel has neither work nor floating consumers, and misses no answer."""
        for lane in lanes:
            if lane.consumers > lane.rule.reserved or not lane.is_idle:
                return False
        channel = lanes[0].queue.channel
        return self._hangs.channel_limit(channel) is None and not self._hangs.unanswered_s(channel)

    def _is_stopped(self, channel: Channel) -> bool:
        """Whether a breaker stops the channel: nothing that is delivered will show its work."""
        queue = self._channels[channel][0].queue
        return self._deployment.gates.permission(queue) in STOPPED

    async def _depths(self, queues: Collection[QueueKey]) -> Mapping[QueueKey, Depth]:
        if not queues:
            return {}
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                return await self._broker.depths(queues)
        except (TimeoutError, InfrastructureError):
            return {}

    async def _waiting(self, queues: Collection[QueueKey]) -> Mapping[QueueKey, Waiting]:
        """The due rows of every queue, also where there are none; empty if the store failed."""
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S):
                waiting = await self._store.waiting(list(queues))
        except (TimeoutError, InfrastructureError):
            return {}
        return {queue: waiting.get(queue, NOTHING_WAITS) for queue in queues}

    def demands(self) -> list[QueueDemand]:
        """The allocator's input for all queues, from the latest measurements."""
        return self._demands(self._lanes.values())

    def _demands(self, lanes: Iterable[Lane]) -> list[QueueDemand]:
        share = self._deployment.cluster.share()
        return [self._demand(lane, share) for lane in lanes]

    def _demand(self, lane: Lane, share: float) -> QueueDemand:
        rule, measured = lane.rule, lane.snapshot()
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


def _by_channel(lanes: Iterable[Lane]) -> Mapping[Channel, Sequence[Lane]]:
    channels = defaultdict[Channel, list[Lane]](list)
    for lane in lanes:
        channels[lane.queue.channel].append(lane)
    return channels


def _part(messages: int, share: float) -> int:
    # Rounded up: every worker counts a single message that waits.
    return ceil(messages * share - ROUNDING_TOLERANCE)
