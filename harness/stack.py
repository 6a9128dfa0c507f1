"""Private servers for measurements; each one gets its own database, vhost and processes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from harness.client import open_client
from harness.rabbitmq import RabbitmqNode, choose_rabbitmq, running_node
from harness.run import Run
from harness.system import running_system, urls
from notifier.adapters.postgres.migrate import migrate
from notifier.embedded.postgres import PostgresServer, running_postgres

NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """The folder (not created yet), database and vhost of one system."""

    name: str
    folder: Path
    database: str
    broker: str


class Stack:
    """The servers that all measurements share; measurements run one after the other.

    RabbitMQ may be a cluster. Systems connect to its first node.
    """

    def __init__(self, folder: Path, postgres: PostgresServer, *nodes: RabbitmqNode) -> None:
        self.folder = folder
        self.postgres, self.rabbitmq, self.nodes = postgres, nodes[0], nodes

    @asynccontextmanager
    async def running(self, workers: int = 1, **settings: object) -> AsyncIterator[Run]:
        """Run sandbox, API and workers; `a__b=1` sets `a.b`. All processes must exit with 0."""
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
    async def place(self, *, is_migrated: bool = True) -> AsyncIterator[Place]:
        """Yield a new database and vhost, used by no process yet."""
        name = f"run_{next(NUMBERS)}"
        await self._administer(f"CREATE DATABASE {name}")
        if is_migrated:
            await asyncio.to_thread(migrate, self.postgres.url(name))
        self.rabbitmq.create_vhost(name)
        yield Place(name, self.folder / name, self.postgres.url(name), self.rabbitmq.url(name))
        self.rabbitmq.delete_vhost(name)
        # A measurement may leave gigabytes; vacuuming them would disturb the next one.
        await self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    async def _administer(self, sql: str) -> None:
        connection = await asyncpg.connect(self.postgres.url())
        await connection.execute(sql)
        await connection.close()


@contextmanager
def running_stack(folder: Path, rabbitmq_version: str = "") -> Iterator[Stack]:
    """Run private servers; `rabbitmq_version` as in `choose_rabbitmq`."""
    install = choose_rabbitmq(rabbitmq_version)
    with (
        running_postgres(folder / "postgres") as postgres,
        running_node(folder / "rabbitmq", install=install) as rabbitmq,
    ):
        yield Stack(folder, postgres, rabbitmq)
