"""Opens and closes the sandbox's two servers, in the caller's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from errno import EADDRINUSE
from typing import Final

from aiohttp import web

from notifier.domain.errors import ConfigError
from notifier.sandbox.calls import CallLog
from notifier.sandbox.control import add_alert_routes, add_control_routes
from notifier.sandbox.fake_provider import FakeProvider
from notifier.sandbox.http import add_provider_routes
from notifier.sandbox.smtp import MailServer

_LOOPBACK: Final = "127.0.0.1"
_MAX_BODY: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Where it listens, and its log for those in the same process."""

    host: str
    http_port: int
    smtp_port: int
    log: CallLog

    @property
    def http_url(self) -> str:
        """The root of its HTTP side, without a slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.http_port}"


@asynccontextmanager
async def open_sandbox(
    *, host: str = _LOOPBACK, http_port: int = 8025, smtp_port: int = 2525
) -> AsyncIterator[Sandbox]:
    """Both servers; port 0 takes a free one. Raises ConfigError for a port that cannot be had.

    Leaving cuts every session, also those that hang.
    """
    desk = FakeProvider()
    async with AsyncExitStack() as opened:
        smtp = await opened.enter_async_context(_open_smtp(desk, host, smtp_port))
        http = await opened.enter_async_context(_open_http(desk, host, http_port))
        yield Sandbox(host=host, http_port=http, smtp_port=smtp, log=desk.log)


@contextmanager
def _explained(setting: str, host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "in use" if error.errno == EADDRINUSE else str(error)
        variable = f"NOTIFIER_SANDBOX__{setting.upper()}"
        raise ConfigError(
            f"the sandbox cannot listen on {host}:{port}: {why}; choose another with {variable}",
            key=f"sandbox.{setting}",
        ) from error


@asynccontextmanager
async def _open_smtp(desk: FakeProvider, host: str, port: int) -> AsyncIterator[int]:
    sessions: set[MailServer] = set()
    with _explained("smtp_port", host, port):
        server = await asyncio.get_running_loop().create_server(
            lambda: MailServer(desk, sessions), host, port
        )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for session in list(sessions):
            await session.end()
        await server.wait_closed()


@asynccontextmanager
async def _open_http(desk: FakeProvider, host: str, port: int) -> AsyncIterator[int]:
    app = web.Application(client_max_size=_MAX_BODY)
    add_provider_routes(app, desk)
    add_control_routes(app, desk)
    add_alert_routes(app)
    # A handler whose client went away is cancelled: so a hang ends with its client.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        with _explained("http_port", host, port):
            await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
