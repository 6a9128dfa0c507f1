"""One connection to RabbitMQ, kept alive: connect, declare, announce, wait for its end, again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

import aio_pika
import aio_pika.abc
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import AMQPConnectionError, ChannelClosed
from structlog import get_logger

from notifier.adapters.rabbitmq.connection_state import ConnectionState
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.topology import RPC_TIMEOUT_S, declare
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Backoff

HEARTBEAT_S: Final = 10
CONNECT_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 2.5
BLOCKED_AFTER_S: Final = 0.05
_FRAME_BUFFER: Final = 512


class RabbitConnection:
    """One connection. Channels on it are opened by those who need them, in `keep_alive`."""

    def __init__(
        self,
        url: str,
        name: str,
        queues: Sequence[QueueKey],
        *,
        declaring: asyncio.Lock,
        connection_state: ConnectionState,
        backoff: Backoff,
    ) -> None:
        self.name = name
        self._url = url
        self._queues = queues
        self._declaring = declaring
        self._connection_state = connection_state
        self._backoff = backoff
        self._live: AbstractConnection | None = None
        self._ready = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Keep a connection until `stop`; then it is closed in bounded time."""
        while not self._stopping:
            try:
                await self._one_life()
            except BrokerUnavailable as error:
                self._connection_state.down(self.name, error)
            await asyncio.sleep(self._backoff.next_s())

    def stop(self, task: asyncio.Task[None]) -> None:
        """End `run`, which is this task. A cancel alone can get lost in the driver's wait_for."""
        self._stopping = True
        task.cancel()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection on which everything is declared."""
        return self._live is not None

    async def connected(self) -> AbstractConnection:
        """A connection on which everything is declared; waits for it."""
        while self._live is None:
            await self._ready.wait()
        return self._live

    async def _one_life(self) -> None:
        connection = await _connect(self._url, f"notifier {self.name}")
        try:
            await self._use(_driver(connection))
        finally:
            self._live = None
            self._ready.clear()
            await _close(connection)

    async def _use(self, connection: AbstractConnection) -> None:
        if self._stopping:
            return
        await self._declare(connection)
        self._backoff.reset()
        self._live = connection
        self._ready.set()
        await _end_of(connection)

    async def _declare(self, connection: AbstractConnection) -> None:
        channel = await open_channel(connection)
        async with self._declaring:
            await declare(channel, self._queues)
        await close_channel(channel)


async def keep_alive(
    link: RabbitConnection,
    name: str,
    backoff: Backoff,
    one_life: Callable[[AbstractConnection], Awaitable[bool]],
) -> None:
    """Live again and again on the link's connection, until a life returns False.

    `one_life` owns one channel: it opens, uses and closes it and raises BrokerUnavailable when the
    channel is gone. It resets `backoff` once it works. The loss of the connection itself is the
    link's to say; a channel that dies alone is said here, and not again for the same reason until
    it worked.
    """
    said = ""
    while True:
        connection, reason = await link.connected(), ""
        try:
            if not await one_life(connection):
                return
        except BrokerUnavailable as error:
            reason = str(error)
        is_news = backoff.is_fresh or reason != said
        await asyncio.sleep(backoff.next_s())
        if is_news and not connection.is_closed:
            said = reason
            get_logger(__name__).warning("broker_channel_closed", channel=name, reason=reason)


@asynccontextmanager
async def open_connection(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """One connection for the block, not kept alive. Raises BrokerUnavailable."""
    connection = await _connect(url, f"notifier {name}")
    try:
        yield _driver(connection)
    finally:
        await _close(connection)


def quieten_driver() -> None:
    """The driver logs an ERROR for every failed connect, and more; we say it once, ourselves."""
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


async def open_channel(connection: AbstractConnection, *, confirms: bool = False) -> Channel:
    """A new amqp_channel. Raises BrokerUnavailable."""
    with translated():
        channel = await connection.channel(
            publisher_confirms=confirms, frame_buffer_size=_FRAME_BUFFER, timeout=RPC_TIMEOUT_S
        )
    return cast("Channel", channel)  # its abstract class lacks the `wait` of basic_publish


async def close_channel(channel: AbstractChannel) -> None:
    """Close after everything sent before has been handled; in bounded time, never raises.

    A connection on which that takes too long is dead, and closed too: the others need not wait.
    """
    try:
        with translated():
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await channel.close(ChannelClosed(0, "closed by us"))
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, TimeoutError):
            await _close(channel.connection)


async def is_unblocked(channel: AbstractChannel) -> bool:
    """Whether RabbitMQ has not told us that an alarm blocks this connection."""
    try:
        async with asyncio.timeout(BLOCKED_AFTER_S):
            await channel.connection.ready()
    except TimeoutError:
        return False
    return not channel.is_closed


def end_of(channel: AbstractChannel) -> BrokerUnavailable:
    """Why a closed channel was closed."""
    try:
        with translated():
            channel.closing.result()
    except BrokerUnavailable as reason:
        return reason
    return BrokerUnavailable("the channel was closed")


def when_closed(resource: AbstractChannel | AbstractConnection, then: Callable[[], None]) -> None:
    """Call `then` soon after the resource is closed, by whomever."""
    resource.closing.add_done_callback(lambda _: then())


async def _connect(url: str, name: str) -> aio_pika.abc.AbstractConnection:
    # Its owner must keep what this returns: aio-pika closes a connection that is collected.
    with translated():
        return await aio_pika.connect(
            url, heartbeat=HEARTBEAT_S, name=name, timeout=CONNECT_TIMEOUT_S
        )


def _driver(connection: aio_pika.abc.AbstractConnection) -> AbstractConnection:
    if connection.transport is None:
        raise BrokerUnavailable("the connection closed at once")
    return connection.transport.connection


async def _end_of(connection: AbstractConnection) -> None:
    """Returns never: raises BrokerUnavailable with the reason when the connection is closed."""
    gone = asyncio.Event()
    when_closed(connection, gone.set)
    await gone.wait()
    with translated():
        connection.closing.result()
    raise BrokerUnavailable("the connection was closed")


async def _close(connection: AbstractConnection | aio_pika.abc.AbstractConnection) -> None:
    with suppress(BrokerUnavailable), translated():
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close(AMQPConnectionError("closed by us"))
