"""The worker's small HTTP server: `/metrics`, `/health/live`, `/health/ready`.

It runs in the worker's own event loop on purpose: a process whose loop hangs is not live.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from notifier.domain.errors import ConfigError
from notifier.ports.health import MetricsSource, ReadinessCheck

_MAX_PORTS: Final = 100
_STOP_TIMEOUT_S: Final = 1.0


@asynccontextmanager
async def open_metrics_server(
    host: str,
    port: int,
    *,
    next_free: bool,
    readiness: ReadinessCheck,
    metrics: MetricsSource,
) -> AsyncIterator[int]:
    """Serve during the block; yield the port.

    With `next_free` the next free port of 100 is taken if `port` is in use. Raises ConfigError when
    no port is free.
    """
    runner = web.AppRunner(
        _app(_Handlers(readiness, metrics)),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_STOP_TIMEOUT_S,
    )
    await runner.setup()
    try:
        yield await _bind(runner, host, port, _MAX_PORTS if next_free else 1)
    finally:
        await runner.cleanup()


class _Handlers:
    def __init__(self, readiness: ReadinessCheck, metrics: MetricsSource) -> None:
        self._readiness = readiness
        self._metrics = metrics

    async def metrics(self, _: web.Request) -> web.Response:
        body, content_type = self._metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def live(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def ready(self, _: web.Request) -> web.Response:
        if reasons := list(self._readiness.why_not_ready()):
            return web.json_response({"status": "not ready", "reasons": reasons}, status=503)
        return web.json_response({"status": "ready"})


def _app(handlers: _Handlers) -> web.Application:
    app = web.Application()
    app.router.add_get("/metrics", handlers.metrics)
    app.router.add_get("/health/live", handlers.live)
    app.router.add_get("/health/ready", handlers.ready)
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
