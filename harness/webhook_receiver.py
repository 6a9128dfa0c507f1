"""Endpoints of webhooks over HTTP: each keeps what it got, and answers as its caller sets it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

HANG = "hang"
"""The status of an endpoint that does not answer."""


class Received(NamedTuple):
    """A request: its headers in lower case and its body."""

    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def event(self) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.json.decode(self.body)
        return document


class Receiver:
    """Serves /NAME for any name; `answers` says the status of each, 204 by default."""

    def __init__(self) -> None:
        self.answers: dict[str, int | str] = {}
        self.headers: dict[str, str] = {}
        self.received: dict[str, list[Received]] = defaultdict(list)
        self.running: dict[str, int] = defaultdict(int)
        self.most_running: dict[str, int] = defaultdict(int)
        self.delay_s = 0.0
        self.url = ""
        self._stop = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        body = await request.read()
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.received[name].append(Received(headers, body, asyncio.get_running_loop().time()))
        self.running[name] += 1
        self.most_running[name] = max(self.most_running[name], self.running[name])
        try:
            answer = self.answers.get(name, 204)
            if answer == HANG:
                await self._stop.wait()
            await asyncio.sleep(self.delay_s)
            status = int(answer) if answer != HANG else 503
            return web.Response(status=status, body=b"secret of the answer", headers=self.headers)
        finally:
            self.running[name] -= 1

    def stop(self) -> None:
        self._stop.set()

    def ids(self, name: str) -> list[str]:
        """The id of each event that an endpoint got, in their order."""
        return [each.headers["webhook-id"] for each in self.received[name]]


@asynccontextmanager
async def open_receiver(context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver at a free port of the loopback, with TLS if there is a context."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{name}", receiver.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    scheme, host = ("https", "localhost") if context else ("http", "127.0.0.1")
    receiver.url = f"{scheme}://{host}:{port}"
    try:
        yield receiver
    finally:
        receiver.stop()
        await runner.cleanup()
