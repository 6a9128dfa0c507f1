"""An open SMTP connection: writes commands and hands out the replies in order.

The class takes over a transport whose session is open; see opening.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from notifier.adapters.providers.smtp.reply import ProtocolError, Reply, ReplyReader


class ConnectionLost(Exception):
    """The connection ended, or is of no use any longer, before the expected reply came."""


class MailConnection(asyncio.Protocol):
    """The client's side of a connection. One coroutine at a time may use it.

    Whoever writes states how many replies are expected. A reply that no command caused (a server
    says 421 before it closes an idle session) closes the connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._reader = ReplyReader()
        self._replies = deque[Reply]()
        self._expected = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_paused = False
        self._error: ProtocolError | None = None
        # With no buffer above the kernel's, a write is tried at once, `pause_writing` says that the
        # kernel has not taken all of it, and a transport that closes within the write sent nothing.
        transport.set_write_buffer_limits(high=0)
        transport.set_protocol(self)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open, as far as known."""
        return not self._transport.is_closing()

    @property
    def is_open(self) -> bool:
        """Whether the connection is open and idle, as far as known."""
        is_idle = not self._expected and not self._replies and self._reader.is_empty
        return is_idle and not self._transport.is_closing()

    @property
    def has_reply(self) -> bool:
        """Whether a reply has arrived that was not handed out."""
        return bool(self._replies)

    def write(self, data: bytes, *, replies: int) -> None:
        """Write; the server will answer with so many replies.

        Raises ConnectionLost if the connection is closed already, or if the kernel refuses the
        write: then it took none of it.
        """
        if self._transport.is_closing():
            raise ConnectionLost("closed")
        self._expected += replies
        self._transport.write(data)
        if self._transport.is_closing():
            raise ConnectionLost("closed")

    async def reply(self) -> Reply:
        """The next reply. Raises ConnectionLost or ProtocolError."""
        while not self._replies:
            await self._wait()
        return self._replies.popleft()

    async def drain(self) -> None:
        """Wait until the kernel has taken all bytes, or a reply arrives before.

        Raises ConnectionLost or ProtocolError.
        """
        while self._is_paused and not self._replies:
            await self._wait()

    def close(self) -> None:
        """Close after what was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once and discard what is not sent."""
        self._transport.abort()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        if self._transport.is_closing():
            raise ConnectionLost("closed by the server")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Implements asyncio.Protocol."""
        try:
            replies = self._reader.feed(data)
        except ProtocolError as error:
            self._error = error
            self._transport.abort()
            self._wake()
            return
        if not replies:
            return
        if len(replies) > self._expected:
            self._transport.close()
        self._replies.extend(replies[: self._expected])
        self._expected -= min(len(replies), self._expected)
        self._wake()

    def eof_received(self) -> None:
        """Implements asyncio.Protocol: closes."""
        self._wake_later()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio's signature
        """Implements asyncio.Protocol."""
        self._wake()

    def pause_writing(self) -> None:
        """Implements asyncio.Protocol."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Implements asyncio.Protocol."""
        self._is_paused = False
        self._wake()

    def _wake_later(self) -> None:
        # The transport closes itself after this callback.
        self._loop.call_soon(self._wake)


def take_over(transport: asyncio.BaseTransport) -> MailConnection:
    """Make the transport of an open session a MailConnection."""
    return MailConnection(cast("asyncio.Transport", transport))  # uvloop's is not a subclass
