"""The worker's small HTTP server: `/metrics`, `/health/live`, `/health/ready`.

It lives in the worker's own loop on purpose: a loop that hangs does not answer, and is not live.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from notifier.domain.errors import ConfigError

_TRIES: Final = 100
_STOP_S: Final = 1.0


@asynccontextmanager
async def open_metrics_server(
    host: str,
    port: int,
    *,
    next_free: bool,
    render: Callable[[], tuple[bytes, str]],
    readiness: Callable[[], Sequence[str]],
) -> AsyncIterator[int]:
    """Serve until the block is left; yields the port.

    `readiness` gives the reasons why the process is not ready; none means it is. With `next_free`
    a busy port gives way to the next one. Raises ConfigError when no port can be had.
    """
    runner = web.AppRunner(
        _app(render, readiness),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_STOP_S,
    )
    await runner.setup()
    try:
        yield await _bind(runner, host, port, _TRIES if next_free else 1)
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
    """Bind the first free port from `port` on; 0 lets the system choose."""
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
    raise ConfigError(f"no port to listen on from {port}", key="worker.metrics_port")
