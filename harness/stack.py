"""Private servers; each measurement gets a database, a vhost and processes of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from harness.client import open_client
from harness.run import Run
from harness.system import running_system, urls
from notifier.adapters.postgres.migrate import migrate
from notifier.embedded.postgres import PostgresServer, running_postgres
from notifier.embedded.rabbitmq import RabbitmqServer, running_rabbitmq

NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one system may live, its database and vhost by name; the folder is not made yet."""

    name: str
    folder: Path
    database: str
    broker: str


class Stack:
    """The servers are shared by all measurements, which follow each other.

    RabbitMQ may be a cluster: then systems are told of its first node.
    """

    def __init__(self, folder: Path, postgres: PostgresServer, *nodes: RabbitmqServer) -> None:
        self.folder = folder
        self.postgres, self.rabbitmq, self.nodes = postgres, nodes[0], nodes

    @asynccontextmanager
    async def running(self, workers: int = 1, **settings: object) -> AsyncIterator[Run]:
        """Sandbox, API and workers; `a__b=1` is the setting `a.b`. All must stop with 0."""
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        async with self.place() as place:
            at = urls(place.database, place.broker)
            with running_system(place.folder, {**at, **dotted}) as system:
                system.start_all()
                first = [system.children[-1]]
                async with open_client(system.api_url, system.sandbox_url) as client:
                    run = Run(system, client, place.database, place.broker, first)
                    for _ in range(workers - 1):
                        await run.join()
                    yield run

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A fresh database and vhost, and nothing that runs there."""
        name = f"run_{next(NUMBERS)}"
        await self._make_database(name)
        self.rabbitmq.create_vhost(name)
        yield Place(name, self.folder / name, self.postgres.url(name), self.rabbitmq.url(name))
        self.rabbitmq.delete_vhost(name)
        # What a line leaves may be gigabytes, and vacuuming them would disturb the next.
        await self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    async def _make_database(self, name: str) -> None:
        await self._administer(f"CREATE DATABASE {name}")
        await asyncio.to_thread(migrate, self.postgres.url(name))

    async def _administer(self, sql: str) -> None:
        connection = await asyncpg.connect(self.postgres.url())
        await connection.execute(sql)
        await connection.close()


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    with (
        running_postgres(folder / "postgres") as postgres,
        running_rabbitmq(folder / "rabbitmq") as rabbitmq,
    ):
        yield Stack(folder, postgres, rabbitmq)
