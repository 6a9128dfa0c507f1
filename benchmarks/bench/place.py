"""Private servers for all rounds; a vhost, a database and a folder of its own for each round."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import asyncpg
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from benchmarks.bench.children import Children, running_children
from benchmarks.peers.place import QUEUES
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

    async def stored(self) -> int:
        """What is kept of all submits: Notifier's rows, or a peer's messages."""
        return await self.rows("SELECT count(*) FROM notifications") or await self.messages()

    async def rows(self, sql: str) -> int:
        connection = await asyncpg.connect(self.database_url)
        try:
            return int(await connection.fetchval(sql))
        finally:
            await connection.close()

    async def messages(self) -> int:
        """Ready in all of the peers' queues, as the broker counts this moment."""
        connection = await aio_pika.connect(self.broker_url)
        async with connection:
            return sum([await _ready(connection, name) for name in QUEUES])


async def _ready(connection: AbstractConnection, name: str) -> int:
    """0 of a queue that does not exist, which closes the channel that asked."""
    channel = await connection.channel()
    try:
        queue = await channel.declare_queue(name, passive=True)
    except ChannelNotFoundEntity:
        return 0
    return queue.declaration_result.message_count or 0


@dataclass(frozen=True, slots=True)
class Servers:
    folder: Path
    postgres: PostgresServer
    rabbitmq: RabbitmqServer

    @contextmanager
    def place(self, default_queue_type: str = "") -> Iterator[Place]:
        """Empty, and gone afterwards with all that runs there.

        The default is what RabbitMQ makes of a queue that is declared without a type.
        """
        name = f"bench_{next(_NUMBERS)}"
        folder = self.folder / name
        folder.mkdir(mode=0o711)
        asyncio.run(self._ask(f"CREATE DATABASE {name}"))
        migrate(self.postgres.url(name))
        if default_queue_type:
            words = ("add_vhost", name, "--default-queue-type", default_queue_type)
            asyncio.run(self.rabbitmq.control(*words))
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
