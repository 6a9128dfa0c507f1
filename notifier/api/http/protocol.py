"""uvicorn's HTTP protocol with limits on a request's head and on a body that no handler reads.

body.py limits a body that a handler reads. ADR 29 explains why this extends uvicorn.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Final

import httptools
import msgspec
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import PROBLEM_MEDIA_TYPE
from notifier.api.http.request_id import HEADER, new_request_id, request_urn
from notifier.api.responses import Problem

_MALFORMED: Final = ProblemType.BAD_REQUEST.problem(
    "This is not a valid HTTP/1.1 request. The API speaks neither HTTP/2 nor TLS."
)
_HEAD_TIMEOUT: Final = ProblemType.HEAD_TIMEOUT.problem("Send the request again.")
_HEAD_TOO_LARGE: Final = ProblemType.HEAD_TOO_LARGE.problem(
    "The request line and the header fields together are too large, or there are too many fields."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits of one connection.

    `head_timeout_s` runs from the connect, and on a kept-alive connection from the first byte of
    the next head. The `unread_` limits hold for a body that still arrives after its response.
    `reserved_files` of the process's file descriptors are not available to connections.
    """

    reserved_files: int = 256
    max_head_bytes: int = 64 * 1024
    max_head_fields: int = 100
    head_timeout_s: float = 10.0
    max_unread_bytes: int = 64 * 1024 * 1024
    unread_timeout_s: float = 30.0


class _HeadTooLarge(Exception):
    """Makes httptools stop parsing a head."""


class HeadLimits(HttpToolsProtocol):
    """Answers 431 to a head that is too large and 408 to one that is too slow, then closes.

    A connection that sends nothing at all is closed without a response.
    """

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()

    @override
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = True
        self._has_begun = False
        self._head_bytes = self._field_bytes = 0
        self._is_head_too_large = False
        self._head_timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(_HEAD_TOO_LARGE if self._is_head_too_large else _MALFORMED)
            return
        if self._is_in_head and self._has_begun:
            # httptools reports a field only when it is complete; an endless one is counted here.
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.max_head_bytes and not self.transport.is_closing():
                self._refuse(_HEAD_TOO_LARGE)

    def _parse(self, data: bytes) -> None:
        # httptools stops after a head that asks for an upgrade (`curl --http2`, Java's client) and
        # does not read its body. A server may ignore the request for it: RFC 9110, section 7.8.
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        """Returns the head that was just parsed, without the field that asks for an upgrade."""
        version = self.parser.get_http_version().encode()
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        fields = (b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade")
        return b"".join([line, *fields, b"\r\n"])

    @override
    def _should_upgrade(self) -> bool:
        # Called if the head asks for an upgrade. True makes uvicorn ignore this head: `_parse`
        # presents it again. A CONNECT has no path, and is refused.
        return bool(self.parser.get_method() != b"CONNECT")

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = self._has_begun = True
        self._head_bytes = self._field_bytes = 0
        if self._head_timer is None:
            self._start_head_timer()

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._field_bytes += len(name) + len(value)
        has_too_many = len(self.headers) > self.limits.max_head_fields
        if has_too_many or self._field_bytes > self.limits.max_head_bytes:
            self._is_head_too_large = True
            raise _HeadTooLarge

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_head_timer()
        super().on_headers_complete()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.head_timeout_s, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        self._head_timer = None

    def _on_head_timeout(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle and not cycle.response_complete:
            self._start_head_timer()  # a pipelined request waits for the response before it
        elif self._has_begun:
            self._refuse(_HEAD_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answers what cannot be a request, and closes. Requests before it are answered first."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle and not (cycle.response_complete or cycle.more_body):
            cycle.keep_alive = False
            return
        self.transport.write(_response(problem))
        self.transport.close()


class UnreadBodyLimits(HeadLimits):
    """Aborts a connection whose body outlasts its response by too much time or too many bytes."""

    @override
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unread_bytes = 0
        self._unread_timer: asyncio.TimerHandle | None = None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_unread_timer()
        super().connection_lost(exc)

    @override
    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > self.limits.max_unread_bytes:
                self.transport.abort()
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._stop_unread_timer()
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        if self.cycle.more_body and not self.transport.is_closing():
            self._unread_bytes = 0
            self._unread_timer = self.loop.call_later(
                self.limits.unread_timeout_s, self.transport.abort
            )
        super().on_response_complete()

    def _stop_unread_timer(self) -> None:
        if self._unread_timer:
            self._unread_timer.cancel()
        self._unread_timer = None


class BoundedProtocol(UnreadBodyLimits):
    """All limits. Also aborts the longest idle connection when file descriptors run out."""

    _open: ClassVar[set[BoundedProtocol]] = set()
    _idle: ClassVar[dict[BoundedProtocol, None]] = {}
    """Connections without a request, the longest idle first. Shared by all servers of the process,
    as the file descriptors are."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._make_room()
        self._open.add(self)
        self._idle[self] = None

    def _make_room(self) -> None:
        # Without descriptors the process could not even connect to Postgres.
        if len(self._open) >= _max_files() - self.limits.reserved_files:
            longest_idle = next(iter(self._idle), self)
            self._idle.pop(longest_idle, None)
            longest_idle.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._idle.pop(self, None)
        super().connection_lost(exc)

    @override
    def on_headers_complete(self) -> None:
        self._idle.pop(self, None)
        super().on_headers_complete()

    @override
    def on_response_complete(self) -> None:
        is_body_complete = not self.cycle.more_body or self.transport.is_closing()
        if is_body_complete and self in self._open and not self.pipeline:
            self._idle[self] = None
        super().on_response_complete()


def _max_files() -> float:
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return inf if soft_limit == resource.RLIM_INFINITY else soft_limit


def _response(problem: Problem) -> bytes:
    id_ = new_request_id()
    body = msgspec.json.encode(msgspec.structs.replace(problem, instance=request_urn(id_)))
    head = (
        f"{HEADER}: {id_}\r\n"
        f"Content-Type: {PROBLEM_MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return STATUS_LINE[problem.status] + head.encode() + body
