"""A mail server that pipelines, takes a limited number of connections, and cuts where told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

GREETING = b"220 ready\r\n"
EHLO = b"250-limited\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n"


@dataclass
class LimitedServer:
    """Its behaviour and what it saw.

    `replies` are by verb, those of `once` are sent one time. The first `failing` connections answer
    `failure` to every RCPT, and so does each after `mails_per_session` mails. Over
    `max_connections` a client gets `refusal` and is disconnected. A mail takes `mail_s`. With
    `cut_after_sent` or `cut_after_received` a connection ends after so many bytes; what comes after
    is not read.
    """

    max_connections: int = 1_000
    refusal: bytes = b"421 Too many concurrent SMTP connections; please try again later.\r\n"
    mail_s: float = 0.0
    replies: dict[str, bytes] = field(default_factory=dict)
    once: dict[str, bytes] = field(default_factory=dict)
    failing: int = 0
    mails_per_session: int = 1_000
    failure: bytes = b"450 4.3.2 Service currently unavailable\r\n"
    cut_after_sent: int | None = None
    cut_after_received: int | None = None
    port: int = 0
    open_now: int = 0
    peak: int = 0
    accepted_connections: int = 0
    refused_connections: int = 0
    sent_bytes: int = 0
    received: bytearray = field(default_factory=bytearray)
    mails: list[bytes] = field(default_factory=list)


class _Cut(Exception):
    """The connection ends here."""


@dataclass
class _Client:
    server: LimitedServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_failing: bool = False
    mails: int = 0

    async def send(self, data: bytes) -> None:
        left = self.server.cut_after_sent
        if left is not None and self.server.sent_bytes + len(data) >= left:
            data = data[: max(0, left - self.server.sent_bytes)]
            self.writer.write(data)
            await self.writer.drain()
            raise _Cut
        self.server.sent_bytes += len(data)
        self.writer.write(data)
        await self.writer.drain()

    async def read_until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            left = self.server.cut_after_received
            if left is not None and len(self.server.received) >= left:
                raise _Cut
            byte = await self.reader.readexactly(1)
            self.server.received += byte
            data += byte
        return data

    def reply(self, verb: str, usual: bytes) -> bytes:
        if verb == "RCPT" and (self.is_failing or self.mails >= self.server.mails_per_session):
            return self.server.failure
        return self.server.once.pop(verb, None) or self.server.replies.get(verb, usual)

    async def talk(self) -> None:
        await self.send(GREETING)
        while True:
            line = await self.read_until(b"\r\n")
            verb = line.split(b" ")[0].strip().upper().decode()
            if verb == "EHLO":
                await self.send(self.reply(verb, EHLO))
            elif verb == "QUIT":
                await self.send(b"221 bye\r\n")
                return
            elif verb == "DATA":
                reply = self.reply(verb, b"354 go\r\n")
                await self.send(reply)
                if reply.startswith(b"354"):
                    await self.text()
            else:
                await self.send(self.reply(verb, b"250 ok\r\n"))

    async def text(self) -> None:
        # A lone dot directly after DATA ends an empty mail.
        text = await self.read_until(b"\r\n")
        if text != b".\r\n":
            text += await self.read_until(b"\r\n.\r\n")
        self.server.mails.append(text)
        self.mails += 1
        await asyncio.sleep(self.server.mail_s)
        await self.send(self.reply(".", b"250 2.0.0 queued\r\n"))


@asynccontextmanager
async def open_limited(server: LimitedServer) -> AsyncIterator[LimitedServer]:
    """Serve during the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if server.open_now >= server.max_connections:
            server.refused_connections += 1
            writer.write(server.refusal)
            writer.close()
            return
        server.open_now += 1
        server.accepted_connections += 1
        server.peak = max(server.peak, server.open_now)
        try:
            is_failing = server.accepted_connections <= server.failing
            await _Client(server, reader, writer, is_failing=is_failing).talk()
        except (_Cut, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            server.open_now -= 1
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", server.port)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))
