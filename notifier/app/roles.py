"""`notifier api` and `notifier worker`: one process each, on the user's Postgres and RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from notifier.adapters.telemetry.health import open_metrics_server
from notifier.app.accepting import open_api
from notifier.app.process import open_process
from notifier.app.sending import open_worker, provider_settings
from notifier.settings import Settings, WorkerSettings

log = structlog.get_logger()


async def run_api(
    settings: Settings, *, stop: asyncio.Event, announce: Callable[[int], None] = lambda _: None
) -> None:
    """Serve the API until `stop`, then drain; `announce` is told the port.

    Raises ConfigError, alone or in a group, for a wrong setting, a port in use or a database
    without our tables.
    """
    async with (
        open_process(settings, kind="api", stop=stop) as process,
        open_api(process, stop=stop) as port,
    ):
        announce(port)
        await stop.wait()


async def run_worker(
    settings: Settings, *, stop: asyncio.Event, announce: Callable[[int], None] = lambda _: None
) -> None:
    """Send until `stop`, then drain; `announce` is told the port of health and metrics.

    Raises ConfigError as run_api does.
    """
    providers = provider_settings(settings)
    async with (
        open_process(settings, kind="worker", stop=stop) as process,
        open_metrics_server(
            settings.worker.metrics_host,
            settings.worker.metrics_port,
            next_free=settings.worker.metrics_port == WorkerSettings().metrics_port,
            render=process.metrics.render,
            readiness=process.why_not_sending,
        ) as port,
        open_worker(process, providers, stop=stop),
    ):
        announce(port)
        await stop.wait()
