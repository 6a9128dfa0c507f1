"""Publishes the pointers of new rows of one queue that were stored for direct publishing."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.lifecycle import Clock
    from notifier.ports.broker import Pointer

MAX_BATCH: Final = 500
PUBLISH_LATE_S: Final = 0.1


class BatchPublisher(Protocol):
    """Publishes a batch; implemented by delivery.direct_publish.DirectPublishing."""

    async def publish(self, pointers: Sequence[Pointer]) -> None:
        """Publish pointers of one queue. Does not raise."""
        ...


class DirectPublisher:
    """Pointers that arrive during a publish form the next batch. Queues publish independently."""

    def __init__(self, publisher: BatchPublisher, clock: Clock) -> None:
        self.reserved = 0
        """Places in the publish window held by rows whose publish has not begun, stored or not."""
        self._publisher = publisher
        self._clock = clock
        self._pointers: deque[tuple[float, Pointer]] = deque()
        self._publishing_since = inf
        self._wake = asyncio.Event()
        self._is_closed = False

    @property
    def is_late(self) -> bool:
        """Whether the oldest pointer here has waited for its confirm for over 100 ms."""
        enqueued_at = self._pointers[0][0] if self._pointers else inf
        return self._clock() - min(self._publishing_since, enqueued_at) > PUBLISH_LATE_S

    def enqueue(self, pointer: Pointer) -> None:
        """Publish a pointer whose row is committed and whose place was reserved."""
        self._pointers.append((self._clock(), pointer))
        self._wake.set()

    def close(self) -> None:
        """Let `run` end once everything enqueued is published; nothing may be enqueued after."""
        self._is_closed = True
        self._wake.set()

    async def run(self) -> None:
        """Publish the enqueued pointers, at most 500 at once, until closed and empty."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pointers:
                self._publishing_since = self._pointers[0][0]
                count = min(len(self._pointers), MAX_BATCH)
                batch = [self._pointers.popleft()[1] for _ in range(count)]
                self.reserved -= len(batch)
                await self._publisher.publish(batch)
                self._publishing_since = inf
            if self._is_closed:
                return
