"""`notifier api` and `notifier worker`: one process each, on the user's Postgres and RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import structlog

from notifier.adapters.providers.settings import ProviderSettings
from notifier.adapters.telemetry.health import open_metrics_server
from notifier.app.accepting import open_api
from notifier.app.process import open_process
from notifier.app.sending import open_worker, provider_settings
from notifier.domain.errors import ConfigError
from notifier.settings import Settings, WorkerSettings

log = structlog.get_logger(__name__)


API_METRICS_PORT: Final = 9101
"""Where the health and metrics of API processes begin that share their port."""


async def run_api(
    settings: Settings,
    *,
    stop: asyncio.Event,
    announce: Callable[[int, int | None], None] = lambda _port, _metrics: None,
    metrics_port: int | None = None,
    share_port: bool = False,
) -> None:
    """Serve the API until `stop`, then drain; `announce` is told the port.

    With `metrics_port` health and metrics are at a port of their own, too, which is announced:
    where processes share a port (`share_port`), nobody can say which of them answers. Raises
    ConfigError, alone or in a group, for a wrong setting, a port in use or a database without our
    tables.
    """
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(open_process(settings, kind="api", stop=stop))
        metrics = metrics_port and await stack.enter_async_context(
            open_metrics_server(
                settings.worker.metrics_host,
                metrics_port,
                next_free=metrics_port == API_METRICS_PORT,
                render=process.metrics.render,
                readiness=process.why_not_ready,
            )
        )
        port = await stack.enter_async_context(open_api(process, stop=stop, share_port=share_port))
        announce(port, metrics)
        await stop.wait()


async def run_worker(
    settings: Settings,
    *,
    stop: asyncio.Event,
    announce: Callable[[int], None] = lambda _: None,
    reload: Callable[[], Settings] | None = None,
) -> None:
    """Send until `stop`, then drain; `announce` is told the port of health and metrics.

    `reload` reads the settings anew, when a provider refuses our credentials. Raises ConfigError
    as run_api does.
    """
    providers = provider_settings(settings)

    def reloaded(name: str) -> ProviderSettings:
        present = provider_settings(reload() if reload else settings)
        if name not in present:
            raise ConfigError("no channel uses it any more", key=f"providers.{name}")
        return present[name]

    async with (
        open_process(settings, kind="worker", stop=stop) as process,
        open_metrics_server(
            settings.worker.metrics_host,
            settings.worker.metrics_port,
            next_free=settings.worker.metrics_port == WorkerSettings().metrics_port,
            render=process.metrics.render,
            readiness=process.why_not_sending,
        ) as port,
        open_worker(process, providers, stop=stop, reload=reloaded if reload else None),
    ):
        announce(port)
        await stop.wait()
