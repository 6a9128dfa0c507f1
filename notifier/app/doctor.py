"""Checks everything that a process depends on: settings, Postgres, RabbitMQ and providers."""

from __future__ import annotations

import asyncio
import time

from notifier.adapters.postgres.checkup import examine_postgres
from notifier.adapters.postgres.migrate import revisions
from notifier.adapters.providers.registry import check_provider
from notifier.adapters.rabbitmq.checkup import examine_rabbitmq
from notifier.app.process import connection_settings, queues_of
from notifier.app.providers import provider_settings
from notifier.domain.finding import Finding, ok
from notifier.lifecycle import Clock
from notifier.settings import Settings, masked


async def examine(settings: Settings, *, clock: Clock = time.time) -> list[Finding]:
    """Run all checks concurrently and return their findings. Changes nothing.

    The URLs of Postgres and RabbitMQ must be set. `clock` is this machine's, in seconds since the
    epoch. Raises ConfigError, alone or in a group, for provider settings with which no process
    could start.
    """
    database, broker = settings.database.url, settings.broker.url
    providers = provider_settings(settings)
    async with asyncio.TaskGroup() as group:
        postgres = group.create_task(
            examine_postgres(
                connection_settings(settings),
                shown_url=str(masked("url", database)),
                queues=[str(queue) for queue in queues_of(settings)],
                revisions=revisions(),
                clock=clock,
            ),
            name="examine postgres",
        )
        rabbitmq = group.create_task(
            examine_rabbitmq(broker, queues_of(settings), place=str(masked("url", broker))),
            name="examine rabbitmq",
        )
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


def _settings_finding(settings: Settings) -> Finding:
    channels, queues = len(settings.channels), len(queues_of(settings))
    return ok("settings", f"read; {channels} channels, {queues} queues")
