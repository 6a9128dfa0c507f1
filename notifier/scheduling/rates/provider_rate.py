"""One provider's rate, shared by the whole deployment.

The store keeps the schedule. A worker reserves slices of it ahead, one slot per waiter, and uses
each slot at its time. A slot without a waiter stays valid for 20 ms and is then lost: calls that
catch up later would be too many in one second.
"""

from __future__ import annotations

import asyncio
from math import ceil
from random import Random
from typing import Final

import structlog

from notifier.domain.errors import StoreError
from notifier.domain.notification import Priority
from notifier.domain.provider_rate import CUT_INTERVAL_S, MAX_LEAD_S, REGROWTH_PER_S, SLICE_S
from notifier.lifecycle import Clock
from notifier.ports.observer import RateObserver
from notifier.ports.rates import RateStore, Slice
from notifier.scheduling.rates.slots import Slots, even_rate
from notifier.scheduling.rates.waiter_queue import WaiterQueue

MAX_COVERED_S: Final = 0.075
"""A worker whose slots cover this much time reserves no more and leaves the schedule to others."""
SPREAD_S: Final = 0.01
COALESCE_S: Final = 0.025
"""How long a worker that still has slots collects waiters before it reserves the next slice."""
STORE_RETRY_S: Final = 0.5

log = structlog.get_logger(__name__)


class ProviderRate:
    """This process's share of one provider's schedule.

    `acquire` returns only while `run` runs.
    """

    def __init__(
        self,
        name: str,
        rate_per_s: float,
        *,
        store: RateStore,
        observer: RateObserver,
        clock: Clock,
        random: Random,
    ) -> None:
        self.name = name
        self._store = store
        self._observer = observer
        self._clock = clock
        self._random = random
        self._configured_per_s = even_rate(rate_per_s)
        self._reported_per_s, self._reported_at = self._configured_per_s, clock()
        self._waiters = WaiterQueue()
        self._slots = Slots(clock)
        self._needs_slots = asyncio.Event()
        self._may_wake = asyncio.Event()
        self._is_throttled = asyncio.Event()
        self._is_store_away = False

    @property
    def rate_per_s(self) -> float:
        """The deployment's rate now: what the store reported last, plus regrowth since."""
        age_s = self._clock() - self._reported_at
        regrown = self._reported_per_s + REGROWTH_PER_S * self._configured_per_s * age_s
        return min(self._configured_per_s, regrown)

    async def acquire(self, priority: Priority | None) -> None:
        """Wait for a slot: the most urgent first, and each 16th slot to the oldest waiter.

        None comes before all priorities: such a caller had a slot and could not use it in time.
        Cancelled, it leaves its slot to the next waiter. While `run` does not run, and after it
        stopped, it waits until it is cancelled.
        """
        future = self._waiters.join(priority)
        self._needs_slots.set()
        self._may_wake.set()
        try:
            await future
        except asyncio.CancelledError:
            self._waiters.leave(priority, future)
            if not future.cancelled():
                self.restore()
            raise

    def restore(self) -> None:
        """Give a slot that was acquired just now and not used to the next waiter."""
        self._slots.restore()
        self._may_wake.set()

    def throttled(self) -> None:
        """The provider answered "too fast": cut the rate of all workers."""
        self._is_throttled.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Reserve slots, give them to waiters and cut the rate, until `stop`.

        Continues while the store is unavailable.
        """
        self._observer.provider_rate_changed(self.name, self.rate_per_s)
        async with asyncio.TaskGroup() as group:
            loops = (self._keep_reserving(), self._keep_waking(), self._keep_cutting())
            tasks = [group.create_task(loop, name=f"rate of {self.name}") for loop in loops]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def _keep_reserving(self) -> None:
        while True:
            while self._missing() <= 0:
                self._needs_slots.clear()
                await self._needs_slots.wait()
            await asyncio.sleep(await self._reserve())

    async def _reserve(self) -> float:
        """Reserve one slice; returns the seconds until the next attempt."""
        limit = max(1, ceil(self.rate_per_s * SLICE_S))
        requested_at = self._clock()
        try:
            piece = await self._store.reserve(
                self.name, self._configured_per_s, min(self._missing(), limit)
            )
        except StoreError as error:
            if not self._is_store_away:
                log.warning("rate_reservation_failed", provider=self.name, reason=str(error))
            self._is_store_away = True
            return STORE_RETRY_S
        self._is_store_away = False
        self._add(piece, requested_at)
        return self._until_needed() if piece.count else self._until_free(piece)

    def _add(self, piece: Slice, requested_at: float) -> None:
        self._slots.add(piece, requested_at)
        self._reported_per_s, self._reported_at = piece.rate_per_s, self._clock()
        self._observer.provider_rate_changed(self.name, piece.rate_per_s)
        self._may_wake.set()

    def _until_free(self, piece: Slice) -> float:
        """Seconds until the schedule has slots to give away again.

        Spread at random, so that no worker always comes just after another.
        """
        spread_s = SPREAD_S * (0.2 + 0.8 * self._random.random())
        return max(0.0, piece.starts_in_s - MAX_LEAD_S) + spread_s

    def _until_needed(self) -> float:
        """Seconds until this worker should reserve its next slice."""
        covered_s = self._slots.covered_s
        return max(0.0, covered_s - MAX_COVERED_S, min(covered_s / 2, COALESCE_S))

    def _missing(self) -> int:
        return len(self._waiters) - len(self._slots)

    async def _keep_waking(self) -> None:
        while True:
            while not (self._slots and self._waiters):
                self._may_wake.clear()
                await self._may_wake.wait()
            await asyncio.sleep(self._slots.first_in_s)
            self._wake_waiters()

    def _wake_waiters(self) -> None:
        while self._slots and self._slots.first_in_s <= 0 and self._waiters.wake_next():
            self._slots.take()
        self._needs_slots.set()

    async def _keep_cutting(self) -> None:
        while True:
            await self._is_throttled.wait()
            is_cut = await self._cut()
            # Replies within a second of a cut belong to calls made before it.
            await asyncio.sleep(CUT_INTERVAL_S if is_cut else CUT_INTERVAL_S / 4)
            self._is_throttled.clear()

    async def _cut(self) -> bool:
        try:
            is_cut = await self._store.cut(self.name)
        except StoreError as error:
            log.warning("rate_cut_failed", provider=self.name, reason=str(error))
            return False
        if is_cut:
            log.warning("rate_cut", provider=self.name)
        return is_cut
