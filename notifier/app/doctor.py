"""The check-up of everything that a process stands on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from notifier.adapters.postgres.checkup import examine_postgres
from notifier.adapters.postgres.migrate import revisions
from notifier.adapters.providers.registry import check_provider
from notifier.adapters.rabbitmq.checkup import examine_rabbitmq
from notifier.app.process import connection_settings, queues_of
from notifier.app.sending import provider_settings
from notifier.domain.finding import Finding, ok
from notifier.settings import Settings, masked


async def examine(settings: Settings, *, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Look at all of it at once, whatever of it is broken; nothing is changed.

    The URLs of Postgres and RabbitMQ must be set. Raises ConfigError, alone or in a group, for a
    provider's settings that no process could start with.
    """
    database, broker = settings.database.url, settings.broker.url
    providers = provider_settings(settings)
    async with asyncio.TaskGroup() as group:
        postgres = group.create_task(
            examine_postgres(
                connection_settings(settings),
                shown_url=str(masked("url", database)),
                revisions=revisions(),
                clock=clock,
            ),
            name="examine postgres",
        )
        rabbitmq = group.create_task(
            examine_rabbitmq(broker, queues_of(settings), place=str(masked("url", broker))),
            name="examine rabbitmq",
        )
        reached = [
            group.create_task(check_provider(name, of), name=f"examine provider {name}")
            for name, of in providers.items()
        ]
    return [
        _of_settings(settings),
        *postgres.result(),
        *rabbitmq.result(),
        *(task.result() for task in reached),
    ]


def _of_settings(settings: Settings) -> Finding:
    channels, queues = len(settings.channels), len(queues_of(settings))
    return ok("settings", f"read; {channels} channels, {queues} queues")
