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
from notifier.lifecycle import background_task
from notifier.sandbox.calls import CallLog
from notifier.sandbox.control import AlertRoutes, ControlRoutes
from notifier.sandbox.fake_provider import FakeProvider
from notifier.sandbox.http import ProviderRoutes
from notifier.sandbox.receipts import ReceiptSender
from notifier.sandbox.smtp import SmtpSession

_LOOPBACK: Final = "127.0.0.1"
_MAX_BODY_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The addresses of an open sandbox, and its call log for callers in the same process."""

    host: str
    http_port: int
    smtp_port: int
    log: CallLog

    @property
    def http_url(self) -> str:
        """The root URL of the HTTP server, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.http_port}"


@asynccontextmanager
async def open_sandbox(
    *, host: str = _LOOPBACK, http_port: int = 8025, smtp_port: int = 2525
) -> AsyncIterator[Sandbox]:
    """Runs both servers inside the block. Port 0 takes a free port.

    Leaving the block ends every session, also hanging ones. Raises ConfigError for a port
    that cannot be bound.
    """
    async with AsyncExitStack() as stack:
        receipts = ReceiptSender()
        provider = FakeProvider(receipts)
        smtp = await stack.enter_async_context(_open_smtp(provider, host, smtp_port))
        http = await stack.enter_async_context(_open_http(provider, host, http_port))
        await stack.enter_async_context(background_task(receipts, "receipts"))
        yield Sandbox(host=host, http_port=http, smtp_port=smtp, log=provider.log)


@contextmanager
def _bind_errors(setting: str, host: str, port: int) -> Iterator[None]:
    """Translates an OSError of the block into a ConfigError that names the setting."""
    try:
        yield
    except OSError as error:
        reason = "in use" if error.errno == EADDRINUSE else str(error)
        variable = f"NOTIFIER_SANDBOX__{setting.upper()}"
        raise ConfigError(
            f"the sandbox cannot listen on {host}:{port}: {reason}; "
            f"choose another port with {variable}",
            key=f"sandbox.{setting}",
        ) from error


@asynccontextmanager
async def _open_smtp(provider: FakeProvider, host: str, port: int) -> AsyncIterator[int]:
    sessions: set[SmtpSession] = set()
    with _bind_errors("smtp_port", host, port):
        server = await asyncio.get_running_loop().create_server(
            lambda: SmtpSession(provider, sessions), host, port
        )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for session in list(sessions):
            await session.close()
        await server.wait_closed()


@asynccontextmanager
async def _open_http(provider: FakeProvider, host: str, port: int) -> AsyncIterator[int]:
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    ProviderRoutes(provider).add_to(app)
    ControlRoutes(provider).add_to(app)
    AlertRoutes().add_to(app)
    # handler_cancellation: a hang ends when its client disconnects.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        with _bind_errors("http_port", host, port):
            await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
