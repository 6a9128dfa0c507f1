"""The worker's small HTTP server: `/metrics`, `/health/live`, `/health/ready`.

It runs in the worker's own event loop on purpose: a process whose loop hangs is not live.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from notifier.domain.errors import ConfigError

_MAX_PORTS: Final = 100
_STOP_TIMEOUT_S: Final = 1.0


@asynccontextmanager
async def open_metrics_server(
    host: str,
    port: int,
    *,
    next_free: bool,
    render: Callable[[], tuple[bytes, str]],
    readiness: Callable[[], Sequence[str]],
) -> AsyncIterator[int]:
    """Serve during the block; yield the port.

    `readiness` returns the reasons why the process is not ready, none if it is ready. With
    `next_free` the next free port of 100 is taken if `port` is in use. Raises ConfigError when no
    port is free.
    """
    runner = web.AppRunner(
        _app(render, readiness),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_STOP_TIMEOUT_S,
    )
    await runner.setup()
    try:
        yield await _bind(runner, host, port, _MAX_PORTS if next_free else 1)
    finally:
        await runner.cleanup()


def _app(
    render: Callable[[], tuple[bytes, str]], readiness: Callable[[], Sequence[str]]
) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        body, content_type = render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def ready(_: web.Request) -> web.Response:
        if reasons := list(readiness()):
            return web.json_response({"status": "not ready", "reasons": reasons}, status=503)
        return web.json_response({"status": "ready"})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    return app


async def _bind(runner: web.AppRunner, host: str, port: int, tries: int) -> int:
    """Bind and return the first free port from `port` on. For 0 the system chooses one."""
    last = min(port + tries - 1, 65_535)
    for candidate in range(port, last + 1):
        try:
            await web.TCPSite(runner, host, candidate).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == last:
                raise ConfigError(
                    f"cannot listen on {host}:{candidate}: {error.strerror or error}",
                    key="worker.metrics_port",
                ) from error
        else:
            return int(runner.addresses[0][1])
    raise ConfigError(f"no free port from {port} to {last}", key="worker.metrics_port")
