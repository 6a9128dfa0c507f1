"""A TCP proxy that injects network faults: resets, silence, delays, lost replies.

Every change takes effect at once without awaiting, so a test can make it between two awaits.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto
from math import inf, nextafter
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from notifier.embedded.free_ports import free_ports

LOOPBACK = "127.0.0.1"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Forwarding(Enum):
    """What the proxy does with bytes it receives."""

    PASS = auto()
    HOLD = auto()
    SWALLOW = auto()


class End(asyncio.Protocol):
    """One end of a proxied connection: the client's or the server's."""

    def __init__(self, proxy: TcpProxy, *, is_client: bool) -> None:
        self._proxy = proxy
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None
        self._is_client = is_client
        self.peer: End | None = None
        self.is_broken = False  # lost bytes, or closed while its peer could not see it
        self._is_shut = False
        self._arrives_at = 0.0
        self.recording: bytearray | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._proxy.joined(self)
        if self._is_client and not self._proxy.listens:  # it was accepted just before a cut
            self.reset()
        elif self._is_client:
            self._proxy.connect(self)

    def data_received(self, data: bytes) -> None:
        if self._proxy.flow is Forwarding.SWALLOW and not self._is_client:
            self.is_broken = True
            self._proxy.swallowed.set()
            return
        if self.recording is not None:
            self.recording += data
        self._held += data
        self.forward()

    def forward(self) -> None:
        """Send the held bytes to the peer, if forwarding is on and the peer is connected."""
        if self._proxy.flow is Forwarding.HOLD or self.peer is None or self.peer._transport is None:
            return
        if self._held:
            self._send(bytes(self._held))
            self._held.clear()

    def _send(self, data: bytes) -> None:
        """Write the bytes to the peer after the delay, never before earlier bytes."""
        loop = asyncio.get_running_loop()
        arrives_at = loop.time() + self._proxy.delay_s
        if arrives_at <= self._arrives_at:  # equal times have no order
            arrives_at = nextafter(self._arrives_at, inf)
        elif not self._proxy.delay_s:
            self._arrive(data)
            return
        self._arrives_at = arrives_at
        loop.call_at(arrives_at, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        peer = self.peer
        if peer and peer._transport and not peer._is_shut and not peer._transport.is_closing():
            peer._transport.write(data)

    def shut(self) -> None:
        """Send EOF and keep reading; bytes for this end are dropped from now on."""
        if self._transport and not self._is_shut:
            self._is_shut = self.is_broken = True
            self._transport.write_eof()

    def pause_writing(self) -> None:
        if self.peer and self.peer._transport:
            self.peer._transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer and self.peer._transport:
            self.peer._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._proxy.left(self)
        if self._proxy.flow is Forwarding.HOLD:
            self.is_broken = True
            if self.peer:
                self.peer.is_broken = True
        elif self.peer and self.peer._transport:
            self.peer._transport.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        if self._transport is None:
            return
        own: socket.socket = self._transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()


class TcpProxy:
    """Forwards connections from 127.0.0.1:`port` to its upstream.

    `swallowed` is set when `swallow_replies` has dropped a reply.
    """

    def __init__(self, host: str, upstream: int | str | Path, group: asyncio.TaskGroup) -> None:
        self._host = host
        self._upstream = upstream
        self._group = group
        self._ends: set[End] = set()
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        (self.port,) = free_ports(1)
        self.flow = Forwarding.PASS
        self.delay_s = 0.0
        self.swallowed = asyncio.Event()
        self._recordings: list[bytearray] | None = None

    @property
    def listens(self) -> bool:
        """Whether it accepts connections."""
        return self._socket is not None

    @property
    def connections(self) -> int:
        """The number of connected clients."""
        return sum(end._is_client for end in self._ends)

    def url(self, original: str) -> str:
        """Return `original`, a URL of the upstream, with the proxy's address."""
        parts = urlsplit(original)
        user = parts.netloc.rpartition("@")[0]
        netloc = f"{user}@{LOOPBACK}:{self.port}" if user else f"{LOOPBACK}:{self.port}"
        return parts._replace(netloc=netloc, query="").geturl()

    def record(self) -> Sequence[bytearray]:
        """Return what clients send from now on over new connections, each in one item."""
        self._recordings = []
        return self._recordings

    def cut(self) -> None:
        """Reset every connection and refuse new ones, until `heal`."""
        self.flow = Forwarding.PASS
        self._refuse()
        for end in list(self._ends):
            end.reset()

    def blackhole(self) -> None:
        """Forward nothing in either direction; connections stay open, new ones get no reply.

        `heal` delivers the bytes sent meanwhile, as TCP would.
        """
        self.flow = Forwarding.HOLD

    def swallow_replies(self) -> None:
        """Drop what the server sends from now on; bytes from clients still arrive."""
        self.swallowed.clear()
        self.flow = Forwarding.SWALLOW

    def slow(self, delay_s: float) -> None:
        """Delay all bytes by `delay_s` in both directions, until `heal`."""
        self.delay_s = delay_s

    def half_close(self) -> None:
        """Send EOF to the client of every open connection; the client may go on sending.

        New connections are not affected. `heal` resets the half-closed ones.
        """
        for end in list(self._ends):
            if end._is_client:
                end.shut()

    def heal(self) -> None:
        """Forward again. Connections that lost bytes are reset, the others continue."""
        self.flow, self.delay_s = Forwarding.PASS, 0.0
        for end in list(self._ends):
            if end.is_broken or (end.peer and end.peer.is_broken):
                end.reset()
            else:
                end.forward()
        self.listen()

    def listen(self) -> None:
        """Accept connections; the socket listens at once, the event loop serves it later."""
        if self._socket is None:
            self._socket = socket.create_server((LOOPBACK, self.port))
            self._group.create_task(self._serve(self._socket), name="proxy serves")

    def connect(self, client: End) -> None:
        """Open the upstream connection for a client."""
        self._group.create_task(self._connect(client), name="proxy connects")

    def joined(self, end: End) -> None:
        """Register a connected end."""
        self._ends.add(end)
        if self._recordings is not None and end._is_client:
            end.recording = bytearray()
            self._recordings.append(end.recording)

    def left(self, end: End) -> None:
        """Forget a closed end."""
        self._ends.discard(end)

    def _refuse(self) -> None:
        if self._server:
            self._server.close()
        elif self._socket:
            self._socket.close()
        self._server = self._socket = None

    async def _serve(self, listening: socket.socket) -> None:
        if self._socket is not listening:
            return
        server = await asyncio.get_running_loop().create_server(
            lambda: End(self, is_client=True), sock=listening
        )
        if self._socket is listening:
            self._server = server
        else:
            server.close()

    async def _connect(self, client: End) -> None:
        loop = asyncio.get_running_loop()
        end = End(self, is_client=False)
        end.peer = client
        try:
            if isinstance(self._upstream, int):
                await loop.create_connection(lambda: end, self._host, self._upstream)
            else:
                await loop.create_unix_connection(lambda: end, str(self._upstream))
        except OSError:
            client.reset()
            return
        client.peer = end
        if client not in self._ends:
            end.reset()
        client.forward()


class Proxies:
    """Opens proxies, which all end with the block of `open_proxies`."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._opened: list[TcpProxy] = []

    def open(self, host: str, upstream: int | str | Path) -> TcpProxy:
        """Open one to `host` and a port, or to the path of a Unix socket (`host` is ignored)."""
        proxy = TcpProxy(host, upstream, self._group)
        proxy.listen()
        self._opened.append(proxy)
        return proxy

    def open_for(self, url: str) -> TcpProxy:
        """Open one to the server of an AMQP, HTTP or Postgres URL; see `TcpProxy.url`."""
        parts = urlsplit(url)
        folder = parse_qs(parts.query).get("host")
        host, upstream = (
            ("", f"{folder[0]}/.s.PGSQL.5432")
            if folder
            else (parts.hostname or LOOPBACK, parts.port)
        )
        assert upstream is not None, f"{url} has no port"
        return self.open(host, upstream)

    def cut(self) -> None:
        """Cut all of them."""
        for proxy in self._opened:
            proxy.cut()


@asynccontextmanager
async def open_proxies() -> AsyncIterator[Proxies]:
    async with asyncio.TaskGroup() as group:
        proxies = Proxies(group)
        try:
            yield proxies
        finally:
            proxies.cut()


@asynccontextmanager
async def open_proxy(host: str, upstream: int | str | Path) -> AsyncIterator[TcpProxy]:
    """Run a proxy as `Proxies.open` does."""
    async with open_proxies() as proxies:
        yield proxies.open(host, upstream)


@asynccontextmanager
async def open_proxy_for(url: str) -> AsyncIterator[TcpProxy]:
    """Run a proxy as `Proxies.open_for` does."""
    async with open_proxies() as proxies:
        yield proxies.open_for(url)
