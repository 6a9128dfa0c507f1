"""Private servers for all rounds; each round gets its own vhost, database and folder."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aio_pika
import asyncpg
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from benchmarks.bench.children import Children, running_children
from benchmarks.peers.place import QUEUES
from harness.rabbitmq import RabbitmqNode, running_node
from notifier.adapters.postgres.migrate import migrate
from notifier.embedded.postgres import PostgresServer, running_postgres
from notifier.embedded.server import PrivateServer

ROOT = Path(__file__).resolve().parents[2]
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The servers and folder of one measurement of one system."""

    folder: Path
    broker_url: str
    database_url: str
    children: Children
    servers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The process ids of the servers that belong to the system, by name."""

    def groups(self) -> Mapping[str, Sequence[int]]:
        """Return the process ids of the system by process group."""
        return {**self.children.groups(), **self.servers}

    @property
    def log(self) -> Path:
        """The folder in which the jobs log."""
        return self.folder / "jobs.log"

    async def rows(self, sql: str) -> int:
        connection = await asyncpg.connect(self.database_url)
        try:
            return int(await connection.fetchval(sql))
        finally:
            await connection.close()

    async def messages(self) -> int:
        """Count the ready messages in all of the peers' queues."""
        connection = await aio_pika.connect(self.broker_url)
        async with connection:
            return sum([await _ready(connection, name) for name in QUEUES])


async def _ready(connection: AbstractConnection, name: str) -> int:
    """Return 0 for a missing queue, whose declare closes the channel."""
    channel = await connection.channel()
    try:
        queue = await channel.declare_queue(name, passive=True)
    except ChannelNotFoundEntity:
        return 0
    return queue.declaration_result.message_count or 0


def _pid(server: PrivateServer) -> Sequence[int]:
    return [server.pid] if server.pid else []


@dataclass(frozen=True, slots=True)
class Servers:
    folder: Path
    postgres: PostgresServer
    rabbitmq: RabbitmqNode
    kept: Mapping[str, Place] = field(default_factory=dict)
    """The places that a workload keeps over its rounds: see `Workload.setting`."""

    @contextmanager
    def place(self, default_queue_type: str = "") -> Iterator[Place]:
        """Yield an empty place and remove it afterwards with all its processes.

        `default` is the queue type that RabbitMQ uses for a queue declared without a type.
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
                    servers={"postgres": _pid(self.postgres), "rabbitmq": _pid(self.rabbitmq)},
                )
        finally:
            self.rabbitmq.delete_vhost(name)
            asyncio.run(self._ask(f"DROP DATABASE {name} WITH (FORCE)"))

    def version(self) -> str:
        """Return a setting or version as Postgres reports it."""
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
        running_node(folder / "rabbitmq", keep=False) as rabbitmq,
    ):
        yield Servers(folder, postgres, rabbitmq)
