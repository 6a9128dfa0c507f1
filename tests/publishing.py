"""Brokers that refuse or delay publishes, and the deployment that a publisher knows, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from notifier.adapters.inprocess.broker import InProcessBroker
from notifier.delivery.publish_window import QueueThroughput
from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey
from notifier.lifecycle import uptime_s
from notifier.ports.broker import UNBATCHED, Depth, Pointer
from notifier.ports.leases import HeldLease, Progress
from tests.builders import QUEUES
from tests.conformance.receiving import subscribed


class FaultyBroker(InProcessBroker):
    """Confirms no publish while `is_refusing`, and none to the queue `refused`.

    Messages of the queue `slow` are confirmed only once the test sets `may_confirm`.
    """

    def __init__(
        self, *, slow: QueueKey | None = None, queues: Sequence[QueueKey] = QUEUES
    ) -> None:
        super().__init__(queues)
        self.is_refusing = False
        self.refused: QueueKey | None = None
        self.max_batches = list[Mapping[QueueKey, int]]()
        self.published = list[Pointer]()
        """All pointers that were confirmed, in their order."""
        self.polled = list[Collection[QueueKey]]()
        """The queues of each poll of depths."""
        self.is_waiting = asyncio.Event()
        """Whether messages of the slow queue have been published."""
        self.may_confirm = asyncio.Event()
        self._slow = slow

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = UNBATCHED
    ) -> Sequence[bool]:
        self.max_batches.append(max_batch)
        if any(pointer.queue == self._slow for pointer in pointers):
            self.is_waiting.set()
            await self.may_confirm.wait()
        if self.is_refusing:
            return [False] * len(pointers)
        accepted = [pointer for pointer in pointers if pointer.queue != self.refused]
        await super().publish(accepted, max_batch)
        self.published += accepted
        return [pointer.queue != self.refused for pointer in pointers]

    async def probe(self) -> bool:
        return not self.is_refusing

    async def depths(self, queues: Collection[QueueKey] = ()) -> Mapping[QueueKey, Depth]:
        self.polled.append(queues)
        return await super().depths(queues)

    async def ready(self, queue: QueueKey) -> int:
        """How many messages of the queue no subscription holds."""
        return (await super().depths())[queue].ready

    async def drain(self, queue: QueueKey) -> None:
        """Receive and ack everything that is ready in the queue."""
        async with subscribed(self, queue, prefetch=100_000) as subscriber:
            while await self.ready(queue):
                await asyncio.sleep(0)
            await subscriber.subscription.set_prefetch(0)
            subscriber.ack(subscriber.messages)


@dataclass
class FixedCluster:
    """A deployment with the same throughput of each queue and `apis` processes with an API."""

    drain_per_s: float = 0.0
    worker_capacity_per_s: float = 0.0
    apis: int = 1

    def throughput(self) -> Mapping[QueueKey, QueueThroughput]:
        return dict.fromkeys(
            QUEUES, QueueThroughput(1, self.drain_per_s, self.worker_capacity_per_s)
        )

    def api_count(self) -> int:
        return self.apis


@dataclass
class FixedGates:
    """Permissions set by the test; a queue that is not set is allowed."""

    permissions: dict[QueueKey, SendPermission] = field(default_factory=dict)
    checks: int = 0

    def permission(self, queue: QueueKey) -> SendPermission:
        self.checks += 1
        return self.permissions.get(queue, SendPermission.ALLOWED)


@dataclass
class FixedLeases:
    """Leases that the test gives and takes. Implements HeldLeases and BacklogView of ports.leases.

    All queues are held at the start, each from the beginning.
    """

    leases: dict[QueueKey, HeldLease] = field(default_factory=dict)
    backlogged: set[QueueKey] = field(default_factory=set)

    def __post_init__(self) -> None:
        for queue in QUEUES:
            self.acquire(queue, Progress(), term=1)

    def acquire(self, queue: QueueKey, progress: Progress, *, term: int) -> HeldLease:
        now = uptime_s()
        self.leases[queue] = HeldLease(
            queue=queue, term=term, progress=progress, renewed_at=now, passed_at=now
        )
        return self.leases[queue]

    def held(self) -> Mapping[QueueKey, HeldLease]:
        return dict(self.leases)

    def is_backlogged(self, queue: QueueKey) -> bool:
        return queue in self.backlogged
