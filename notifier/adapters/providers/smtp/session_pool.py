"""A pool of SMTP sessions that stay open between mails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from notifier.adapters.providers.smtp.session import Session

FREE_SESSION_TIMEOUT_S: Final = 2.0
"""A claim must be young when its call begins, so a send does not wait longer for a session."""


class NoFreeSession(Exception):
    """All allowed sessions stayed busy."""


class SessionOpener(Protocol):
    """Opens sessions. Implemented by provider.SmtpProvider."""

    async def open_session(self) -> Session:
        """A new session ready for mail. Raises SMTPException or OSError."""
        ...


class SessionPool:
    """Up to `limit` sessions; an idle one is closed after `idle_s`.

    The session used last is lent first, so that sessions that are not needed become idle for long
    enough to be closed.
    """

    def __init__(self, opener: SessionOpener, *, limit: int, idle_s: float) -> None:
        self._opener = opener
        self._permits = asyncio.Semaphore(limit)
        self._idle_s = idle_s
        self._idle: deque[tuple[float, Session]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def session(self, *, fresh: bool) -> AsyncIterator[Session]:
        """Lend a session for the block; a `fresh` one was not used before.

        An error or cancellation inside the block aborts the session. Raises NoFreeSession when all
        allowed sessions stay busy for 2 s.
        """
        async with self._permit():
            idle = None if fresh else self._take_idle()
            session = idle or await self._opener.open_session()
            try:
                yield session
            except BaseException:
                session.abort()
                raise
            self._put_back(session)

    @asynccontextmanager
    async def _permit(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(FREE_SESSION_TIMEOUT_S):
                await self._permits.acquire()
        except TimeoutError as error:
            raise NoFreeSession from error
        try:
            yield
        finally:
            self._permits.release()

    def close(self) -> None:
        """Close the idle sessions."""
        if self._timer is not None:
            self._timer.cancel()
        while self._idle:
            self._idle.pop()[1].close()

    def _take_idle(self) -> Session | None:
        while self._idle:
            _, session = self._idle.pop()
            if session.is_open:
                return session
        return None

    def _put_back(self, session: Session) -> None:
        if not session.is_open:
            session.close()
            return
        loop = asyncio.get_running_loop()
        self._idle.append((loop.time(), session))
        if self._timer is None:
            self._timer = loop.call_later(self._idle_s, self._close_expired)

    def _close_expired(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._idle and self._idle[0][0] + self._idle_s <= loop.time():
            self._idle.popleft()[1].close()
        if self._idle:
            next_at = self._idle[0][0] + self._idle_s
            self._timer = loop.call_at(next_at, self._close_expired)
