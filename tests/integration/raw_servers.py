"""Servers that send scripted replies, including invalid ones that the sandbox never sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

READ_TIMEOUT_S = 0.02
CLOSE = "close"
SILENCE = "silence"
HELLO = "250-raw\r\n250 ENHANCEDSTATUSCODES"


@dataclass
class RawServer:
    """Its port, the number of connections so far, and every line or body that it received."""

    port: int = 0
    connections: int = 0
    seen: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def open_raw(serve: Serve, raw: RawServer) -> AsyncIterator[RawServer]:
    """Serves connections inside the block. Leaving it aborts all of them."""
    serving: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        task.add_done_callback(serving.discard)
        raw.connections += 1
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        if serving:
            await asyncio.wait(list(serving))


@asynccontextmanager
async def open_smtp_script(replies: Mapping[str, str | list[str]]) -> AsyncIterator[RawServer]:
    """A mail server with one reply per verb; `greeting` and `.` count as verbs.

    The replies of a list are sent one after the other, and its last one again and again. CLOSE
    closes the connection, SILENCE never replies.
    """
    raw = RawServer()
    defaults = {"greeting": "220 raw", "EHLO": HELLO, "DATA": "354 go", "QUIT": "221 bye"}
    remaining = {
        verb: list(reply) if isinstance(reply, list) else [reply]
        for verb, reply in {**defaults, **replies}.items()
    }

    def reply_to(verb: str) -> str:
        queue = remaining.get(verb, ["250 ok"])
        return queue.pop(0) if len(queue) > 1 else queue[0]

    async def send_reply(writer: asyncio.StreamWriter, verb: str) -> str:
        raw.arrived.set()
        reply = reply_to(verb)
        if reply == CLOSE:
            raise ConnectionAbortedError
        if reply == SILENCE:
            await asyncio.Event().wait()
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        return reply

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send_reply(writer, "greeting")
        while line := (await reader.readline()).decode().strip():
            raw.seen.append(line)
            verb = line.split(" ")[0].upper()
            if (await send_reply(writer, verb)).startswith("354"):
                raw.seen.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                await send_reply(writer, ".")

    async with open_raw(serve, raw):
        yield raw


@asynccontextmanager
async def open_raw_smtp(replies: Sequence[bytes]) -> AsyncIterator[RawServer]:
    """A mail server that sends the next bytes at the start and after each line, then closes.

    It also sends the next bytes to a client that sends nothing for READ_TIMEOUT_S.
    """
    raw = RawServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            writer.write(reply)
            await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_TIMEOUT_S):
                    raw.seen.append((await reader.readline()).decode(errors="replace"))

    async with open_raw(serve, raw):
        yield raw


@asynccontextmanager
async def open_http_script(
    response: Callable[[int], bytes | str], *, closes: bool = False
) -> AsyncIterator[RawServer]:
    """A web server whose n-th response (from 1) is raw bytes, or CLOSE or SILENCE.

    It keeps connections alive, unless it `closes` them after each response.
    """
    raw = RawServer()
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            size = [line for line in head.lower().split("\r\n") if "content-length" in line]
            body = await reader.readexactly(int(size[0].split(":")[1])) if size else b""
            raw.seen.append(head + body.decode())
            requests += 1
            raw.arrived.set()
            sent = response(requests)
            if sent == CLOSE:
                return
            if sent == SILENCE:
                await asyncio.Event().wait()
            assert isinstance(sent, bytes)
            writer.write(sent)
            await writer.drain()
            if closes:
                writer.close()
                await writer.wait_closed()
                return

    async with open_raw(serve, raw):
        yield raw


def http_response(status: str, body: bytes = b"{}", **headers: str) -> bytes:
    """A whole response; the keyword `Retry_After` becomes the header Retry-After."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
