"""HTTP requests through libcurl on the event loop: the answer, or how far the request got.

A request is written at most once. libcurl itself would write it again when a kept connection is
closed before an answer, which the pre-request callback prevents.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import pycurl

from notifier.adapters.providers.http.closed_sockets import ClosedSockets
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.threaded_read import ThreadedRead

MAX_BODY: Final = 64 * 1024
"""Bytes of a response that are read. The connection of a longer one is closed."""
CLOSE_TIMEOUT_S: Final = 0.5
CA_CACHE_S: Final = 60
"""Seconds for which read authorities are kept: a corrected file needs no restart."""
_MIN_STATUS: Final = 200
_KEEP_ALIVE: Final = re.compile(
    rb"^keep-alive:.*?\btimeout\s*=\s*(\d{1,6})", re.IGNORECASE | re.MULTILINE
)
_REFUSED_STREAM: Final = b"REFUSED_STREAM"

_PASS: Final[int] = pycurl.PREREQFUNC_OK
_ABORT: Final[int] = pycurl.PREREQFUNC_ABORT
_SOCKET_USABLE: Final[int] = pycurl.SOCKOPT_OK

# libcurl's names that pycurl does not have.
_SUPPRESS_CONNECT_HEADERS: Final = 265
_CA_CACHE_TIMEOUT: Final = 321
E_SSL_CLIENTCERT: Final = 98
"""The server requires a client certificate."""


class AddressGuard(Protocol):
    """Says to which addresses a client may connect."""

    def allows(self, address: str) -> bool:
        """Whether the client may connect to an IP address."""
        ...


class Step(StrEnum):
    """How far a request without an answer got."""

    WAIT = "waiting for a free connection"
    CONNECT = "connecting"
    WRITE = "connected, nothing written"
    PART = "a part of the request written"
    WHOLE = "the whole request written"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response from its status line on.

    `is_whole` is False if its head or body broke off, was invalid or too long.
    """

    status: int
    head: bytes
    body: bytes
    is_whole: bool

    def header(self, name: str) -> str | None:
        """The value of a header, of the last one if it occurs several times."""
        found = re.findall(rb"(?im)^%s:[ \t]*(.*?)[ \t]*\r?$" % re.escape(name.encode()), self.head)
        return found[-1].decode("latin-1") if found else None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without an answer: libcurl's error code and text.

    `proxy_status` is what a proxy answered to CONNECT, 0 if there was none. `is_reused` means that
    the request used, or was to use, a kept connection. `is_refused`: the guard refused an address.
    """

    step: Step
    error: int
    text: str
    proxy_status: int = 0
    is_reused: bool = False
    is_refused: bool = False


class HttpClient:
    """Sends requests of one provider over kept connections, `max_connections` at a time.

    With a guard it is asked about each address right before a connection to it is opened, so that
    the address that was checked is the one that is called, whatever a name server says later.
    """

    def __init__(
        self, name: str, settings: HttpSettings, guard: AddressGuard | None = None
    ) -> None:
        self._name = name
        self._settings = settings
        self._guard = guard
        self._multi = pycurl.AsyncCurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, settings.max_connections)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._slots = asyncio.Semaphore(settings.max_connections)
        self._sockets = ClosedSockets()
        self._idle: list[_Exchange] = []
        self._idle_s = math.ceil(settings.idle_s)

    async def request(
        self, url: str, headers: Mapping[str, str], body: bytes | None, *, is_fresh: bool = False
    ) -> Answer | Failure:
        """Send one request; `is_fresh` opens a new connection for it. Takes at most `timeout_s`.

        Cancelled, it closes the connection.
        """
        timeout_s = self._settings.timeout_s
        if self._slots.locked():
            clock = asyncio.get_running_loop().time
            deadline = clock() + timeout_s
            try:
                async with asyncio.timeout_at(deadline):
                    await self._slots.acquire()
            except TimeoutError:
                return Failure(Step.WAIT, pycurl.E_OPERATION_TIMEDOUT, "all connections busy")
            timeout_s = deadline - clock()
        else:
            await self._slots.acquire()
        try:
            return await self._exchange(url, headers, body, timeout_s, is_fresh=is_fresh)
        finally:
            self._slots.release()

    async def connect(self, url: str, timeout_s: float) -> Failure | None:
        """Open a connection to the server of a URL, over the proxy and TLS, and send nothing."""
        exchange = self._new_exchange()
        exchange.curl.setopt(pycurl.CONNECT_ONLY, 1)
        exchange.prepare(url, {}, None, timeout_s, self._idle_s, is_fresh=True)
        try:
            await self._multi.perform(exchange.curl)
        except pycurl.error as error:
            return exchange.failure(error, 0)
        return None

    async def close(self) -> None:
        """Close all connections.

        libcurl waits for name servers that do not answer; this does not, and leaves a thread.
        """
        await asyncio.sleep(0)  # cancelled requests leave the multi handle
        closed = ThreadedRead(f"close {self._name}", self._close_in_thread)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await closed()
        except TimeoutError:
            pass

    def _close_in_thread(self) -> None:
        asyncio.run(self._multi.aclose())

    async def _exchange(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        *,
        is_fresh: bool,
    ) -> Answer | Failure:
        exchange = self._idle.pop() if self._idle else self._new_exchange()
        exchange.prepare(url, headers, body, timeout_s, self._idle_s, is_fresh=is_fresh)
        try:
            await self._multi.perform(exchange.curl)
        except pycurl.error as error:
            result = exchange.answer(is_whole=False)
            return result or exchange.failure(error, len(body or b""))
        finally:
            self._idle.append(exchange)  # also when cancelled: the multi handle is rid of it then
        result = exchange.answer(is_whole=True)
        if result is None:
            return Failure(Step.WHOLE, pycurl.E_GOT_NOTHING, "no status line")
        if exchange.curl.getinfo(pycurl.NUM_CONNECTS):
            self._learn_idle_time(result.head)
        return result

    def _new_exchange(self) -> _Exchange:
        return _Exchange(self._settings, self._sockets, self._guard)

    def _learn_idle_time(self, head: bytes) -> None:
        """Keep connections for less time than the server says it does."""
        if found := _KEEP_ALIVE.search(head):
            self._idle_s = max(1, min(self._idle_s, int(found[1]) - 1))


class _Exchange:
    """A handle of libcurl, used for one request after another."""

    def __init__(
        self, settings: HttpSettings, sockets: ClosedSockets, guard: AddressGuard | None
    ) -> None:
        self.curl = pycurl.Curl()
        self._sockets = sockets
        self._guard = guard
        self._opening: socket.socket | None = None
        self._is_refused = False
        self._method = settings.method
        self._requests = 0
        self._may_repeat = False
        self._found_closed = False
        self._head: list[bytes] = []
        self._body = bytearray()
        for option, value in _options(settings):
            self.curl.setopt(option, value)
        self.curl.setopt(pycurl.SOCKOPTFUNCTION, self._socket_created)
        if guard is not None:
            self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self.curl.setopt(pycurl.PREREQFUNCTION, self._before_request)
        self.curl.setopt(pycurl.HEADERFUNCTION, self._head.append)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._read)
        if settings.http_version == "2":
            self.curl.setopt(pycurl.VERBOSE, 1)
            self.curl.setopt(pycurl.DEBUGFUNCTION, self._notice)

    def prepare(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        idle_s: int,
        *,
        is_fresh: bool,
    ) -> None:
        """Set what differs between requests."""
        curl = self.curl
        self._requests, self._may_repeat, self._found_closed = 0, False, False
        self._is_refused = False
        self._head.clear()
        self._body = bytearray()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.HTTPHEADER, _header_lines(headers))
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(timeout_s * 1000)))
        curl.setopt(pycurl.MAXAGE_CONN, idle_s)
        curl.setopt(pycurl.FRESH_CONNECT, int(is_fresh))
        if body is not None or self._method != "GET":
            curl.setopt(pycurl.POSTFIELDS, body or b"")

    def answer(self, *, is_whole: bool) -> Answer | None:
        """The response, or None if no final status line arrived."""
        status = self.curl.getinfo(pycurl.RESPONSE_CODE) if self._head else 0
        if status < _MIN_STATUS:
            return None
        return Answer(status, b"".join(self._head), bytes(self._body[:MAX_BODY]), is_whole)

    def failure(self, error: pycurl.error, body_size: int) -> Failure:
        """What happened to a request without an answer."""
        code, text = error.args
        return Failure(
            step=self._step(body_size),
            error=code,
            text=text,
            proxy_status=0 if self._requests else self.curl.getinfo(pycurl.HTTP_CONNECTCODE),
            is_reused=(
                self._found_closed
                or self._requests > 1
                or not self.curl.getinfo(pycurl.NUM_CONNECTS)
            ),
            is_refused=self._is_refused,
        )

    def _step(self, body_size: int) -> Step:
        """How far the request got. A head that was written in part counts as written."""
        if not self._requests:
            return Step.CONNECT
        written = self.curl.getinfo(pycurl.REQUEST_SIZE)
        if not written or self._may_repeat:  # the server has not read what it refused
            return Step.WRITE
        return Step.PART if written <= body_size else Step.WHOLE

    def _open_socket(
        self, _purpose: int, address: tuple[int, int, int, tuple[str, int]]
    ) -> socket.socket | int:
        """Open a socket to an address, if the guard allows it. libcurl then tries the next one."""
        family, kind, protocol, (host, *_) = address
        if self._guard is not None and not self._guard.allows(host):
            self._is_refused = True
            refused: int = pycurl.SOCKET_BAD
            return refused
        self._opening = socket.socket(family, kind, protocol)
        return self._opening

    def _socket_created(self, fd: int, _purpose: int) -> int:
        if self._opening is not None:  # `fd` is a copy of it
            self._opening.close()
            self._opening = None
        self._sockets.add(fd)
        return _SOCKET_USABLE

    def _before_request(self, _host: str, local_host: str, _port: int, local_port: int) -> int:
        """Let the request pass once, on an open connection. Called before it is written."""
        self._requests += 1
        if self._requests > 1 and not self._may_repeat:
            return _ABORT
        self._may_repeat = False
        self._head.clear()  # of a proxy's answer to CONNECT
        if self._sockets.is_closed((local_host, local_port)):
            self._found_closed = True
            return _ABORT
        return _PASS

    def _read(self, part: bytes) -> int | None:
        """Keep a part of the body. Returns 0, which ends the transfer, when there is enough."""
        self._body += part
        return None if len(self._body) < MAX_BODY else 0

    def _notice(self, kind: int, text: bytes) -> None:
        """Allow a repetition after REFUSED_STREAM: the server has not read the request.

        RFC 9113 8.7. libcurl reports it only in this text.
        """
        if kind == pycurl.INFOTYPE_TEXT and text.startswith(_REFUSED_STREAM):
            self._may_repeat = True


@asynccontextmanager
async def open_client(
    name: str, settings: HttpSettings, guard: AddressGuard | None = None
) -> AsyncIterator[HttpClient]:
    """A client; it connects at the first request."""
    client = HttpClient(name, settings, guard)
    try:
        yield client
    finally:
        await client.close()


def _options(settings: HttpSettings) -> Iterable[tuple[int, object]]:
    """What is the same for all requests."""
    yield pycurl.NOSIGNAL, 1
    yield _SUPPRESS_CONNECT_HEADERS, 1
    yield pycurl.PATH_AS_IS, 1
    yield pycurl.USERAGENT, "Notifier"
    yield pycurl.CONNECTTIMEOUT_MS, max(1, int(settings.connect_timeout_s * 1000))
    yield pycurl.CUSTOMREQUEST, settings.method
    yield pycurl.PROXY, settings.proxy  # "" also keeps libcurl from reading the environment
    yield pycurl.NOPROXY, ""
    yield from _tls_options(settings)
    if settings.http_version == "2":
        yield pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS
        yield pycurl.PIPEWAIT, 1
    else:
        yield pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1


def _tls_options(settings: HttpSettings) -> Iterable[tuple[int, object]]:
    trusted = ssl.get_default_verify_paths()
    yield _CA_CACHE_TIMEOUT, CA_CACHE_S
    if settings.ca_file:
        yield pycurl.CAINFO, settings.ca_file
        yield pycurl.PROXY_CAINFO, settings.ca_file
    else:
        for file in filter(None, (trusted.cafile,)):
            yield pycurl.CAINFO, file
            yield pycurl.PROXY_CAINFO, file
        for folder in filter(None, (trusted.capath,)):
            yield pycurl.CAPATH, folder
            yield pycurl.PROXY_CAPATH, folder
    if settings.cert_file:
        yield pycurl.SSLCERT, settings.cert_file
        yield pycurl.SSLKEY, settings.key_file or settings.cert_file
        yield pycurl.KEYPASSWD, settings.key_password


def _header_lines(headers: Mapping[str, str]) -> list[bytes]:
    """The headers as libcurl takes them.

    `Name:` removes a header that libcurl would send, `Name;` sends an empty one.
    """
    lines = [
        f"{name}: {value}".encode() if value.strip() else f"{name};".encode()
        for name, value in headers.items()
    ]
    lines.append(b"Expect:")
    if "Content-Type" not in headers and "content-type" not in map(str.lower, headers):
        lines.append(b"Content-Type:")
    return lines
