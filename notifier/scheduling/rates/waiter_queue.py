"""The waiters for slots of a rate, and the order in which they get one."""

from __future__ import annotations

import asyncio
from typing import Final

from notifier.domain.notification import Priority

OLDEST_FIRST_EVERY: Final = 16
"""Every 16th slot goes to the oldest waiter of all, so that no priority starves."""


class WaiterQueue:
    """The most urgent priority first; first in, first out within one. Nothing here awaits.

    A waiter is removed exactly once: by `wake_next` or by `leave`.
    """

    def __init__(self) -> None:
        self._waiters: dict[Priority | None, dict[asyncio.Future[None], int]] = {
            priority: {} for priority in (None, *Priority)
        }
        self._joined = 0
        self._woken = 0

    def __len__(self) -> int:
        """The number of waiters."""
        return sum(len(waiters) for waiters in self._waiters.values())

    def join(self, priority: Priority | None) -> asyncio.Future[None]:
        """Add a waiter, None before all priorities; the future is done when it gets its slot."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._joined += 1
        self._waiters[priority][future] = self._joined
        return future

    def leave(self, priority: Priority | None, future: asyncio.Future[None]) -> None:
        """Remove a waiter. Does nothing if it was woken already."""
        self._waiters[priority].pop(future, None)

    def wake_next(self) -> bool:
        """Wake the next waiter; False if there is none."""
        self._woken += 1
        is_for_oldest = self._woken % OLDEST_FIRST_EVERY == 0
        while groups := [waiters for waiters in self._waiters.values() if waiters]:
            waiters = min(groups, key=_oldest_number) if is_for_oldest else groups[0]
            future = next(iter(waiters))
            del waiters[future]
            if not future.done():  # done: its task was cancelled just now
                future.set_result(None)
                return True
        return False


def _oldest_number(waiters: dict[asyncio.Future[None], int]) -> int:
    return next(iter(waiters.values()))
