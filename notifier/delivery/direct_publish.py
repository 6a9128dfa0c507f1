"""Direct publish: pointers to new rows are published by the process that stored them.

The rows are stored in the class DIRECT. Nothing is written about their publish: the holder of the
queue's lease publishes those that nobody has claimed 2 s later. So it may fail at any point.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from notifier.delivery.direct_publisher import DirectPublisher
from notifier.delivery.publisher import (
    DEPTH_INTERVAL_S,
    PROBE_INTERVAL_S,
    Publisher,
    ThroughputSource,
)
from notifier.domain.controls import SendPermission
from notifier.lifecycle import wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notifier.domain.notification import QueueKey
    from notifier.ports.broker import Broker, Pointer
    from notifier.ports.controls import Permissions
    from notifier.ports.leases import BacklogView
    from notifier.ports.observer import RelayObserver

log = structlog.get_logger(__name__)


class ApiCluster(ThroughputSource, Protocol):
    """The processes of the deployment; implemented by scheduling.cluster.membership.Membership."""

    def api_count(self) -> int:
        """Return how many live processes accept notifications, this one included."""
        ...


class DirectPublishing:
    """The direct publishers of one process, one for each queue. Implements accept.PointerPublisher.

    The live processes with an API share each queue's window.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        observer: RelayObserver,
        queues: Sequence[QueueKey],
        cluster: ApiCluster,
        gates: Permissions,
        backlog: BacklogView,
    ) -> None:
        self._publisher = Publisher(
            broker=broker, observer=observer, queues=queues, cluster=cluster
        )
        self._cluster = cluster
        self._gates = gates
        self._backlog = backlog
        self._direct_publishers = {queue: DirectPublisher(self, time.monotonic) for queue in queues}
        self._closed = asyncio.Event()

    def reserve(self, wanted: Mapping[QueueKey, int]) -> dict[QueueKey, int]:
        """Return how many of the wanted new rows of each queue may be published directly.

        0 for a queue that may not be published to, whose older rows wait, or whose confirms are
        late. The caller must enqueue or release the reserved places.
        """
        reserved = {queue: min(count, self._room(queue)) for queue, count in wanted.items()}
        for queue, count in reserved.items():
            self._direct_publishers[queue].reserved += count
        return reserved

    def release(self, reserved: Mapping[QueueKey, int]) -> None:
        """Free reserved places whose rows were not stored."""
        for queue, count in reserved.items():
            self._direct_publishers[queue].reserved -= count

    def enqueue(self, pointers: Sequence[Pointer]) -> None:
        """Publish pointers whose places were reserved and whose rows are committed."""
        for pointer in pointers:
            self._direct_publishers[pointer.queue].enqueue(pointer)

    def close(self) -> None:
        """Let `run` end once everything enqueued is published; nothing may be enqueued after."""
        self._closed.set()
        for direct_publisher in self._direct_publishers.values():
            direct_publisher.close()

    async def run(self) -> None:
        """Publish the enqueued pointers until closed and empty."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_broker(), name="direct publish depths")
            for queue, direct_publisher in self._direct_publishers.items():
                group.create_task(direct_publisher.run(), name=f"direct publish {queue}")

    async def publish(self, pointers: Sequence[Pointer]) -> None:
        """Publish pointers of one queue, unless it may not be published to any more."""
        if self._may_publish(pointers[0].queue):
            await self._publisher.publish(pointers)

    async def watch_broker_once(self) -> None:
        """Read the depths where something was published, or probe a broker that took nothing."""
        if await self._publisher.probe():
            await self._publisher.poll_depths(
                [queue for queue in self._direct_publishers if self._may_publish(queue)]
            )

    async def _watch_broker(self) -> None:
        while not await wait(
            self._closed,
            DEPTH_INTERVAL_S if self._publisher.is_publishable else PROBE_INTERVAL_S,
        ):
            await self.watch_broker_once()

    def _may_publish(self, queue: QueueKey) -> bool:
        return (
            self._publisher.is_publishable
            and self._gates.permission(queue) is SendPermission.ALLOWED
        )

    def _room(self, queue: QueueKey) -> int:
        direct_publisher = self._direct_publishers[queue]
        if (
            not self._may_publish(queue)
            or direct_publisher.is_late
            or self._backlog.is_backlogged(queue)
        ):
            return 0
        room = self._publisher.room(queue, publishers=self._cluster.api_count())
        return max(0, room - direct_publisher.reserved)
