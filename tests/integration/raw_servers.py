"""Servers that answer as a script says, also wrongly: for what the sandbox would never do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

MOMENT_S = 0.02
CLOSE = "close"
SILENCE = "silence"
HELLO = "250-raw\r\n250 ENHANCEDSTATUSCODES"


@dataclass
class RawServer:
    """Where it listens, how many connected, and every line or body it was sent."""

    port: int = 0
    connections: int = 0
    seen: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def open_raw(serve: Serve, raw: RawServer) -> AsyncIterator[RawServer]:
    """Serve each connection until the block is left; then cut all of them."""
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
async def open_smtp_script(answers: Mapping[str, str | list[str]]) -> AsyncIterator[RawServer]:
    """A mail server whose replies are set by verb, `greeting` and `.` among them.

    A list is used up first to last, its last entry stays. CLOSE closes, SILENCE never answers.
    """
    raw = RawServer()
    usual = {"greeting": "220 raw", "EHLO": HELLO, "DATA": "354 go", "QUIT": "221 bye"}
    left = {
        verb: list(reply) if isinstance(reply, list) else [reply]
        for verb, reply in {**usual, **answers}.items()
    }

    def reply_to(verb: str) -> str:
        replies = left.get(verb, ["250 ok"])
        return replies.pop(0) if len(replies) > 1 else replies[0]

    async def say(writer: asyncio.StreamWriter, verb: str) -> str:
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
        await say(writer, "greeting")
        while line := (await reader.readline()).decode().strip():
            raw.seen.append(line)
            verb = line.split(" ")[0].upper()
            if (await say(writer, verb)).startswith("354"):
                raw.seen.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                await say(writer, ".")

    async with open_raw(serve, raw):
        yield raw


@asynccontextmanager
async def open_raw_smtp(replies: Sequence[bytes]) -> AsyncIterator[RawServer]:
    """A mail server that says the next bytes at the start and after each line; then it closes.

    What waits for more than was said gets it, too, after a moment.
    """
    raw = RawServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            writer.write(reply)
            await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(MOMENT_S):
                    raw.seen.append((await reader.readline()).decode(errors="replace"))

    async with open_raw(serve, raw):
        yield raw


@asynccontextmanager
async def open_http_script(
    answer: Callable[[int], bytes | str], *, closes: bool = False
) -> AsyncIterator[RawServer]:
    """A web server whose n-th answer (from 1) is raw bytes, or CLOSE or SILENCE.

    It keeps alive, unless it `closes` after each answer.
    """
    raw = RawServer()
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            size = [line for line in head.lower().split("\r\n") if "content-length" in line]
            body = await reader.readexactly(int(size[0].split(":")[1])) if size else b""
            raw.seen.append(head + body.decode())
            asked += 1
            raw.arrived.set()
            said = answer(asked)
            if said == CLOSE:
                return
            if said == SILENCE:
                await asyncio.Event().wait()
            assert isinstance(said, bytes)
            writer.write(said)
            await writer.drain()
            if closes:
                writer.close()
                await writer.wait_closed()
                return

    async with open_raw(serve, raw):
        yield raw


def http_answer(status: str, body: bytes = b"{}", **headers: str) -> bytes:
    """One whole answer; `Retry_After` is the header Retry-After."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
