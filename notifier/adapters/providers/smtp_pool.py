"""SMTP sessions kept open between mails: as many as are needed at once, never more than allowed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from notifier.adapters.providers.smtp_connection import Connection

SLOT_WITHIN_S: Final = 2.0
"""A claim must be young when its call begins, so nobody waits long for a session."""


class NoSlot(Exception):
    """All sessions that are allowed are busy."""


class Pool:
    """Lends the session used last, so that the ones not needed grow old and are closed."""

    def __init__(
        self, open_one: Callable[[], Awaitable[Connection]], *, most: int, idle_s: float
    ) -> None:
        self._open_one = open_one
        self._slots = asyncio.Semaphore(most)
        self._idle_s = idle_s
        self._idle: deque[tuple[float, Connection]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def connection(self, *, fresh: bool) -> AsyncIterator[Connection]:
        """A session for the block; a `fresh` one was not used before.

        A block that raises, cancellation included, ends the session. Raises NoSlot when all that
        are allowed stay busy for 2 s.
        """
        async with self._slot():
            idle = None if fresh else self._take()
            connection = idle or await self._open_one()
            try:
                yield connection
            except BaseException:
                connection.abort()
                raise
            self._give_back(connection)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(SLOT_WITHIN_S):
                await self._slots.acquire()
        except TimeoutError as error:
            raise NoSlot from error
        try:
            yield
        finally:
            self._slots.release()

    def close(self) -> None:
        """End what is idle."""
        if self._timer is not None:
            self._timer.cancel()
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self) -> Connection | None:
        while self._idle:
            _, connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    def _give_back(self, connection: Connection) -> None:
        if not connection.is_open:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        self._idle.append((loop.time(), connection))
        if self._timer is None:
            self._timer = loop.call_later(self._idle_s, self._close_old)

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._idle and self._idle[0][0] + self._idle_s <= loop.time():
            self._idle.popleft()[1].close()
        if self._idle:
            next_at = self._idle[0][0] + self._idle_s
            self._timer = loop.call_at(next_at, self._close_old)
