"""A connection to RabbitMQ that is kept open: connect, declare, wait for its end, connect again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

import aio_pika
import aio_pika.abc
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import AMQPConnectionError, ChannelClosed

from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.shared_state import SharedState
from notifier.adapters.rabbitmq.topology import RPC_TIMEOUT_S, declare
from notifier.domain.errors import BrokerUnavailable

HEARTBEAT_S: Final = 10
CONNECT_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 2.5
BLOCKED_TIMEOUT_S: Final = 0.05
_FRAME_BUFFER: Final = 512


class RabbitConnection:
    """One connection. A ChannelOwner opens its channel on it."""

    def __init__(self, url: str, name: str, shared: SharedState) -> None:
        self.name = name
        self._url = url
        self._queues = shared.queues
        self._declare_lock = shared.declare_lock
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
        """Whether the connection is open and everything is declared."""
        return self._open is not None

    async def connected(self) -> AbstractConnection:
        """Wait for a connection on which everything is declared, and return it."""
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
            await _close(connection)

    async def _use(self, connection: AbstractConnection) -> None:
        if self._is_stopping:
            return
        await self._declare(connection)
        self._backoff.reset()
        self._open = connection
        self._opened.set()
        await _raise_when_closed(connection)

    async def _declare(self, connection: AbstractConnection) -> None:
        channel = await open_channel(connection)
        async with self._declare_lock:
            await declare(channel, self._queues)
        await close_channel(channel)


@asynccontextmanager
async def open_connection(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """Open one connection for the block; it is not reopened. Raises BrokerUnavailable."""
    connection = await _connect(url, f"notifier {name}")
    try:
        yield _driver_connection(connection)
    finally:
        await _close(connection)


def quieten_driver() -> None:
    """Silence the driver's loggers: they log an ERROR per failed connect, which we log once."""
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


async def open_channel(connection: AbstractConnection, *, confirms: bool = False) -> Channel:
    """Open a channel. Raises BrokerUnavailable."""
    with translated():
        channel = await connection.channel(
            publisher_confirms=confirms, frame_buffer_size=_FRAME_BUFFER, timeout=RPC_TIMEOUT_S
        )
    return cast("Channel", channel)  # its abstract class lacks the `wait` of basic_publish


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel after all that was sent on it; in bounded time, without raising.

    A connection on which that takes too long is dead. It is closed too, so that its other channels
    need not time out as well.
    """
    try:
        with translated():
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await channel.close(ChannelClosed(0, "closed by us"))
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, TimeoutError):
            await _close(channel.connection)


async def is_unblocked(channel: AbstractChannel) -> bool:
    """Return whether the channel is open and no alarm of RabbitMQ blocks its connection."""
    try:
        async with asyncio.timeout(BLOCKED_TIMEOUT_S):
            await channel.connection.ready()
    except TimeoutError:
        return False
    return not channel.is_closed


def end_of(channel: AbstractChannel) -> BrokerUnavailable:
    """Return the reason why a closed channel was closed."""
    try:
        with translated():
            channel.closing.result()
    except BrokerUnavailable as reason:
        return reason
    return BrokerUnavailable("the channel was closed")


def set_when_closed(resource: AbstractChannel | AbstractConnection, event: asyncio.Event) -> None:
    """Set the event soon after the resource is closed, by either side."""
    resource.closing.add_done_callback(lambda _: event.set())


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


async def _close(connection: AbstractConnection | aio_pika.abc.AbstractConnection) -> None:
    with suppress(BrokerUnavailable), translated():
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close(AMQPConnectionError("closed by us"))
