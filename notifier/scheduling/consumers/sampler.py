"""One look at all queues: asks broker and store, and says what the allocator is to know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import ceil
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from notifier.domain.allocation import QueueDemand
from notifier.domain.controls import SendPermission
from notifier.domain.errors import InfrastructureError
from notifier.domain.notification import Channel, QueueKey
from notifier.ports.broker import Broker
from notifier.ports.store import Waiting
from notifier.scheduling.consumers.consumer import NO_RATES
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.consumers.measurements import NO_PEER_LOAD, NOTHING_WAITS, Clock, PeerLoad
from notifier.scheduling.gates.hang_detector import HangDetector
from notifier.scheduling.rates.provider_rate import ProviderRate

ANSWER_TIMEOUT_S: Final = 1.0
NO_BULKHEADS: Final[Mapping[Channel, int]] = MappingProxyType({})
_DUST: Final = 1e-9
"""Taken off before rounding up, so that a third of 300 is 100 and not 101."""

AskWaiting = Callable[[], Awaitable[Mapping[QueueKey, Waiting]]]
"""Counts the due rows of every queue. A queue that is left out has none."""

T = TypeVar("T")


class Deployment(NamedTuple):
    """What a worker must know of the others, and what may flow; by default it is alone.

    `share` is its part of all consumers, `elsewhere` what the others hold and do. `rates` are those
    that providers have, for all workers together, `bulkheads` how many of a channel's calls its
    provider takes at once from this worker. `is_alive` says whether Postgres hears of this one.
    """

    share: Callable[[], float] = lambda: 1.0
    peer_load: Callable[[], Mapping[QueueKey, PeerLoad]] = dict
    permission: Callable[[QueueKey], SendPermission] = lambda _: SendPermission.ALLOWED
    rates: Mapping[QueueKey, ProviderRate] = NO_RATES
    bulkheads: Mapping[Channel, int] = NO_BULKHEADS
    is_alive: Callable[[], bool] = lambda: True


ALONE: Final = Deployment()


class DemandSampler:
    """What is known of every lane's queue. A side that does not answer leaves its last figures."""

    def __init__(
        self,
        lanes: Mapping[QueueKey, Lane],
        *,
        broker: Broker,
        waiting: AskWaiting,
        clock: Clock,
        deployment: Deployment,
        hangs: HangDetector,
    ) -> None:
        self._lanes = lanes
        self._deployment = deployment
        self._hangs = hangs
        self._broker = broker
        self._ask_waiting = waiting
        self._clock = clock

    async def take(self) -> list[QueueDemand]:
        """Ask both sides at once, each for a second at most, and say what each queue demands."""
        async with asyncio.TaskGroup() as group:
            depths = group.create_task(_ask(self._broker.depths), name="depths")
            waiting = group.create_task(_ask(self._ask_waiting), name="waiting")
        ready, due = depths.result() or {}, waiting.result()
        peer_load = self._deployment.peer_load()
        for queue, lane in self._lanes.items():
            depth = ready.get(queue)
            lane.trace.polled(depth, held=lane.held, now=self._clock())
            rows = None if due is None else due.get(queue, NOTHING_WAITS)
            lane.measures.observe(depth, rows, lane.held, peer_load.get(queue, NO_PEER_LOAD))
            lane.note_use()
        self._hangs.look(self._lanes.values(), self._clock())
        return [self.demand(lane) for lane in self._lanes.values()]

    def demand(self, lane: Lane) -> QueueDemand:
        """The allocator's input, from what is known now: this worker's share of what there is."""
        rule, measures = lane.rule, lane.measures
        share, permission = self._deployment.share(), self._deployment.permission(rule.queue)
        rate = self._deployment.rates.get(rule.queue)
        slot_s = 0.0 if rule.consumer_rate is None else 1 / rule.consumer_rate
        return QueueDemand(
            queue=rule.queue,
            depth=_part(measures.ready + measures.waiting.due, share) + len(lane.buffer),
            arrivals_per_s=measures.arrivals_per_s * share,
            service_s=max(measures.service_s, slot_s),
            target_wait_s=rule.target_wait_s,
            weight=rule.weight,
            oldest_wait_s=self.oldest_wait_s(lane),
            rate_per_s=None if rate is None else rate.rate_per_s * share,
            max_consumers=rule.max_consumers,
            standing=rule.standing,
            is_paused=permission is SendPermission.PAUSED,
            is_open=permission is SendPermission.BREAKER_OPEN,
            is_probed=permission is SendPermission.PROBE,
            held_at_most=self._hangs.held_at_most(lane),
            channel_at_most=self._hangs.channel_at_most(rule.queue.channel),
            bulkhead=self._deployment.bulkheads.get(rule.queue.channel),
            stuck=lane.stuck,
            lost=lane.lost,
            is_paced=slot_s > measures.service_s,
        )

    def oldest_wait_s(self, lane: Lane) -> float:
        """How long the oldest waits, among due rows and in this worker's buffer."""
        since = lane.buffer.oldest_since()
        buffered_s = 0.0 if since is None else self._clock() - since
        return max(lane.measures.waiting.oldest_wait.total_seconds(), buffered_s)


def _part(messages: int, share: float) -> int:
    """Rounded up: one message that waits is seen by every worker."""
    return ceil(messages * share - _DUST)


async def _ask(question: Callable[[], Awaitable[T]]) -> T | None:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await question()
    except (TimeoutError, InfrastructureError):
        return None
