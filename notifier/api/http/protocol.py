"""uvicorn's protocol with the bounds it lacks: on a request's head, and on a body nobody reads.

A body that somebody reads has its bounds in body.py.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Final

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_TOO_SLOW: Final = b"408 Request Timeout"
_TOO_LARGE: Final = b"431 Request Header Fields Too Large"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBounds:
    """A head's bytes, fields and time; how much, how long is read after a request was answered.

    The time of a head runs from the connect, or from its first byte on a connection that goes on.
    Of the files that the process may open, so many are not for connections.
    """

    files_kept: int = 256
    head_bytes: int = 64 * 1024
    head_fields: int = 100
    head_within_s: float = 10.0
    unread_bytes: int = 64 * 1024 * 1024
    unread_within_s: float = 30.0


def _files() -> float:
    """How many files the process may open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return inf if most == resource.RLIM_INFINITY else most


class _HeadTooLarge(Exception):
    """Ends the parsing of a head."""


class BoundedProtocol(HttpToolsProtocol):
    """Ends a connection that asks for too much before it asks for anything."""

    bounds: ClassVar[ConnectionBounds] = ConnectionBounds()
    _open: ClassVar[set[BoundedProtocol]] = set()
    _idle: ClassVar[dict[BoundedProtocol, None]] = {}
    """Those without a request, the longest first; of all servers, for they share the files."""

    @override
    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._is_head = True
        self._has_begun = False
        self._head_bytes = self._fields_bytes = self._unread_bytes = 0
        self._is_too_large = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()
        self._make_room()
        self._open.add(self)
        self._idle[self] = None

    def _make_room(self) -> None:
        """Without files the process could not even reach Postgres: who only waits must go."""
        if len(self._open) >= _files() - self.bounds.files_kept:
            longest = next(iter(self._idle), self)
            self._idle.pop(longest, None)
            longest.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._idle.pop(self, None)
        self._forget_head()
        self._forget_unread()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_head and self._has_begun:
            self._head_bytes += len(data)  # a field that goes on and on is told to nobody
            if self._head_bytes > self.bounds.head_bytes and not self.transport.is_closing():
                self._refuse(_TOO_LARGE)

    # ---- the head -------------------------------------------------------------------------------

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_head = self._has_begun = True
        self._head_bytes = self._fields_bytes = 0
        if self._head_timer is None:
            self._watch_head()

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._fields_bytes += len(name) + len(value)
        is_many = len(self.headers) > self.bounds.head_fields
        if is_many or self._fields_bytes > self.bounds.head_bytes:
            self._is_too_large = True
            raise _HeadTooLarge

    @override
    def on_headers_complete(self) -> None:
        self._is_head = False
        self._idle.pop(self, None)
        self._forget_head()
        super().on_headers_complete()

    @override
    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self._refuse(_TOO_LARGE)
        else:
            super().send_400_response(msg)

    def _watch_head(self) -> None:
        self._head_timer = self.loop.call_later(self.bounds.head_within_s, self._head_is_late)

    def _forget_head(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        self._head_timer = None

    def _head_is_late(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle and not cycle.response_complete:
            self._watch_head()  # the next request waits for the answer to this one
        elif self._has_begun:
            self._refuse(_TOO_SLOW)
        else:
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        head = b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        self.transport.write(head)
        self.transport.close()

    # ---- what comes after the answer ------------------------------------------------------------

    @override
    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > self.bounds.unread_bytes:
                self.transport.abort()
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._forget_unread()
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        if self.cycle.more_body and not self.transport.is_closing():
            self._unread_bytes = 0
            self._unread_timer = self.loop.call_later(
                self.bounds.unread_within_s, self.transport.abort
            )
        elif self in self._open and not self.pipeline:
            self._idle[self] = None
        super().on_response_complete()

    def _forget_unread(self) -> None:
        if self._unread_timer:
            self._unread_timer.cancel()
        self._unread_timer = None

    @override
    def _unsupported_upgrade_warning(self) -> None:
        """A caller that asks for a WebSocket cannot fill the log: it is served as if it had not."""
