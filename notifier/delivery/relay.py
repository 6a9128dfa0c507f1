"""The relay: the one way into the broker. It takes due rows and publishes pointers to them.

Each priority has one of its own in a process: a login code never waits while newsletters are taken
and confirmed.

Commit, then publish: the rows say `queued` and the transaction is over before a pointer is out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

import structlog

from notifier.delivery.direct_publisher import DirectPublisher
from notifier.delivery.publish_window import QueuePace, Window, max_batch
from notifier.domain.controls import SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Priority, QueueKey
from notifier.lifecycle import Backoff, wait
from notifier.ports.broker import Pointer
from notifier.ports.store import Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from notifier.ports.broker import Broker
    from notifier.ports.observer import Observer
    from notifier.ports.store import Store

POLL_INTERVAL_S: Final = 0.1
MAX_PASS_ROWS: Final = 500
FULL_PASS_ROWS: Final = MAX_PASS_ROWS // 2
"""After a pass that took so many the next follows without a rest. Few passes are quite full: where
no retry waits, the one that is asked for is missing."""
BROKER_PROBE_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0
STORE_PAUSE_S: Final = 0.5
RECENT_POLL_S: Final = 0.5

log = structlog.get_logger(__name__)


NO_PACE: Final = QueuePace(consumers=1, drain_per_s=0.0)


class PublishBackoff:
    """Why one queue that takes no publishes does not hold up the others.

    It rests for 1 s, doubling to 60 s, and then is tried with a single pointer.
    """

    def __init__(self) -> None:
        self._backoff = Backoff(BROKER_PROBE_S, MAX_BACKOFF_S)
        self._until = 0.0

    def begin(self, now: float) -> float:
        """A publish was not confirmed; how long the queue rests. While it does, that is no news."""
        if now < self._until:
            return self._until - now
        delay_s = self._backoff.next_s()
        self._until = now + delay_s
        return delay_s

    def over(self) -> None:
        """A publish was confirmed."""
        self._backoff.reset()
        self._until = 0.0

    def most(self, now: float) -> int:
        """How many pointers may be tried."""
        if self._backoff.is_fresh:
            return MAX_PASS_ROWS
        return 1 if now >= self._until else 0


class Relays:
    """What every API and worker process runs: a relay for each priority."""

    def __init__(
        self, of: Callable[[Sequence[QueueKey]], Relay], queues: Sequence[QueueKey]
    ) -> None:
        by_priority = dict[Priority, list[QueueKey]]()
        for queue in queues:
            by_priority.setdefault(queue.priority, []).append(queue)
        self._relays = {priority: of(its) for priority, its in by_priority.items()}

    def wake(self, priorities: Collection[Priority] = tuple(Priority)) -> None:
        """Rows of these priorities are due now."""
        for priority in priorities:
            self._relays[priority].wake()

    def admit(self, wanted: Mapping[QueueKey, int]) -> dict[QueueKey, int]:
        """Of so many new rows, how many may be stored as taken; see Relay.admit."""
        return {queue: self._relays[queue.priority].admit(queue, n) for queue, n in wanted.items()}

    def withdraw(self, admitted: Mapping[QueueKey, int]) -> None:
        """These were not stored."""
        for queue, count in admitted.items():
            self._relays[queue.priority].withdraw(queue, count)

    def hand_over(self, pointers: Sequence[Pointer]) -> None:
        """Publish what was admitted and is stored."""
        for pointer in pointers:
            self._relays[pointer.queue.priority].hand_over(pointer)

    def close(self) -> None:
        """No more is handed over: `run` ends when all is published."""
        for relay in self._relays.values():
            relay.close()

    async def run(self, stop: asyncio.Event) -> None:
        """All of them, until `stop` and closed."""
        async with asyncio.TaskGroup() as group:
            for priority, relay in self._relays.items():
                group.create_task(relay.run(stop), name=f"relay {priority}")
                group.create_task(relay.publish_handed(), name=f"handed {priority}")


class Relay:
    """One of the deployment's relays: that of some queues in one process."""

    def __init__(
        self,
        *,
        store: Store,
        broker: Broker,
        observer: Observer,
        queues: Sequence[QueueKey],
        pace: Callable[[], Mapping[QueueKey, QueuePace]],
        relays: Callable[[], int],
        permission: Callable[[QueueKey], SendPermission] = lambda _: SendPermission.ALLOWED,
    ) -> None:
        self._store = store
        self._broker = broker
        self._observer = observer
        self._queues = sorted(queues, key=lambda queue: (queue.priority.rank, queue.channel))
        self._names = [str(queue) for queue in self._queues]
        self._pace = pace
        self._relays = relays
        self._permission = permission
        self._windows = {queue: Window() for queue in queues}
        self._wake = asyncio.Event()
        self._is_publishing = True
        self._rests = {queue: PublishBackoff() for queue in queues}
        self._is_retry_probed = False
        self._direct_publishers = {queue: DirectPublisher(time.monotonic) for queue in queues}
        self._looked_at: dict[QueueKey, float] = {}

    def wake(self) -> None:
        """Rows are due now."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass: when woken, every 100 ms, and at once while much is taken."""
        is_store_there = True
        while not stop.is_set():
            self._wake.clear()
            try:
                taken = await self.run_once()
            except StoreUnavailable as error:
                if is_store_there:
                    log.warning("relay_pass_failed", queues=self._names, reason=str(error))
                is_store_there = False
                await wait(stop, STORE_PAUSE_S)
                continue
            is_store_there = True
            if not self._is_publishing:
                await wait(stop, BROKER_PROBE_S)
            elif taken < FULL_PASS_ROWS:
                await wait(self._wake, POLL_INTERVAL_S)
        self._looked_at.clear()

    def admit(self, queue: QueueKey, wanted: int) -> int:
        """Of so many new rows of a queue, how many may be stored as taken by this relay.

        None if it would take none now, if others are known to wait or it has not looked lately
        (those come first), or if a confirm is late (who waits in Postgres may be taken by another
        process). What is admitted is handed over or withdrawn.
        """
        window, direct_publisher = self._windows[queue], self._direct_publishers[queue]
        has_looked = time.monotonic() - self._looked_at.get(queue, -inf) <= RECENT_POLL_S
        may_take = has_looked and self._is_publishing_to(queue)
        if not may_take or direct_publisher.is_late or window.is_backlogged:
            return 0
        limit = window.limit(self._pace().get(queue, NO_PACE))
        count = min(wanted, self._missing(queue, limit, self._relays()))
        direct_publisher.admitted += count
        return count

    def withdraw(self, queue: QueueKey, count: int) -> None:
        """So many that were admitted were not stored."""
        self._direct_publishers[queue].admitted -= count

    def hand_over(self, pointer: Pointer) -> None:
        """Publish what was admitted and is stored."""
        self._direct_publishers[pointer.queue].hand_over(pointer)

    def close(self) -> None:
        """No more is handed over: `publish_handed` ends when all is published."""
        for direct_publisher in self._direct_publishers.values():
            direct_publisher.close()

    async def publish_handed(self) -> None:
        """Publish what is handed over, until closed."""
        async with asyncio.TaskGroup() as group:
            for queue, direct_publisher in self._direct_publishers.items():
                group.create_task(direct_publisher.run(self._publish_new), name=f"outlet {queue}")

    async def _publish_new(self, pointers: Sequence[Pointer]) -> None:
        queue = pointers[0].queue
        try:
            if self._is_publishing_to(queue):
                await self._publish(pointers, {queue: self._pace().get(queue, NO_PACE)})
                self._windows[queue].ready += len(pointers)
            else:
                await self._store.unpublish(pointers)
        except StoreUnavailable as error:  # neither confirmed nor due again: the rescuer's
            log.warning("unpublish_failed", queues=[str(queue)], reason=str(error))

    def _is_publishing_to(self, queue: QueueKey) -> bool:
        """Whether the broker takes publishes, and this queue does not rest nor is held back."""
        is_resting = self._rests[queue].most(time.monotonic()) < MAX_PASS_ROWS
        return (
            self._is_publishing
            and not is_resting
            and self._permission(queue) is SendPermission.ALLOWED
        )

    async def run_once(self) -> int:
        """One pass; how many pointers it took. Takes nothing while the broker takes nothing."""
        if not self._is_publishing and not await self._can_publish():
            return 0
        known = self._pace()
        pace = {queue: known.get(queue, NO_PACE) for queue in self._queues}
        limits = {queue: self._windows[queue].limit(of) for queue, of in pace.items()}
        permissions = {queue: self._permission(queue) for queue in self._queues}
        await self._poll(limits, permissions)
        quotas = self._quotas(limits, permissions)
        taken = await self._store.take_due(quotas, MAX_PASS_ROWS) if quotas else []
        self._account(quotas, taken)
        await self._publish([pointer for pointer, _ in taken], pace)
        return len(taken)

    async def _can_publish(self) -> bool:
        self._is_publishing = await self._broker.probe()
        if self._is_publishing:
            log.info("relay_resumed", queues=self._names)
            for rest in self._rests.values():
                rest.over()
        return self._is_publishing

    # ---- the window -----------------------------------------------------------------------------

    async def _poll(
        self, limits: Mapping[QueueKey, int], permissions: Mapping[QueueKey, SendPermission]
    ) -> None:
        """Ask the broker how much is ready, where something may be; at most every 100 ms.

        A window does not grow while its queue is held back: that it is empty says nothing then.
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
            window.polled(depth.ready if depth else None, now, limits[queue])

    def _quotas(
        self, limits: Mapping[QueueKey, int], permissions: Mapping[QueueKey, SendPermission]
    ) -> list[Quota]:
        """What there is room for, the most urgent queues first; nothing for what is held back."""
        relays, quotas, now = self._relays(), list[Quota](), time.monotonic()
        self._is_retry_probed = not self._is_retry_probed
        for queue in self._queues:
            match permissions[queue]:
                case SendPermission.ALLOWED:
                    missing = self._missing(queue, limits[queue], relays)
                    most = min(missing, self._rests[queue].most(now))
                    quotas += _classes(queue, *self._windows[queue].split(most))
                case SendPermission.PROBE:
                    quotas += self._probe(queue, min(1, self._rests[queue].most(now)))
                case SendPermission.PAUSED | SendPermission.BREAKER_OPEN:
                    pass
                case _:
                    assert_never(permissions[queue])
        return quotas

    def _missing(self, queue: QueueKey, limit: int, relays: int) -> int:
        missing = self._windows[queue].missing(limit, relays)
        return max(0, missing - self._direct_publishers[queue].admitted)

    def _probe(self, queue: QueueKey, most: int) -> list[Quota]:
        """One pointer if none is there: a first attempt in one pass, a retry in the next."""
        count = min(most, self._windows[queue].missing(1, relays=1))
        return _classes(queue, 0, count) if self._is_retry_probed else _classes(queue, count, 0)

    def _account(self, quotas: Sequence[Quota], taken: Sequence[tuple[Pointer, bool]]) -> None:
        asked = {(quota.queue, quota.is_retry): quota.most for quota in quotas}
        got = Counter((pointer.queue, is_retry) for pointer, is_retry in taken)
        for queue in {quota.queue for quota in quotas}:
            self._looked_at[queue] = time.monotonic()
            self._windows[queue].taken(
                asked=(asked.get((queue, False), 0), asked.get((queue, True), 0)),
                firsts=got[queue, False],
                retries=got[queue, True],
                is_cut=len(taken) >= MAX_PASS_ROWS,
            )

    # ---- publishing -----------------------------------------------------------------------------

    async def _publish(
        self, pointers: Sequence[Pointer], pace: Mapping[QueueKey, QueuePace]
    ) -> None:
        if not pointers:
            return
        at_once = {queue: max_batch(of) for queue, of in pace.items()}
        confirmed = await self._broker.publish(pointers, at_once)
        pairs = list(zip(pointers, confirmed, strict=True))
        lost = [pointer for pointer, is_in in pairs if not is_in]
        for queue, count in Counter(pointer.queue for pointer, is_in in pairs if is_in).items():
            self._observer.published(queue, count)
            self._rests[queue].over()
        if lost:
            await self._take_back(lost, is_all=len(lost) == len(pairs))

    async def _take_back(self, lost: Sequence[Pointer], *, is_all: bool) -> None:
        """Not confirmed: due again, and nothing more is taken of these queues for a while.

        If nothing at all was confirmed the broker may be away: then nothing is taken of any queue
        until a probe says yes.
        """
        if is_all and self._is_publishing and not await self._broker.probe():
            self._is_publishing = False
        now = time.monotonic()
        for queue, count in Counter(pointer.queue for pointer in lost).items():
            rest_s = self._rests[queue].begin(now)
            log.warning("publish_unconfirmed", queue=str(queue), count=count, retry_in_s=rest_s)
            self._windows[queue].lost(count)
        await self._store.unpublish(lost)


def _is_stale(window: Window, now: float) -> bool:
    return (window.ready > 0 or window.is_backlogged) and now - window.polled_at >= POLL_INTERVAL_S


def _classes(queue: QueueKey, firsts: int, retries: int) -> list[Quota]:
    return [
        Quota(queue=queue, is_retry=is_retry, most=count)
        for is_retry, count in ((False, firsts), (True, retries))
        if count
    ]
