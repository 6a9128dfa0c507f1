"""The relay: the one way into the broker. It takes due rows and publishes pointers to them.

Commit, then publish: the rows say `queued` and the transaction is over before a pointer is out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from notifier.delivery.window import QueuePace, Window
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Priority
from notifier.lifecycle import wait
from notifier.ports import Pointer, Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from notifier.domain.notification import QueueKey
    from notifier.ports import Broker, Observer, Store

EVERY_S: Final = 0.1
MOST: Final = 500
BROKER_PROBE_S: Final = 1.0
STORE_PAUSE_S: Final = 0.5
ORDER: Final = {priority: place for place, priority in enumerate(Priority)}

log = structlog.get_logger()


NO_PACE: Final = QueuePace(consumers=1, drain_per_s=0.0)


class Relay:
    """One of the deployment's relays; every API and worker process runs one."""

    def __init__(
        self,
        *,
        store: Store,
        broker: Broker,
        observer: Observer,
        queues: Sequence[QueueKey],
        pace: Callable[[], Mapping[QueueKey, QueuePace]],
        relays: Callable[[], int],
    ) -> None:
        self._store = store
        self._broker = broker
        self._observer = observer
        self._queues = sorted(queues, key=lambda queue: (ORDER[queue.priority], queue.channel))
        self._pace = pace
        self._relays = relays
        self._windows = {queue: Window() for queue in queues}
        self._wake = asyncio.Event()
        self._is_publishing = True

    def wake(self) -> None:
        """Rows are due now."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Pass after pass: when woken, every 100 ms, and at once while a pass was full."""
        is_store_there = True
        while not stop.is_set():
            self._wake.clear()
            try:
                taken = await self.run_once()
            except StoreUnavailable as error:
                if is_store_there:
                    log.warning("relay_waits", reason=str(error))
                is_store_there = False
                await wait(stop, STORE_PAUSE_S)
                continue
            is_store_there = True
            if not self._is_publishing:
                await wait(stop, BROKER_PROBE_S)
            elif taken < MOST:
                await self._rest()

    async def run_once(self) -> int:
        """One pass; how many pointers it took. Takes nothing while the broker takes nothing."""
        if not self._is_publishing and not await self._can_publish():
            return 0
        limits = self._limits()
        await self._poll(limits)
        quotas = self._quotas(limits)
        if not quotas:
            return 0
        taken = await self._store.take_due(quotas, MOST)
        self._account(quotas, taken)
        await self._publish([pointer for pointer, _ in taken])
        return len(taken)

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(EVERY_S):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _can_publish(self) -> bool:
        self._is_publishing = await self._broker.probe()
        if self._is_publishing:
            log.info("relay_publishes_again")
        return self._is_publishing

    # ---- the window -----------------------------------------------------------------------------

    async def _poll(self, limits: Mapping[QueueKey, int]) -> None:
        """Ask the broker how much is ready, where something may be; at most every 100 ms."""
        now = time.monotonic()
        stale = [
            window
            for window in self._windows.values()
            if (window.ready or window.is_backlogged) and now - window.polled_at >= EVERY_S
        ]
        if not stale:
            return
        depths = await self._broker.depths()
        for queue, window in self._windows.items():
            depth = depths.get(queue)
            window.polled(depth.ready if depth else None, now, limits[queue])

    def _limits(self) -> Mapping[QueueKey, int]:
        pace = self._pace()
        return {
            queue: window.limit(pace.get(queue, NO_PACE)) for queue, window in self._windows.items()
        }

    def _quotas(self, limits: Mapping[QueueKey, int]) -> list[Quota]:
        """What there is room for, the most urgent queues first."""
        relays, quotas = self._relays(), list[Quota]()
        for queue in self._queues:
            window = self._windows[queue]
            firsts, retries = window.split(min(window.missing(limits[queue], relays), MOST))
            quotas += [
                Quota(queue=queue, is_retry=is_retry, most=count)
                for is_retry, count in ((False, firsts), (True, retries))
                if count
            ]
        return quotas

    def _account(self, quotas: Sequence[Quota], taken: Sequence[tuple[Pointer, bool]]) -> None:
        asked = {(quota.queue, quota.is_retry): quota.most for quota in quotas}
        got = Counter((pointer.queue, is_retry) for pointer, is_retry in taken)
        for queue in {quota.queue for quota in quotas}:
            self._windows[queue].taken(
                asked=(asked.get((queue, False), 0), asked.get((queue, True), 0)),
                firsts=got[queue, False],
                retries=got[queue, True],
                is_cut=len(taken) >= MOST,
            )

    # ---- publishing -----------------------------------------------------------------------------

    async def _publish(self, pointers: Sequence[Pointer]) -> None:
        if not pointers:
            return
        confirmed = await self._broker.publish(pointers)
        lost = [pointer for pointer, is_in in zip(pointers, confirmed, strict=True) if not is_in]
        for queue, count in Counter(
            pointer.queue for pointer, is_in in zip(pointers, confirmed, strict=True) if is_in
        ).items():
            self._observer.published(queue, count)
        if lost:
            await self._take_back(lost)

    async def _take_back(self, lost: Sequence[Pointer]) -> None:
        """Not confirmed: due again, and nothing more is taken until a probe says yes."""
        self._is_publishing = False
        log.warning("publish_not_confirmed", count=len(lost))
        for queue, count in Counter(pointer.queue for pointer in lost).items():
            self._windows[queue].ready = max(0, self._windows[queue].ready - count)
        await self._store.unpublish(lost)
