"""Providers that answer as a test says, and count what reaches them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Reply = tuple[int, Mapping[str, object]]


@dataclass
class HttpScript:
    """A server for JSON requests; `reply` gets the document, and None leaves it unanswered."""

    reply: Callable[[Mapping[str, str]], Reply | None]
    port: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[float, str]] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/send"

    def calls_of(self, recipient: str) -> list[float]:
        """When the recipient was called."""
        return [at for at, whom in self.calls if whom == recipient]

    async def handle(self, request: web.Request) -> web.Response:
        document = dict(await request.post()) or await request.json()
        fields = {name: str(value) for name, value in _flat(document).items()}
        self.calls.append((time.monotonic(), fields.get("To") or fields.get("token", "")))
        reply = self.reply(fields)
        if reply is None:
            await self.answered.wait()
            reply = 201, {"sid": "late"}
        return web.json_response(reply[1], status=reply[0], headers=self.headers)


@asynccontextmanager
async def open_http_script(script: HttpScript) -> AsyncIterator[HttpScript]:
    """Serve inside the block."""
    app = web.Application()
    app.router.add_post("/{path:.*}", script.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    script.port = runner.addresses[0][1]
    try:
        yield script
    finally:
        script.answered.set()
        await runner.cleanup()


def _flat(document: Mapping[str, object]) -> Mapping[str, object]:
    message = document.get("message")
    return message if isinstance(message, dict) else document


@dataclass
class MailScript:
    """A mail server; `reply` gets a verb and its argument, and returns the line to send.

    `accepted` counts the mails by recipient, `asked` the RCPT commands. While `is_hanging`, the
    reply to a final dot waits until `answered`; `hanging` counts those that wait.
    """

    reply: Callable[[str, str], str | None]
    port: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    began: Counter[str] = field(default_factory=Counter)
    is_hanging: bool = False
    hanging: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipient = ""
        writer.write(b"220 ready\r\n")
        while line := await reader.readline():
            verb, _, argument = line.decode().strip().partition(" ")
            verb = verb.upper()
            self.began[verb] += 1
            if verb == "RCPT":
                recipient = argument.partition("<")[2].partition(">")[0]
                self.asked[recipient] += 1
            text = self.reply(verb, argument) or ("354 go" if verb == "DATA" else "250 2.0.0 ok")
            writer.write(f"{text}\r\n".encode())
            if verb == "DATA" and text.startswith("354"):
                await reader.readuntil(b"\r\n.\r\n")
                if self.is_hanging:
                    self.hanging += 1
                    await self.answered.wait()
                    self.hanging -= 1
                self.accepted[recipient] += 1
                writer.write(b"250 2.0.0 queued\r\n")
            if verb == "QUIT":
                break
        writer.close()


@asynccontextmanager
async def open_mail_script(script: MailScript) -> AsyncIterator[MailScript]:
    """Serve inside the block."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script.serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        script.answered.set()
        server.close()
