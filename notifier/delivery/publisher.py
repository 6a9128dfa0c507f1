"""Publishes pointers to the broker, and keeps what follows from its confirms and its depths."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from notifier.delivery.publish_backoff import PublishBackoff
from notifier.delivery.publish_window import (
    MAX_WINDOW,
    PublishWindow,
    QueueThroughput,
    max_batch,
)
from notifier.lifecycle import uptime_s

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from notifier.domain.notification import QueueKey
    from notifier.ports.broker import Broker, Pointer
    from notifier.ports.observer import RelayObserver

DEPTH_INTERVAL_S: Final = 0.1
PROBE_INTERVAL_S: Final = 1.0
NO_THROUGHPUT: Final = QueueThroughput(consumers=1, drain_per_s=0.0)

log = structlog.get_logger(__name__)


class ThroughputSource(Protocol):
    """The deployment's throughput; implemented by scheduling.cluster.membership.Membership."""

    def throughput(self) -> Mapping[QueueKey, QueueThroughput]:
        """Return each queue's consumers and drain in the whole deployment."""
        ...


@dataclass(slots=True)
class FlowControl:
    """What limits the publishes to one queue."""

    window: PublishWindow = field(default_factory=PublishWindow)
    backoff: PublishBackoff = field(default_factory=PublishBackoff)


class Publisher:
    """Publishes to some queues. `flows` has the flow control of each.

    A publish that was not confirmed lets its queue back off. If a publish had no confirm at all and
    the broker does not answer a probe either, `unpublishable_since` is when it began (an instant of
    lifecycle.uptime_s), until a probe succeeds.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        observer: RelayObserver,
        queues: Sequence[QueueKey],
        cluster: ThroughputSource,
    ) -> None:
        self.flows = {queue: FlowControl() for queue in queues}
        self.unpublishable_since: float | None = None
        self._broker = broker
        self._observer = observer
        self._queues = queues
        self._cluster = cluster

    @property
    def is_publishable(self) -> bool:
        """Whether the broker took something of the last publish, or has answered a probe since."""
        return self.unpublishable_since is None

    async def probe(self) -> bool:
        """Probe the broker unless `is_publishable`; returns `is_publishable` after it."""
        if not self.is_publishable and await self._broker.probe():
            self.unpublishable_since = None
            log.info("publishing_resumed", queues=list(map(str, self._queues)))
            for flow in self.flows.values():
                flow.backoff.reset()
        return self.is_publishable

    def room(self, queue: QueueKey, *, publishers: int = 1, max_ready: int = MAX_WINDOW) -> int:
        """Return how many pointers may be added now, a share of the room; see PublishWindow.room.

        0 during a backoff; 1 after it, until a publish is confirmed. 0 while the broker refuses the
        queue. At most `max_ready` pointers are ready in the broker with them.
        """
        if queue in self._broker.refused_queues():
            return 0
        flow = self.flows[queue]
        room = flow.window.room(min(self._limit(queue), max_ready), publishers=publishers)
        return flow.backoff.limit(time.monotonic(), room)

    def is_backing_off(self, queue: QueueKey) -> bool:
        """Whether nothing should be published to the queue now."""
        is_refused = queue in self._broker.refused_queues()
        return is_refused or not self.flows[queue].backoff.limit(time.monotonic(), 1)

    async def poll_depths(self, queues: Collection[QueueKey]) -> None:
        """Read the depths of those of these queues where they may have changed.

        At most every 100 ms. Queues that may not send should be left out: an empty one is no reason
        to widen its window.
        """
        now = time.monotonic()
        windows = {queue: self.flows[queue].window for queue in queues}
        stale = [queue for queue in queues if windows[queue].is_stale(now, DEPTH_INTERVAL_S)]
        if not stale:
            return
        depths = await self._broker.depths(stale)
        for queue in stale:
            depth = depths.get(queue)
            windows[queue].record_poll(depth.ready if depth else None, now, self._limit(queue))

    async def publish(self, pointers: Sequence[Pointer]) -> Sequence[bool]:
        """Publish all; return for each whether the broker confirmed it. See ports.broker.Broker.

        Publishes nothing unless `is_publishable`.
        """
        if not pointers or not self.is_publishable:
            return [False] * len(pointers)
        began_at = uptime_s()
        counts = Counter(pointer.queue for pointer in pointers)
        for queue, count in counts.items():
            self.flows[queue].window.record_published(count)
        max_batches = {queue: max_batch(self._throughput(queue)) for queue in counts}
        confirms = await self._broker.publish(pointers, max_batches)
        pairs = list(zip(pointers, confirms, strict=True))
        confirmed = Counter(pointer.queue for pointer, is_confirmed in pairs if is_confirmed)
        for queue, count in confirmed.items():
            self._observer.published(queue, count)
            self.flows[queue].backoff.reset()
        if not confirmed and not await self._broker.probe():
            self.unpublishable_since = began_at
        self._record_unconfirmed(counts - confirmed)
        return confirms

    def _record_unconfirmed(self, counts: Mapping[QueueKey, int]) -> None:
        now = time.monotonic()
        for queue, count in counts.items():
            retry_in_s = self.flows[queue].backoff.record_failure(now)
            log.warning("publish_unconfirmed", queue=str(queue), count=count, retry_in_s=retry_in_s)
            self.flows[queue].window.record_unconfirmed(count)

    def _limit(self, queue: QueueKey) -> int:
        """Return how many pointers of the queue may be ready in the broker."""
        return self.flows[queue].window.limit(self._throughput(queue))

    def _throughput(self, queue: QueueKey) -> QueueThroughput:
        return self._cluster.throughput().get(queue, NO_THROUGHPUT)
