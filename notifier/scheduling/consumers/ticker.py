"""When the scheduler ticks."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from notifier.domain.allocation.demand import TICK_S
from notifier.lifecycle import Clock, wait

JITTER: Final = 0.1
MIN_TICK_S: Final = 0.05
MUTED_S: Final = 1.0
"""After a wake-up that moved no consumer, further wake-ups are ignored for this long."""


class Ticker:
    """Ticks every 250 ms with 10 % of jitter; `wake` makes the next tick come earlier."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._wake = asyncio.Event()
        self._was_woken = False
        self._muted_until = -1.0

    def wake(self) -> None:
        """Make the next tick come earlier, but not within 50 ms of the one before."""
        self._wake.set()

    def start_tick(self) -> None:
        """Begin a tick: a wake-up from now on asks for another one."""
        self._was_woken = self._wake.is_set()
        self._wake.clear()

    async def wait(self, *, was_useful: bool) -> None:
        """Wait for the next tick. `was_useful` is whether the last one moved a consumer."""
        started_at = self._clock()
        if self._was_woken and not was_useful:
            self._muted_until = started_at + MUTED_S
        latest = started_at + TICK_S * self._random.uniform(1 - JITTER, 1 + JITTER)
        earliest = max(started_at + MIN_TICK_S, self._muted_until)
        await asyncio.sleep(min(latest, earliest) - started_at)
        await wait(self._wake, max(0.0, latest - self._clock()))
