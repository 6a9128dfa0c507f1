"""A pool of SMTP sessions that stay open between mails."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from notifier.adapters.providers.connection_limit import ConnectionLimit
from notifier.adapters.providers.smtp.opening import OpeningFailed
from notifier.adapters.providers.smtp.session import Session

FREE_SESSION_TIMEOUT_S: Final = 2.0
"""A claim must be young when its call begins, so a send does not wait longer for a session."""
MAX_AGE_S: Final = 60.0
"""Where the server limits connections, one this old is closed, so that other processes get one."""


class NoFreeSession(Exception):
    """No session is free, and the server or the settings allow no other one."""


class SessionOpener(Protocol):
    """Opens sessions. Implemented by opening.Server."""

    async def open(self) -> Session:
        """A new session ready for mail. Raises OpeningFailed."""
        ...


class SessionPool:
    """Up to `limit` sessions; an idle one is closed after `idle_s`.

    The session used last is lent first, so that sessions that are not needed become idle for long
    enough to be closed.
    """

    def __init__(self, opener: SessionOpener, *, limit: ConnectionLimit, idle_s: float) -> None:
        self._opener = opener
        self._limit = limit
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._idle: deque[tuple[float, Session]] = deque()
        self._open: set[Session] = set()
        self._opening = 0
        self._opening_ended = asyncio.Event()
        self._waiters: deque[asyncio.Future[Session | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def borrow(self, *, fresh: bool) -> Session:
        """Lend a session; a `fresh` one was not used before.

        It must come back by `give_back` or `discard`. Waits while all allowed sessions are busy,
        and raises NoFreeSession after 2 s. Raises OpeningFailed.
        """
        if not self._waiters:
            session = None if fresh else self._take_idle()
            if session is None and self._may_open(fresh=fresh):
                session = await self._opened()
            if session is not None:
                return session
        return await self._wait_for_session(fresh=fresh)

    def give_back(self, session: Session) -> None:
        """Take a session back after a mail; the next one may use it."""
        if not session.is_open or self._is_too_old(session):
            self._close_session(session)
            self._wake(None)
        elif not self._wake(session):
            self._idle.append((self._loop.time(), session))
            if self._timer is None:
                self._timer = self._loop.call_later(self._idle_s, self._close_expired)

    def discard(self, session: Session) -> None:
        """Abort a session whose mail failed or was cancelled."""
        session.abort()
        self._open.discard(session)
        self._wake(None)

    def close(self) -> None:
        """Close the idle sessions."""
        if self._timer is not None:
            self._timer.cancel()
        while self._idle:
            self._close_session(self._idle.pop()[1])

    async def _wait_for_session(self, *, fresh: bool) -> Session:
        deadline = self._loop.time() + FREE_SESSION_TIMEOUT_S
        try:
            async with asyncio.timeout_at(deadline) as limit:
                while True:
                    session = await self._wait()
                    if session is not None and fresh:
                        self._close_session(session)
                        session = None
                    if session is None and self._may_open(fresh=fresh):
                        limit.reschedule(None)  # the send's own time limit bounds the opening
                        session = await self._opened()
                        limit.reschedule(deadline)
                    if session is not None:
                        return session
        except TimeoutError as error:
            raise NoFreeSession("all sessions busy") from error

    async def _wait(self) -> Session | None:
        """Wait for a session that comes back; None when another one may be opened."""
        waiter: asyncio.Future[Session | None] = self._loop.create_future()
        self._waiters.append(waiter)
        if wait_s := self._limit.may_connect_in_s:
            self._loop.call_later(wait_s, self._wake, None)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled():
                self._pass_on(waiter.result())
            raise

    def _pass_on(self, session: Session | None) -> None:
        if session is None:
            self._wake(None)
        else:
            self.give_back(session)

    def _wake(self, session: Session | None) -> bool:
        """Hand a session, or the chance to open one, to the one that waits longest, if any."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(session)
                return True
        return False

    def _is_too_old(self, session: Session) -> bool:
        return self._limit.is_lowered and self._loop.time() > session.opened_at + MAX_AGE_S

    def _may_open(self, *, fresh: bool) -> bool:
        """Whether another session may be opened now.

        A server that has refused one for its number of connections is not asked again at once, also
        if it serves others only. For a fresh one an idle session makes room: it is likely to have
        ended as well.
        """
        if self._limit.may_connect_in_s or (self._opening and self._limit.is_near):
            return False
        connections = self._limit.connections
        if fresh and self._idle and len(self._open) + self._opening >= connections:
            self._close_session(self._idle.popleft()[1])
        return len(self._open) + self._opening < connections

    async def _opened(self) -> Session | None:
        """A new session; None if the server has too many connections. Raises OpeningFailed."""
        try:
            session = await self._open_one()
        except OpeningFailed as error:
            await self._on_refused(error)
            return None
        finally:
            self._wake(None)
        self._limit.on_connected(len(self._open))
        return session

    async def _open_one(self) -> Session:
        self._opening += 1
        try:
            session = await self._opener.open()
            self._open.add(session)
        finally:
            self._opening -= 1
            self._opening_ended.set()
            self._opening_ended = asyncio.Event()
        return session

    async def _on_refused(self, error: OpeningFailed) -> None:
        """Lower the limit if the server has too many connections. Raises what is no such case.

        Sessions that are being opened at the same moment may be the ones that it serves instead.
        """
        while error.may_be_limit and self._opening and not self._connected:
            await self._opening_ended.wait()
        connected = self._connected
        is_limit = error.is_connection_limit or (error.may_be_limit and connected > 0)
        if is_limit:
            self._limit.on_refused(connected)
        if not is_limit:
            raise error
        if not connected:
            raise NoFreeSession(error.outcome.detail) from error

    @property
    def _connected(self) -> int:
        return sum(session.is_connected for session in self._open)

    def _take_idle(self) -> Session | None:
        while self._idle:
            _, session = self._idle.pop()
            if session.is_open:
                return session
            self._close_session(session)
        return None

    def _close_session(self, session: Session) -> None:
        session.close()
        self._open.discard(session)

    def _close_expired(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._idle and self._idle[0][0] + self._idle_s <= now:
            self._close_session(self._idle.popleft()[1])
        if self._idle:
            next_at = self._idle[0][0] + self._idle_s
            self._timer = self._loop.call_at(next_at, self._close_expired)
