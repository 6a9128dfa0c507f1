"""What `notifier doctor` tries at a RabbitMQ: the requests of a process, without their effects.

RabbitMQ checks the rights of a request before anything else. A request that then must fail shows
that the user has them: a consume with an impossible argument, or a bind of a missing queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from math import inf
from typing import Final
from uuid import uuid4

from aiormq.abc import AbstractConnection, DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    PublishError,
)

from notifier.adapters.rabbitmq.channels import close_channel, is_unblocked, open_channel
from notifier.adapters.rabbitmq.connection import open_connection
from notifier.adapters.rabbitmq.diagnosis import (
    CONNECTIONS_OF_A_PROCESS,
    Alarm,
    Delivery,
    Limits,
)
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.topology import EXCHANGE, RPC_TIMEOUT_S, queue_name
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.notification import QueueKey

TRIAL_TIMEOUT_S: Final = 5.0
RETURN_TIMEOUT_S: Final = 2.0
CONNECTIONS_TRIED: Final = 2 * CONNECTIONS_OF_A_PROCESS
"""Those of an API process and of a worker."""
CHANNELS_AT_ONCE: Final = 16
CHANNELS_BESIDE_SUBSCRIPTIONS: Final = 2
"""Of a worker's consuming connection: one polls the depths, one declares."""

DEFAULT_EXCHANGE: Final = ""
"""It routes by queue name only: a message with a name that no queue has is always returned."""
OWN_QUEUE: Final = f"{EXCHANGE}.doctor"


async def try_to_bind(channel: Channel, queue: QueueKey) -> None:
    """Bind a queue as a process does. Raises BrokerUnavailable, also if the queue is missing."""
    with translated():
        await channel.queue_bind(queue_name(queue), EXCHANGE, str(queue), timeout=RPC_TIMEOUT_S)


async def try_to_consume(channel: Channel, queue: QueueKey) -> None:
    """Begin to consume with an impossible argument. Raises BrokerUnavailable in any case."""
    with translated():
        await channel.basic_consume(
            queue_name(queue),
            _ignore,
            arguments={"x-priority": "not a number"},
            timeout=RPC_TIMEOUT_S,
        )


def is_permitted(error: Exception) -> bool:
    """Return whether RabbitMQ refused a request for another reason than missing rights."""
    return isinstance(error.__cause__, ChannelNotFoundEntity | ChannelPreconditionFailed)


async def refusal_to_publish(connection: AbstractConnection) -> str:
    """Publish to a key that no queue has; return RabbitMQ's reply if the user may not publish.

    In alarm RabbitMQ reads nothing more from this connection.
    """
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            channel = await open_channel(connection, confirms=True)
            await _publish_unroutable(channel, EXCHANGE)
    except BrokerUnavailable as error:
        return str(error.__cause__) if isinstance(error.__cause__, ChannelAccessRefused) else ""
    except TimeoutError:
        return ""
    return ""


async def try_to_publish(connection: AbstractConnection, exchange: str) -> Alarm:
    """Find out whether RabbitMQ takes messages: an unroutable one is returned at once.

    This must be the last request on the connection: in alarm RabbitMQ reads nothing more from it.
    """
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            return await _alarm(await open_channel(connection, confirms=True), exchange)
    except (BrokerUnavailable, TimeoutError) as error:
        is_refused = isinstance(error.__cause__, ChannelAccessRefused)
        return Alarm.HIDDEN if is_refused else Alarm.UNKNOWN


async def _alarm(channel: Channel, exchange: str) -> Alarm:
    # Two messages: in alarm RabbitMQ still takes the first one of a connection.
    try:
        async with asyncio.timeout(RETURN_TIMEOUT_S):
            for _ in range(2):
                await _publish_unroutable(channel, exchange)
    except TimeoutError:
        return Alarm.UNKNOWN if await is_unblocked(channel) else Alarm.ON
    return Alarm.OFF


async def _publish_unroutable(channel: Channel, exchange: str) -> None:
    """Return when RabbitMQ has returned the message. Raises BrokerUnavailable."""
    try:
        with translated():
            await channel.basic_publish(
                b"", exchange=exchange, routing_key=uuid4().hex, mandatory=True
            )
    except BrokerUnavailable as error:
        if not isinstance(error.__cause__, PublishError):
            raise


async def try_delivery(url: str) -> Delivery:
    """Send a message through the exchange to a queue that only this connection has.

    The queue disappears with the connection.
    """
    try:
        async with open_connection(url, "doctor") as connection, asyncio.timeout(TRIAL_TIMEOUT_S):
            await _deliver_to_own_queue(await open_channel(connection, confirms=True))
    except BrokerUnavailable as error:
        is_refused = isinstance(error.__cause__, ChannelAccessRefused | ChannelNotFoundEntity)
        return Delivery.NOT_TRIED if is_refused else Delivery.FAILED
    except TimeoutError:
        return Delivery.FAILED
    return Delivery.WORKS


async def _deliver_to_own_queue(channel: Channel) -> None:
    name, delivered = f"{OWN_QUEUE}.{uuid4().hex}", asyncio.Event()

    async def receive(_: DeliveredMessage) -> None:
        delivered.set()

    with translated():
        await channel.queue_declare(name, exclusive=True, auto_delete=True, timeout=RPC_TIMEOUT_S)
        await channel.queue_bind(name, EXCHANGE, name, timeout=RPC_TIMEOUT_S)
        await channel.basic_consume(name, receive, no_ack=True, timeout=RPC_TIMEOUT_S)
        await channel.basic_publish(b"", exchange=EXCHANGE, routing_key=name, mandatory=True)
    await delivered.wait()


async def try_quorum(url: str, queues: Sequence[QueueKey]) -> Mapping[QueueKey, bool]:
    """Return for each queue whether a majority of its members answers.

    Takes one message of each queue and puts it back: that needs the majority. Queues without a
    reply of either kind are left out, and so is what follows queues without a majority.
    """
    replies: dict[QueueKey, bool] = {}
    with suppress(BrokerUnavailable):
        async with open_connection(url, "doctor") as connection:
            at_once = min(CHANNELS_AT_ONCE, connection.connection_tune.channel_max or inf)
            left = list(queues)
            while left and all(replies.values()):
                some, left = left[: int(at_once)], left[int(at_once) :]
                await _try_some(connection, some, replies)
    return replies


async def _try_some(
    connection: AbstractConnection, queues: Sequence[QueueKey], replies: dict[QueueKey, bool]
) -> None:
    channels = [await open_channel(connection) for _ in queues]
    async with asyncio.TaskGroup() as group:
        for queue, channel in zip(queues, channels, strict=True):
            group.create_task(_take_and_return(channel, queue, replies), name=f"quorum {queue}")
    if all(replies.values()):
        for channel in channels:
            await close_channel(channel)


async def _take_and_return(
    channel: Channel, queue: QueueKey, replies: dict[QueueKey, bool]
) -> None:
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            with translated():
                message = await channel.basic_get(queue_name(queue), timeout=RPC_TIMEOUT_S)
                if message.delivery_tag:
                    await channel.basic_nack(message.delivery_tag, requeue=True)
    except TimeoutError:
        replies[queue] = False
    except BrokerUnavailable:
        return
    else:
        replies[queue] = True


async def measure_limits(url: str, *, queues: int, missing: int) -> Limits:
    """Return how much of what the processes need RabbitMQ allows now.

    `missing` of the `queues` queues do not exist yet. Queues of our own, which disappear with their
    connection, are declared in their place.
    """
    opened: list[AbstractConnection] = []
    reason = ""
    async with AsyncExitStack() as stack:
        try:
            while len(opened) < CONNECTIONS_TRIED:
                opened.append(await stack.enter_async_context(open_connection(url, "doctor")))
        except BrokerUnavailable as error:
            reason = str(error)
        needed = queues + CHANNELS_BESIDE_SUBSCRIPTIONS
        return Limits(
            connections=len(opened),
            connections_reason=reason,
            channels=opened[0].connection_tune.channel_max if opened else 0,
            channels_needed=needed,
            queues_reason=await _queue_limit(opened[0], missing) if opened else "",
            channels_reason=await _channel_limit(opened[-1], needed) if opened else "",
        )


async def _channel_limit(connection: AbstractConnection, count: int) -> str:
    """Open `count` channels; return RabbitMQ's reply if it takes fewer, as for a user's limit."""
    if count > (connection.connection_tune.channel_max or inf):
        return ""  # known without a trial
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            for _ in range(count):
                await open_channel(connection)
    except BrokerUnavailable as error:
        return str(error)
    except TimeoutError:
        return ""
    return ""


async def _queue_limit(connection: AbstractConnection, count: int) -> str:
    """Declare `count` queues of our own; return RabbitMQ's reply if the vhost takes fewer."""
    if not count:
        return ""
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            channel = await open_channel(connection)
            for _ in range(count):
                name = f"{OWN_QUEUE}.{uuid4().hex}"
                with translated():
                    await channel.queue_declare(name, exclusive=True, timeout=RPC_TIMEOUT_S)
            await close_channel(channel)
    except BrokerUnavailable as error:
        is_limit = isinstance(error.__cause__, ChannelPreconditionFailed)
        return str(error.__cause__) if is_limit else ""
    except TimeoutError:
        return ""
    return ""


async def _ignore(_: DeliveredMessage) -> None:
    """Ignore a message."""
