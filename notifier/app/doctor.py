"""Checks everything that a process depends on: settings, Postgres, RabbitMQ and providers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from notifier.adapters.postgres.checkup import examine_postgres
from notifier.adapters.postgres.diagnosis import ConfiguredNames
from notifier.adapters.postgres.migrate import revisions
from notifier.adapters.providers.registry import check_provider
from notifier.adapters.providers.settings import ProviderSettings
from notifier.adapters.rabbitmq.checkup import examine_rabbitmq
from notifier.app.process import IN_PROCESS, connection_settings, queues_of
from notifier.app.providers import provider_settings
from notifier.app.webhooks import with_webhooks
from notifier.domain.finding import Finding, ok
from notifier.lifecycle import Clock
from notifier.settings import Settings, masked


async def examine(
    settings: Settings,
    *,
    providers: Mapping[str, ProviderSettings] | None = None,
    clock: Clock = time.time,
) -> list[Finding]:
    """Run all checks concurrently and return their findings. Changes nothing.

    The URL of Postgres must be set. An empty URL of the broker is the broker in the memory of
    `dev`. `providers` are those of the settings by default. `clock` is this machine's, in seconds
    since the epoch. Raises ConfigError, alone or in a group, for provider settings with which no
    process could start.
    """
    database = settings.database.url
    providers = provider_settings(settings) if providers is None else providers
    settings = with_webhooks(settings)
    async with asyncio.TaskGroup() as group:
        postgres = group.create_task(
            examine_postgres(
                connection_settings(settings),
                shown_url=str(masked("url", database)),
                names=ConfiguredNames(
                    queues=[str(queue) for queue in queues_of(settings)],
                    channels=list(settings.channels),
                    providers=[channel.provider for channel in settings.channels.values()],
                    asks_for_keys=settings.api.auth == "keys",
                ),
                revisions=revisions(),
                clock=clock,
            ),
            name="examine postgres",
        )
        rabbitmq = group.create_task(_examine_broker(settings), name="examine rabbitmq")
        provider_checks = [
            group.create_task(check_provider(name, one_provider), name=f"examine provider {name}")
            for name, one_provider in providers.items()
        ]
    return [
        _settings_finding(settings),
        *postgres.result(),
        *rabbitmq.result(),
        *(check.result() for check in provider_checks),
    ]


async def _examine_broker(settings: Settings) -> list[Finding]:
    url = settings.broker.url
    if url == IN_PROCESS:
        return [ok("rabbitmq", "none: the broker is in the memory of `notifier dev`")]
    return await examine_rabbitmq(url, queues_of(settings), place=str(masked("url", url)))


def _settings_finding(settings: Settings) -> Finding:
    channels, queues = len(settings.channels), len(queues_of(settings))
    return ok("settings", f"read; {channels} channels, {queues} queues")
