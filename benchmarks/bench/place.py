"""Private servers for all rounds; a vhost, a database and a folder of its own for each round."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from benchmarks.bench.children import Children, running_children
from notifier.adapters.postgres.migrate import migrate
from notifier.embedded.postgres import PostgresServer, running_postgres
from notifier.embedded.rabbitmq import RabbitmqServer, running_rabbitmq

ROOT = Path(__file__).resolve().parents[2]
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one system is measured once."""

    folder: Path
    broker_url: str
    database_url: str
    children: Children

    @property
    def log(self) -> Path:
        """Where the jobs leave their traces."""
        return self.folder / "jobs.log"


@dataclass(frozen=True, slots=True)
class Servers:
    folder: Path
    postgres: PostgresServer
    rabbitmq: RabbitmqServer

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Empty, and gone afterwards with all that runs there."""
        name = f"bench_{next(_NUMBERS)}"
        folder = self.folder / name
        folder.mkdir(mode=0o711)
        asyncio.run(self._ask(f"CREATE DATABASE {name}"))
        migrate(self.postgres.url(name))
        self.rabbitmq.create_vhost(name)
        try:
            with running_children(folder) as children:
                yield Place(
                    folder=folder,
                    broker_url=self.rabbitmq.url(name),
                    database_url=self.postgres.url(name),
                    children=children,
                )
        finally:
            self.rabbitmq.delete_vhost(name)
            asyncio.run(self._ask(f"DROP DATABASE {name} WITH (FORCE)"))

    def version(self) -> str:
        """Postgres's own words."""
        return str(asyncio.run(self._ask("SHOW server_version")))

    async def _ask(self, sql: str) -> object:
        connection = await asyncpg.connect(self.postgres.url())
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()


@contextmanager
def running_servers(folder: Path) -> Iterator[Servers]:
    with (
        running_postgres(folder / "postgres", keep=False) as postgres,
        running_rabbitmq(folder / "rabbitmq", keep=False) as rabbitmq,
    ):
        yield Servers(folder, postgres, rabbitmq)
