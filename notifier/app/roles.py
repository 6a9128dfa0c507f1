"""`notifier api` and `notifier worker`: one process each, on the user's Postgres and RabbitMQ."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final, Protocol

from notifier.adapters.telemetry.health import open_metrics_server
from notifier.app.accepting import open_api
from notifier.app.process import WorkerReadiness, open_process
from notifier.app.providers import ReadSettings, provider_settings
from notifier.app.sending import open_worker
from notifier.app.webhooks import with_webhooks
from notifier.settings import Settings, WorkerSettings

API_METRICS_PORT: Final = 9101
"""The first port for health and metrics of API processes that share their HTTP port."""


class ApiAnnouncer(Protocol):
    """Tells the user that an API process is ready."""

    def api_started(self, port: int, metrics_port: int | None) -> None:
        """The API is served at `port`, health and metrics at `metrics_port`, None if at `port`."""
        ...


class WorkerAnnouncer(Protocol):
    """Tells the user that a worker process is ready."""

    def worker_started(self, metrics_port: int) -> None:
        """The worker sends; health and metrics are served at `metrics_port`."""
        ...


async def run_api(
    settings: Settings,
    *,
    stop: asyncio.Event,
    announcer: ApiAnnouncer,
    metrics_port: int | None = None,
    share_port: bool = False,
) -> None:
    """Serve the API until `stop`, then drain.

    Without `metrics_port`, health and metrics are served at the HTTP port. Processes that share a
    port (`share_port`) need their own `metrics_port`, because a request to the shared port reaches
    any one of them. Raises ConfigError, alone or in a group, for a wrong setting, a port in use or
    a database without our tables.
    """
    settings = with_webhooks(settings)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(open_process(settings, kind="api", stop=stop))
        bound_metrics_port = metrics_port and await stack.enter_async_context(
            open_metrics_server(
                settings.worker.metrics_host,
                metrics_port,
                next_free=metrics_port == API_METRICS_PORT,
                readiness=process,
                metrics=process.metrics,
            )
        )
        port = await stack.enter_async_context(open_api(process, stop=stop, share_port=share_port))
        announcer.api_started(port, bound_metrics_port)
        await stop.wait()


async def run_worker(
    settings: Settings,
    *,
    stop: asyncio.Event,
    announcer: WorkerAnnouncer,
    reload: ReadSettings,
) -> None:
    """Send until `stop`, then drain.

    `reload` reads the settings again when a provider refuses our credentials. Raises ConfigError
    like run_api.
    """
    settings = with_webhooks(settings)
    providers = provider_settings(settings)
    async with (
        open_process(settings, kind="worker", stop=stop) as process,
        open_metrics_server(
            settings.worker.metrics_host,
            settings.worker.metrics_port,
            next_free=settings.worker.metrics_port == WorkerSettings().metrics_port,
            readiness=WorkerReadiness(process),
            metrics=process.metrics,
        ) as port,
        open_worker(process, providers, stop=stop, reload=reload),
    ):
        announcer.worker_started(port)
        await stop.wait()
