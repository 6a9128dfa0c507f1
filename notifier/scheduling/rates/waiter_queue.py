"""Who waits for a slot, and whose turn it is."""

from __future__ import annotations

import asyncio
from typing import Final

from notifier.domain.notification import Priority

FOR_THE_OLDEST: Final = 16
"""Every so many slots one goes to whoever waits longest, so that no priority starves."""


class WaiterQueue:
    """The most urgent first, first in first out among equals. Nothing here awaits.

    A waiter leaves by one door only: called, or gone.
    """

    def __init__(self) -> None:
        self._waiters: dict[Priority | None, dict[asyncio.Future[None], int]] = {
            priority: {} for priority in (None, *Priority)
        }
        self._joined = 0
        self._called = 0

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(waiters) for waiters in self._waiters.values())

    def join(self, priority: Priority | None) -> asyncio.Future[None]:
        """Wait here, with None before all others; the future is done when it is one's turn."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._joined += 1
        self._waiters[priority][told] = self._joined
        return told

    def leave(self, priority: Priority | None, told: asyncio.Future[None]) -> None:
        """Go before one's turn; nothing if one was called already."""
        self._waiters[priority].pop(told, None)

    def call(self) -> bool:
        """Tell the next who still waits; False if nobody does."""
        self._called += 1
        is_for_the_oldest = self._called % FOR_THE_OLDEST == 0
        while heads := [waiters for waiters in self._waiters.values() if waiters]:
            waiters = min(heads, key=_joined_first) if is_for_the_oldest else heads[0]
            told = next(iter(waiters))
            del waiters[told]
            if not told.done():  # else its task was cancelled just now
                told.set_result(None)
                return True
        return False


def _joined_first(waiters: dict[asyncio.Future[None], int]) -> int:
    return next(iter(waiters.values()))
