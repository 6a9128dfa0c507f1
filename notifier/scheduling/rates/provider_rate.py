"""One provider's rate, shared by the whole deployment.

The schedule is kept in the store; a worker reserves pieces of it ahead, no more slots than it has
waiters, and spends each at its time. A slot that finds nobody is good for 20 ms more, then it is
lost: calls made up for later would be too many in one second.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from math import ceil
from typing import Final

import structlog

from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Priority
from notifier.domain.provider_rate import CUT_INTERVAL_S, MAX_LEAD_S, REGROWTH_PER_S, SLICE_S
from notifier.ports.observer import Observer
from notifier.ports.rates import RateStore, Slice
from notifier.scheduling.consumers.measurements import Clock
from notifier.scheduling.rates.slots import Slots, even_rate
from notifier.scheduling.rates.waiter_queue import WaiterQueue

LEAD_S: Final = 0.075
"""With slots for so long in hand a worker leaves the schedule to the others."""
SPREAD_S: Final = 0.01
COALESCE_S: Final = 0.025
"""How long more waiters are gathered before the next piece, while there are slots in hand."""
AWAY_S: Final = 0.5

log = structlog.get_logger(__name__)


class ProviderRate:
    """This process's share of one provider's schedule. `run` must run for `acquire` to return."""

    def __init__(
        self,
        name: str,
        rate_per_s: float,
        *,
        store: RateStore,
        clock: Clock,
        observer: Observer,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._store = store
        self._clock = clock
        self._observer = observer
        self._draw = draw
        self._asked_per_s = even_rate(rate_per_s)
        self._told_per_s, self._told_at = self._asked_per_s, clock()
        self._line = WaiterQueue()
        self._slots = Slots(clock)
        self._is_wanted = asyncio.Event()
        self._may_call = asyncio.Event()
        self._is_throttled = asyncio.Event()
        self._is_away = False

    @property
    def rate_per_s(self) -> float:
        """The deployment's rate as it is now: as last told, and grown since."""
        grown = REGROWTH_PER_S * self._asked_per_s * (self._clock() - self._told_at)
        return min(self._asked_per_s, self._told_per_s + grown)

    async def acquire(self, priority: Priority | None) -> None:
        """Wait for a slot; the most urgent first, and each sixteenth to whoever waits longest.

        None comes before all: it had a slot and could not use it in time.

        Cancelled, it leaves its slot to the next. While nothing runs, and after the stop, it waits
        until it is cancelled.
        """
        told = self._line.join(priority)
        self._is_wanted.set()
        self._may_call.set()
        try:
            await told
        except asyncio.CancelledError:
            self._line.leave(priority, told)
            if not told.cancelled():
                self.restore()
            raise

    def restore(self) -> None:
        """A slot acquired just now was not used: it goes to the next."""
        self._slots.restore()
        self._may_call.set()

    def throttled(self) -> None:
        """The provider said "too fast": cut the rate, for all workers."""
        self._is_throttled.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Reserve, hand out and cut, until `stop`. Survives a store that is away."""
        self._observer.provider_rate_changed(self.name, self.rate_per_s)
        async with asyncio.TaskGroup() as group:
            loops = (self._keep_reserving(), self._keep_calling(), self._keep_cutting())
            tasks = [group.create_task(each, name=f"rate of {self.name}") for each in loops]
            await stop.wait()
            for task in tasks:
                task.cancel()

    # ---- reserving

    async def _keep_reserving(self) -> None:
        while True:
            while self._missing() <= 0:
                self._is_wanted.clear()
                await self._is_wanted.wait()
            await asyncio.sleep(await self._reserve())

    async def _reserve(self) -> float:
        """Ask for one piece; returns how long not to ask again."""
        most = max(1, ceil(self.rate_per_s * SLICE_S))
        asked_at = self._clock()
        try:
            piece = await self._store.reserve(
                self.name, self._asked_per_s, min(self._missing(), most)
            )
        except StoreUnavailable as error:
            if not self._is_away:
                log.warning("rate_reservation_failed", provider=self.name, reason=str(error))
            self._is_away = True
            return AWAY_S
        self._is_away = False
        self._take_in(piece, asked_at)
        return self._until_needed() if piece.count else self._until_free(piece)

    def _take_in(self, piece: Slice, asked_at: float) -> None:
        self._slots.add(piece, asked_at)
        self._told_per_s, self._told_at = piece.rate_per_s, self._clock()
        self._observer.provider_rate_changed(self.name, piece.rate_per_s)
        self._may_call.set()

    def _until_free(self, piece: Slice) -> float:
        """Spread, so that no worker always comes just after another."""
        return max(0.0, piece.starts_in_s - MAX_LEAD_S) + SPREAD_S * (0.2 + 0.8 * self._draw())

    def _until_needed(self) -> float:
        covered_s = self._slots.covered_s
        return max(0.0, covered_s - LEAD_S, min(covered_s / 2, COALESCE_S))

    def _missing(self) -> int:
        return len(self._line) - len(self._slots)

    # ---- handing out

    async def _keep_calling(self) -> None:
        while True:
            while not (self._slots and self._line):
                self._may_call.clear()
                await self._may_call.wait()
            await asyncio.sleep(self._slots.first_in_s)
            self._call()

    def _call(self) -> None:
        while self._slots and self._slots.first_in_s <= 0 and self._line.call():
            self._slots.take()
        self._is_wanted.set()

    # ---- cutting

    async def _keep_cutting(self) -> None:
        """What is answered within a second of a cut was called before it."""
        while True:
            await self._is_throttled.wait()
            is_cut = await self._cut()
            await asyncio.sleep(CUT_INTERVAL_S if is_cut else CUT_INTERVAL_S / 4)
            self._is_throttled.clear()

    async def _cut(self) -> bool:
        try:
            is_cut = await self._store.cut(self.name)
        except StoreUnavailable as error:
            log.warning("rate_cut_failed", provider=self.name, reason=str(error))
            return False
        if is_cut:
            log.warning("rate_cut", provider=self.name)
        return is_cut
