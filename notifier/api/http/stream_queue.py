"""What waits to be sent to one stream, between the reader of all streams and the stream itself."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

Item = TypeVar("Item")


class StreamQueue(Generic[Item]):
    """What one stream is given.

    `started` is set once it will get all that follows, and `closed` when it gets no more.
    """

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.closed = asyncio.Event()
        self._queued: deque[Item] = deque()
        self._has_more = asyncio.Event()

    def close(self) -> None:
        """Give it no more. What is queued may still be taken."""
        self.closed.set()
        self.started.set()
        self._has_more.set()

    async def take(self, timeout_s: float) -> Sequence[Item]:
        """Return what is queued, once there is something or after the time-out.

        What is queued at the moment of the time-out is returned, too. A stream that gets nothing
        tells its reader that there was nothing.
        """
        if not self._queued and not self.closed.is_set():
            self._has_more.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._has_more.wait()
        taken = list(self._queued)
        self._queued.clear()
        return taken

    def _queue(self, items: Sequence[Item]) -> None:
        """Let the stream take these."""
        if items:
            self._queued.extend(items)
            self._has_more.set()
