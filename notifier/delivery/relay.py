"""The relay: takes due rows from Postgres and publishes pointers to them to the broker.

Each process runs one relay for each priority, so that an urgent notification never waits while
others are taken and confirmed.

Rows are marked as published and committed before their pointers are published.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, assert_never

import structlog

from notifier.delivery.direct_publisher import DirectPublisher
from notifier.delivery.publish_backoff import PublishBackoff
from notifier.delivery.publish_window import PublishWindow, QueueThroughput, RowClass, max_batch
from notifier.domain.controls import SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Priority, QueueKey
from notifier.lifecycle import wait
from notifier.ports.broker import Pointer
from notifier.ports.store import Quota

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from notifier.ports.broker import Broker
    from notifier.ports.controls import Permissions
    from notifier.ports.observer import RelayObserver
    from notifier.ports.store import DuePointer, RelayStore

POLL_INTERVAL_S: Final = 0.1
MAX_PASS_ROWS: Final = 500
FULL_PASS_ROWS: Final = MAX_PASS_ROWS // 2
"""After a pass of this many rows the next one follows at once. A pass rarely reaches its limit,
because one place is kept for a retry even when no retry waits."""
BROKER_PROBE_INTERVAL_S: Final = 1.0
STORE_RETRY_S: Final = 0.5
RECENT_PASS_S: Final = 0.5

NO_THROUGHPUT: Final = QueueThroughput(consumers=1, drain_per_s=0.0)

log = structlog.get_logger(__name__)


class Cluster(Protocol):
    """The processes of the deployment; implemented by scheduling.cluster.membership.Membership."""

    def throughput(self) -> Mapping[QueueKey, QueueThroughput]:
        """Return each queue's consumers and drain in the whole deployment."""
        ...

    def relay_count(self) -> int:
        """Return how many processes run relays, this one included."""
        ...

    def is_registered(self) -> bool:
        """Whether this process has a heartbeat row, so that others would notice its death."""
        ...


class Relays:
    """All relays of one process, one for each priority. Implements accept.PointerPublisher."""

    def __init__(
        self,
        *,
        store: RelayStore,
        broker: Broker,
        observer: RelayObserver,
        queues: Sequence[QueueKey],
        cluster: Cluster,
        gates: Permissions,
    ) -> None:
        by_priority = dict[Priority, list[QueueKey]]()
        for queue in queues:
            by_priority.setdefault(queue.priority, []).append(queue)
        self._relays = {
            priority: Relay(
                store=store,
                broker=broker,
                observer=observer,
                queues=queues_of_priority,
                cluster=cluster,
                gates=gates,
            )
            for priority, queues_of_priority in by_priority.items()
        }

    def wake(self, priorities: Collection[Priority] = tuple(Priority)) -> None:
        """Start the next pass of the relays of these priorities now."""
        for priority in priorities:
            self._relays[priority].wake()

    def reserve(self, wanted: Mapping[QueueKey, int]) -> dict[QueueKey, int]:
        """Return how many of the wanted new rows may be published directly; see Relay.reserve."""
        return {
            queue: self._relays[queue.priority].reserve(queue, count)
            for queue, count in wanted.items()
        }

    def release(self, reserved: Mapping[QueueKey, int]) -> None:
        """Give back reserved places whose rows were not stored."""
        for queue, count in reserved.items():
            self._relays[queue.priority].release(queue, count)

    def enqueue(self, pointers: Sequence[Pointer]) -> None:
        """Publish pointers whose places were reserved and whose rows are committed."""
        for pointer in pointers:
            self._relays[pointer.queue.priority].enqueue(pointer)

    def close(self) -> None:
        """Let `run` end once everything enqueued is published; nothing may be enqueued after."""
        for relay in self._relays.values():
            relay.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Run all relays until `stop` is set and `close` was called."""
        async with asyncio.TaskGroup() as group:
            for priority, relay in self._relays.items():
                group.create_task(relay.run(stop), name=f"relay {priority}")
                group.create_task(relay.publish_directly(), name=f"direct publish {priority}")


class Relay:
    """Publishes the due rows of some queues, and new rows of the same queues directly."""

    def __init__(
        self,
        *,
        store: RelayStore,
        broker: Broker,
        observer: RelayObserver,
        queues: Sequence[QueueKey],
        cluster: Cluster,
        gates: Permissions,
    ) -> None:
        self._store = store
        self._broker = broker
        self._observer = observer
        self._queues = sorted(queues, key=lambda queue: (queue.priority.rank, queue.channel))
        self._names = [str(queue) for queue in self._queues]
        self._cluster = cluster
        self._gates = gates
        self._windows = {queue: PublishWindow() for queue in queues}
        self._wake = asyncio.Event()
        self._is_publishing = True
        self._backoffs = {queue: PublishBackoff() for queue in queues}
        self._is_retry_probed = False
        self._direct_publishers = {queue: DirectPublisher(time.monotonic) for queue in queues}
        self._last_pass_at: dict[QueueKey, float] = {}

    def wake(self) -> None:
        """Start the next pass now."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run passes until `stop`: every 100 ms, when woken, and at once after a full pass."""
        is_store_available = True
        while not stop.is_set():
            self._wake.clear()
            try:
                count = await self.run_once()
            except StoreUnavailable as error:
                if is_store_available:
                    log.warning("relay_pass_failed", queues=self._names, reason=str(error))
                is_store_available = False
                await wait(stop, STORE_RETRY_S)
                continue
            is_store_available = True
            if not self._is_publishing:
                await wait(stop, BROKER_PROBE_INTERVAL_S)
            elif count < FULL_PASS_ROWS:
                await wait(self._wake, POLL_INTERVAL_S)
        self._last_pass_at.clear()

    def reserve(self, queue: QueueKey, wanted: int) -> int:
        """Return how many of the wanted new rows of a queue may be published directly.

        None may while the queue is not published to, while older rows are due or may be (no recent
        pass looked for them), or while a confirm is late: a row that is due can be published by
        another process. The caller must enqueue or release the reserved places.
        """
        window, direct_publisher = self._windows[queue], self._direct_publishers[queue]
        pass_at = self._last_pass_at.get(queue, -inf)
        may_publish = time.monotonic() - pass_at <= RECENT_PASS_S and self._is_publishing_to(queue)
        if not may_publish or direct_publisher.is_late or window.is_backlogged:
            return 0
        limit = window.limit(self._throughput(queue))
        count = min(wanted, self._room(queue, limit, self._cluster.relay_count()))
        direct_publisher.reserved += count
        return count

    def release(self, queue: QueueKey, count: int) -> None:
        """Give back reserved places whose rows were not stored."""
        self._direct_publishers[queue].reserved -= count

    def enqueue(self, pointer: Pointer) -> None:
        """Publish a pointer whose place was reserved and whose row is committed."""
        self._direct_publishers[pointer.queue].enqueue(pointer)

    def close(self) -> None:
        """Let `publish_directly` end once everything enqueued is published."""
        for direct_publisher in self._direct_publishers.values():
            direct_publisher.close()

    async def publish_directly(self) -> None:
        """Publish the enqueued pointers until closed and empty."""
        async with asyncio.TaskGroup() as group:
            for queue, direct_publisher in self._direct_publishers.items():
                group.create_task(
                    direct_publisher.run(self._publish_new), name=f"direct publisher {queue}"
                )

    async def _publish_new(self, pointers: Sequence[Pointer]) -> None:
        queue = pointers[0].queue
        try:
            if self._is_publishing_to(queue):
                await self._publish(pointers, {queue: self._throughput(queue)})
                self._windows[queue].ready += len(pointers)
            else:
                await self._store.unpublish(pointers)
        except StoreUnavailable as error:
            # The rows are neither confirmed nor due; the rescuer makes them due later.
            log.warning("unpublish_failed", queues=[str(queue)], reason=str(error))

    def _is_publishing_to(self, queue: QueueKey) -> bool:
        return (
            self._is_publishing
            and not self._backoffs[queue].is_active
            and self._permission(queue) is SendPermission.ALLOWED
        )

    def _permission(self, queue: QueueKey) -> SendPermission:
        # Without a heartbeat row the other processes would not notice the death of this one, and
        # nothing would recover the rows that it took.
        if not self._cluster.is_registered():
            return SendPermission.PAUSED
        return self._gates.permission(queue)

    def _throughput(self, queue: QueueKey) -> QueueThroughput:
        return self._cluster.throughput().get(queue, NO_THROUGHPUT)

    async def run_once(self) -> int:
        """Run one pass; returns how many rows it took. Takes none while the broker is away."""
        if not self._is_publishing and not await self._can_publish():
            return 0
        known = self._cluster.throughput()
        throughput = {queue: known.get(queue, NO_THROUGHPUT) for queue in self._queues}
        limits = {queue: self._windows[queue].limit(of) for queue, of in throughput.items()}
        permissions = {queue: self._permission(queue) for queue in self._queues}
        await self._poll_depths(limits, permissions)
        quotas = self._quotas(limits, permissions)
        due = await self._store.take_due(quotas, MAX_PASS_ROWS) if quotas else []
        self._record_pass(quotas, due)
        await self._publish([row.pointer for row in due], throughput)
        return len(due)

    async def _can_publish(self) -> bool:
        self._is_publishing = await self._broker.probe()
        if self._is_publishing:
            log.info("relay_resumed", queues=self._names)
            for backoff in self._backoffs.values():
                backoff.reset()
        return self._is_publishing

    async def _poll_depths(
        self, limits: Mapping[QueueKey, int], permissions: Mapping[QueueKey, SendPermission]
    ) -> None:
        """Read the depths of the queues from the broker, if one of them may have changed.

        At most every 100 ms. Queues that may not send are left out: an empty one is no reason to
        widen its window.
        """
        now = time.monotonic()
        windows = {
            queue: window
            for queue, window in self._windows.items()
            if permissions[queue] in {SendPermission.ALLOWED, SendPermission.PROBE}
        }
        if not any(_is_stale(window, now) for window in windows.values()):
            return
        depths = await self._broker.depths(self._queues)
        for queue, window in windows.items():
            window.is_backlogged = (
                window.is_backlogged and permissions[queue] is SendPermission.ALLOWED
            )
            depth = depths.get(queue)
            window.record_poll(depth.ready if depth else None, now, limits[queue])

    def _quotas(
        self, limits: Mapping[QueueKey, int], permissions: Mapping[QueueKey, SendPermission]
    ) -> list[Quota]:
        """Return how many rows the pass may take of each queue, the most urgent queues first."""
        relays, quotas, now = self._cluster.relay_count(), list[Quota](), time.monotonic()
        self._is_retry_probed = not self._is_retry_probed
        for queue in self._queues:
            match permissions[queue]:
                case SendPermission.ALLOWED:
                    room = self._room(queue, limits[queue], relays)
                    limit = self._backoffs[queue].limit(now, min(room, MAX_PASS_ROWS))
                    quotas += _queue_quotas(queue, *self._windows[queue].split(limit))
                case SendPermission.PROBE:
                    quotas += self._probe_quota(queue, self._backoffs[queue].limit(now, 1))
                case SendPermission.PAUSED | SendPermission.BREAKER_OPEN:
                    pass
                case _:
                    assert_never(permissions[queue])
        return quotas

    def _room(self, queue: QueueKey, limit: int, relays: int) -> int:
        room = self._windows[queue].room(limit, relays)
        return max(0, room - self._direct_publishers[queue].reserved)

    def _probe_quota(self, queue: QueueKey, limit: int) -> list[Quota]:
        """Allow one row if none is ready: a first attempt in one pass, a retry in the next."""
        count = min(limit, self._windows[queue].room(1, relays=1))
        return (
            _queue_quotas(queue, 0, count)
            if self._is_retry_probed
            else _queue_quotas(queue, count, 0)
        )

    def _record_pass(self, quotas: Sequence[Quota], due: Sequence[DuePointer]) -> None:
        asked = Counter({(quota.queue, quota.is_retry): quota.limit for quota in quotas})
        got = Counter((row.pointer.queue, row.is_retry) for row in due)
        for queue in {quota.queue for quota in quotas}:
            self._last_pass_at[queue] = time.monotonic()
            self._windows[queue].record_pass(
                RowClass(asked[queue, False], got[queue, False]),
                RowClass(asked[queue, True], got[queue, True]),
                is_cut=len(due) >= MAX_PASS_ROWS,
            )

    async def _publish(
        self, pointers: Sequence[Pointer], throughput: Mapping[QueueKey, QueueThroughput]
    ) -> None:
        if not pointers:
            return
        max_batches = {queue: max_batch(of) for queue, of in throughput.items()}
        confirms = await self._broker.publish(pointers, max_batches)
        pairs = list(zip(pointers, confirms, strict=True))
        unconfirmed = [pointer for pointer, is_confirmed in pairs if not is_confirmed]
        confirmed = Counter(pointer.queue for pointer, is_confirmed in pairs if is_confirmed)
        for queue, count in confirmed.items():
            self._observer.published(queue, count)
            self._backoffs[queue].reset()
        if unconfirmed:
            await self._unpublish(unconfirmed, is_all=len(unconfirmed) == len(pairs))

    async def _unpublish(self, unconfirmed: Sequence[Pointer], *, is_all: bool) -> None:
        """Make unconfirmed rows due again and let their queues back off.

        If no pointer was confirmed and the broker does not answer a probe, no rows are taken of any
        queue until it does.
        """
        if is_all and self._is_publishing and not await self._broker.probe():
            self._is_publishing = False
        now = time.monotonic()
        for queue, count in Counter(pointer.queue for pointer in unconfirmed).items():
            retry_in_s = self._backoffs[queue].record_failure(now)
            log.warning("publish_unconfirmed", queue=str(queue), count=count, retry_in_s=retry_in_s)
            self._windows[queue].record_unconfirmed(count)
        await self._store.unpublish(unconfirmed)


def _is_stale(window: PublishWindow, now: float) -> bool:
    return (window.ready > 0 or window.is_backlogged) and now - window.polled_at >= POLL_INTERVAL_S


def _queue_quotas(queue: QueueKey, first_attempts: int, retries: int) -> list[Quota]:
    return [
        Quota(queue=queue, is_retry=is_retry, limit=limit)
        for is_retry, limit in ((False, first_attempts), (True, retries))
        if limit
    ]
