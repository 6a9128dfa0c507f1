"""Callers that ask for too much before they ask for anything, on a real socket."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from notifier.api.http.protocol import BoundedProtocol, ConnectionBounds
from notifier.api.http.server import open_server
from tests.unit.fakes_api import MemoryStore, make_api

SOON_S = 10.0
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
SUBMIT = b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
QUICK = ConnectionBounds(head_within_s=0.2, unread_within_s=0.2)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = make_api(MemoryStore())
    async with open_server(app, host="127.0.0.1", port=0, grace_s=1) as port:
        yield port


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "bounds", QUICK)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(SOON_S):
            yield reader, writer
    finally:
        writer.close()


async def told(port: int, *parts: bytes) -> bytes:
    """All that is answered until the server ends the connection."""
    async with connected(port) as (reader, writer):
        with suppress(ConnectionError):  # it may end while we speak
            for part in parts:
                writer.write(part)
                await writer.drain()
        return await reader.read()


async def test_a_connection_that_says_nothing_is_ended(port: int, quick: None) -> None:
    assert await told(port) == b""


async def test_a_head_that_takes_too_long_is_told_so(port: int, quick: None) -> None:
    assert (await told(port, LIVE + b"X-Slow: a")).startswith(b"HTTP/1.1 408 ")


async def test_a_second_head_that_takes_too_long_is_told_so(port: int, quick: None) -> None:
    answers = await told(port, LIVE + b"\r\n" + LIVE)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answers


async def test_a_head_with_too_many_fields_is_refused(port: int) -> None:
    fields = b"".join(b"X-%d: a\r\n" % number for number in range(101))
    assert (await told(port, LIVE + fields + b"\r\n")).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("end", [b"\r\n\r\n", b""], ids=["whole", "endless"])
async def test_a_head_that_is_too_large_is_refused(port: int, end: bytes) -> None:
    field = b"X-Large: " + b"a" * 70_000
    assert (await told(port, LIVE + field + end)).startswith(b"HTTP/1.1 431 ")


async def test_a_head_of_many_and_large_fields_is_served(port: int) -> None:
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"a" * 500) for number in range(90))
    head = LIVE + fields + b"Connection: close\r\n\r\n"
    assert (await told(port, head)).startswith(b"HTTP/1.1 200 ")


async def test_a_body_without_an_end_is_answered_and_then_ended(port: int, quick: None) -> None:
    head = SUBMIT + b"Transfer-Encoding: chunked\r\n\r\n"
    assert (await told(port, head + b"1\r\na\r\n")).startswith(b"HTTP/1.1 415 ")


async def test_a_body_that_goes_on_after_its_answer_is_ended_by_its_size(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "bounds", ConnectionBounds(unread_bytes=100_000))
    async with connected(port) as (reader, writer):
        writer.write(SUBMIT + b"Transfer-Encoding: chunked\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 415 ")
        with pytest.raises(ConnectionError):
            await endless(writer)


async def endless(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        await writer.drain()


async def test_a_connection_goes_on_after_a_body_that_nobody_read(port: int, quick: None) -> None:
    whole = SUBMIT + b"Content-Length: 1\r\n\r\na"
    answers = await told(port, whole, LIVE + b"Connection: close\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 415 ")
    assert b"HTTP/1.1 200 " in answers


async def test_where_files_run_out_who_waits_longest_makes_room(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(BoundedProtocol, "bounds", ConnectionBounds(files_kept=soft - 3))
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(port)) for _ in range(3)]
        assert (await told(port, LIVE + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await idle[0][0].read() == b""
        idle[2][1].write(LIVE + b"\r\n")
        assert (await idle[2][0].readline()).startswith(b"HTTP/1.1 200 ")
