"""The new rows of one queue that were stored as taken, until the broker has their pointers."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from notifier.ports.broker import Pointer

MAX_BATCH: Final = 500
PUBLISH_LATE_S: Final = 0.1


class DirectPublisher:
    """What is handed over during a publish shares the next; each queue's wait for no other's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.admitted = 0
        """Rows that may be stored as taken, or are, and of which nothing is confirmed yet."""
        self._clock = clock
        self._handed: deque[tuple[float, Pointer]] = deque()
        self._publishing_since = inf
        self._wake = asyncio.Event()
        self._is_closed = False

    @property
    def is_late(self) -> bool:
        """Whether the oldest pointer here has waited for its confirm for over 100 ms."""
        handed = self._handed[0][0] if self._handed else inf
        return self._clock() - min(self._publishing_since, handed) > PUBLISH_LATE_S

    def hand_over(self, pointer: Pointer) -> None:
        """Have it published: its row is committed."""
        self._handed.append((self._clock(), pointer))
        self._wake.set()

    def close(self) -> None:
        """No more is handed over: `run` ends when all is published."""
        self._is_closed = True
        self._wake.set()

    async def run(self, publish: Callable[[Sequence[Pointer]], Awaitable[None]]) -> None:
        """Publish what is handed over, at most 500 at once, until closed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._handed:
                self._publishing_since = self._handed[0][0]
                count = min(len(self._handed), MAX_BATCH)
                batch = [self._handed.popleft()[1] for _ in range(count)]
                await publish(batch)
                self._publishing_since = inf
                self.admitted -= len(batch)
            if self._is_closed:
                return
