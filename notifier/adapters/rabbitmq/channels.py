"""Opens and closes channels of a connection, in bounded time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, cast

import aio_pika.abc
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import AMQPConnectionError, ChannelClosed

from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.topology import RPC_TIMEOUT_S
from notifier.domain.errors import BrokerUnavailable

CLOSE_TIMEOUT_S: Final = 2.5
BLOCKED_TIMEOUT_S: Final = 0.05
_FRAME_BUFFER: Final = 512


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
            await close_connection(channel.connection)


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


async def close_connection(
    connection: AbstractConnection | aio_pika.abc.AbstractConnection,
) -> None:
    """Close a connection in bounded time, without raising."""
    with suppress(BrokerUnavailable), translated():
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close(AMQPConnectionError("closed by us"))
