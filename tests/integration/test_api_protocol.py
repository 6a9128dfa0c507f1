"""The limits of a connection, on a real socket."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from notifier.api.http.protocol import BoundedProtocol, ConnectionLimits
from notifier.api.http.server import open_server
from tests.unit.fakes_api import MemoryStore, make_api

TIMEOUT_S = 10.0
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
SUBMIT = b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
SHORT_TIMEOUTS = ConnectionLimits(head_timeout_s=0.2, unread_timeout_s=0.2)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = make_api(MemoryStore())
    async with open_server(app, host="127.0.0.1", port=0, grace_s=1) as port:
        yield port


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "limits", SHORT_TIMEOUTS)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield reader, writer
    finally:
        writer.close()


async def responses_to(port: int, *parts: bytes) -> bytes:
    """Sends the parts and returns every byte until the server closes the connection."""
    async with connected(port) as (reader, writer):
        with suppress(ConnectionError):  # the server may close the connection while we send
            for part in parts:
                writer.write(part)
                await writer.drain()
        return await reader.read()


async def test_a_silent_connection_is_closed(port: int, short_timeouts: None) -> None:
    assert await responses_to(port) == b""


async def test_a_slow_head_is_answered_408(port: int, short_timeouts: None) -> None:
    assert (await responses_to(port, LIVE + b"X-Slow: a")).startswith(b"HTTP/1.1 408 ")


async def test_a_slow_second_head_is_answered_408(port: int, short_timeouts: None) -> None:
    received = await responses_to(port, LIVE + b"\r\n" + LIVE)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in received


async def test_a_head_with_too_many_fields_is_answered_431(port: int) -> None:
    fields = b"".join(b"X-%d: a\r\n" % number for number in range(101))
    assert (await responses_to(port, LIVE + fields + b"\r\n")).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("end", [b"\r\n\r\n", b""], ids=["whole", "endless"])
async def test_a_head_that_is_too_large_is_answered_431(port: int, end: bytes) -> None:
    field = b"X-Large: " + b"a" * 70_000
    assert (await responses_to(port, LIVE + field + end)).startswith(b"HTTP/1.1 431 ")


async def test_a_head_below_both_limits_is_served(port: int) -> None:
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"a" * 500) for number in range(90))
    head = LIVE + fields + b"Connection: close\r\n\r\n"
    assert (await responses_to(port, head)).startswith(b"HTTP/1.1 200 ")


async def test_an_unread_body_that_stops_arriving_closes_the_connection(
    port: int, short_timeouts: None
) -> None:
    head = SUBMIT + b"Transfer-Encoding: chunked\r\n\r\n"
    assert (await responses_to(port, head + b"1\r\na\r\n")).startswith(b"HTTP/1.1 415 ")


async def test_an_unread_body_that_is_too_large_closes_the_connection(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "limits", ConnectionLimits(max_unread_bytes=100_000))
    async with connected(port) as (reader, writer):
        writer.write(SUBMIT + b"Transfer-Encoding: chunked\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 415 ")
        with pytest.raises(ConnectionError):
            await write_chunks_forever(writer)


async def write_chunks_forever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        await writer.drain()


async def test_a_connection_is_reused_after_an_unread_body(port: int) -> None:
    whole = SUBMIT + b"Content-Length: 1\r\n\r\na"
    received = await responses_to(port, whole, LIVE + b"Connection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 415 ")
    assert b"HTTP/1.1 200 " in received


async def test_without_free_files_the_longest_idle_connection_is_closed(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(BoundedProtocol, "limits", ConnectionLimits(reserved_files=soft_limit - 3))
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(port)) for _ in range(3)]
        assert (await responses_to(port, LIVE + b"Connection: close\r\n\r\n")).startswith(
            b"HTTP/1.1 200 "
        )
        assert await idle[0][0].read() == b""
        idle[2][1].write(LIVE + b"\r\n")
        assert (await idle[2][0].readline()).startswith(b"HTTP/1.1 200 ")
