"""A connection to RabbitMQ that is kept open: connect, declare, wait for its end, connect again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
import aio_pika.abc
from aiormq.abc import AbstractConnection

from notifier.adapters.rabbitmq.channels import close_connection, set_when_closed
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.shared_state import SharedState
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.notification import QueueKey

HEARTBEAT_S: Final = 10
CONNECT_TIMEOUT_S: Final = 5.0


class RabbitConnection:
    """One connection. A ChannelOwner opens its channel on it."""

    def __init__(self, url: str, name: str, shared: SharedState) -> None:
        self.name = name
        self._url = url
        self._declarations = shared.declarations
        self._connection_state = shared.connection_state
        self._backoff = shared.new_backoff()
        self._open: AbstractConnection | None = None
        self._opened = asyncio.Event()
        self._is_stopping = False

    async def run(self) -> None:
        """Keep a connection open until `stop`; then close it in bounded time."""
        while not self._is_stopping:
            try:
                await self._use_one_connection()
            except BrokerUnavailable as error:
                self._connection_state.part_failed(self.name, error)
            await asyncio.sleep(self._backoff.next_s())

    def stop(self, task: asyncio.Task[None]) -> None:
        """End `run`, whose task this is."""
        self._is_stopping = True  # a cancel alone can get lost in the `wait_for` of aiormq
        task.cancel()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open and the queues are declared."""
        return self._open is not None

    async def connected(self) -> AbstractConnection:
        """Wait for a connection on which the queues are declared, and return it."""
        while self._open is None:
            await self._opened.wait()
        return self._open

    async def _use_one_connection(self) -> None:
        connection = await _connect(self._url, f"notifier {self.name}")
        try:
            await self._use(_driver_connection(connection))
        finally:
            self._open = None
            self._opened.clear()
            await close_connection(connection)

    async def _use(self, connection: AbstractConnection) -> None:
        if self._is_stopping:
            return
        connected_at = asyncio.get_running_loop().time()
        await self._declarations.declare_all(connection, since=connected_at)
        self._declarations.check_usable()
        self._backoff.reset()
        self._open = connection
        self._opened.set()
        await _raise_when_closed(connection)

    async def declare(self, queues: Iterable[QueueKey]) -> None:
        """Declare the exchange and these queues again. Raises BrokerUnavailable."""
        if self._open is None:
            raise BrokerUnavailable("the connection was closed")
        await self._declarations.declare(self._open, queues)


@asynccontextmanager
async def open_connection(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """Open one connection for the block; it is not reopened. Raises BrokerUnavailable."""
    connection = await _connect(url, f"notifier {name}")
    try:
        yield _driver_connection(connection)
    finally:
        await close_connection(connection)


def quieten_driver() -> None:
    """Silence the driver's loggers: they log an ERROR per failed connect, which we log once."""
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


async def _connect(url: str, name: str) -> aio_pika.abc.AbstractConnection:
    # The caller must keep the result: aio-pika closes a connection that is garbage collected.
    with translated():
        return await aio_pika.connect(
            url, heartbeat=HEARTBEAT_S, name=name, timeout=CONNECT_TIMEOUT_S
        )


def _driver_connection(connection: aio_pika.abc.AbstractConnection) -> AbstractConnection:
    if connection.transport is None:
        raise BrokerUnavailable("the connection closed at once")
    return connection.transport.connection


async def _raise_when_closed(connection: AbstractConnection) -> None:
    """Wait for the end of the connection. Raises BrokerUnavailable with its reason."""
    closed = asyncio.Event()
    set_when_closed(connection, closed)
    await closed.wait()
    with translated():
        connection.closing.result()
    raise BrokerUnavailable("the connection was closed")
