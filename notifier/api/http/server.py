"""Serves the app on a port, in the caller's event loop. Signals are left to the caller."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Final

import uvicorn
from litestar.types import ASGIApp
from typing_extensions import override

from notifier.api.http.protocol import BoundedProtocol
from notifier.api.http.public_address import WithoutPrefix
from notifier.api.http.user_paths import UserPaths
from notifier.domain.errors import ConfigError

BACKLOG: Final = 2048


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers; `started_event` is set once it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.started_event = asyncio.Event()

    @contextlib.contextmanager
    @override
    def capture_signals(self) -> Iterator[None]:
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.started_event.set()


def bind(host: str, port: int, *, share_port: bool = False) -> socket.socket:
    """Binds and listens. Port 0 takes a free port.

    With `share_port` several processes may bind the same port, if each of them sets it; the kernel
    distributes the connections. Raises ConfigError with one line for the operator.
    """
    try:
        return socket.create_server(
            (host, port), family=_family(host), backlog=BACKLOG, reuse_port=share_port
        )
    except OSError as error:
        raise ConfigError(_bind_error(error, host, port), key="api.port") from error


@contextlib.asynccontextmanager
async def open_server(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    grace_s: float,
    share_port: bool = False,
    prefix: str = "",
) -> AsyncIterator[int]:
    """Serves inside the block and yields the port. Raises ConfigError if it cannot bind.

    The app is also served below the path `prefix`, for proxies that do not remove it.

    Leaving the block stops accepting connections, answers the requests in flight, and cancels
    the remaining ones after `grace_s`.
    """
    served: ASGIApp = UserPaths(app)
    if prefix:
        served = WithoutPrefix(served, prefix)
    listener = bind(host, port, share_port=share_port)
    with contextlib.closing(listener):
        server = _Server(_config(served, grace_s))
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([listener]), name="http-server")
            await server.started_event.wait()
            try:
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True


def _config(app: ASGIApp, grace_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bind_error(error: OSError, host: str, port: int) -> str:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            reason = "is in use: another process listens there; choose another with --port"
        case errno.EACCES:
            reason = "needs more rights than this process has; choose another with --port"
        case errno.EADDRNOTAVAIL:
            reason = "is not an address of this machine; choose another with --host"
        case _:
            reason = f"cannot be listened on: {error.strerror or error}"
    return f"{address} {reason}"
