"""Examines a RabbitMQ over one connection, for `notifier doctor`, without changing anything.

Only what exists is declared with our arguments, so that RabbitMQ compares them and creates nothing.
RabbitMQ reports an alarm only to a connection that publishes, so a message is published that no
queue can receive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPChannelError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    PublishError,
)

from notifier.adapters.rabbitmq import diagnosis
from notifier.adapters.rabbitmq.channels import close_channel, is_unblocked, open_channel
from notifier.adapters.rabbitmq.connection import (
    CONNECT_TIMEOUT_S,
    open_connection,
    quieten_driver,
)
from notifier.adapters.rabbitmq.diagnosis import Alarm, Inspection, State
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.topology import DeclareMode, declare_exchange, declare_queue
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.finding import Finding
from notifier.domain.notification import QueueKey

CHECK_TIMEOUT_S: Final = 5.0
RETURN_TIMEOUT_S: Final = 2.0

DEFAULT_EXCHANGE: Final = ""
"""It routes by queue name only: a message with a name that no queue has is always returned."""


async def examine_rabbitmq(url: str, queues: Sequence[QueueKey], *, place: str) -> list[Finding]:
    """Return the findings about a RabbitMQ; `place` is its URL without secrets.

    Raises nothing, whatever the state of the broker.
    """
    quieten_driver()
    try:
        async with open_connection(url, "doctor") as connection:
            return await _examine(connection, queues, place)
    except BrokerUnavailable as error:
        return diagnosis.of_no_connection(error, queues, place=place, timeout_s=CONNECT_TIMEOUT_S)


async def _examine(
    connection: AbstractConnection, queues: Sequence[QueueKey], place: str
) -> list[Finding]:
    inspector = _Inspector(connection)
    exchange = await inspector.inspect(None)
    return [
        diagnosis.of_reach(place),
        diagnosis.of_version(connection.server_properties),
        diagnosis.of_exchange(exchange),
        *[
            diagnosis.of_queue(
                await inspector.inspect(queue),
                queue,
                has_exchange=exchange.state is not State.MISSING,
            )
            for queue in queues
        ],
        diagnosis.of_alarm(await inspector.inspect_alarm()),
    ]


class _Inspector:
    """Inspects one thing at a time, each within 5 s, until RabbitMQ stops answering."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._is_silent = False

    async def inspect(self, queue: QueueKey | None) -> Inspection:
        """Compare a queue, or the exchange for None, with our declaration.

        For a missing one, find out whether we may create it. If it is deleted between the check and
        the comparison, the comparison creates it, as any process would.
        """
        checked = await self._try(queue, DeclareMode.CHECK)
        match checked.state:
            case State.MATCHES:
                return await self._try(queue, DeclareMode.CREATE)
            case State.MISSING:
                tried = await self._try(queue, DeclareMode.DRY_RUN)
                return checked if tried.state is State.DIFFERS else tried
            case _:
                return checked

    async def inspect_alarm(self) -> Alarm:
        """Find out whether RabbitMQ takes messages: an unroutable one is returned at once.

        This must be the last request: in alarm RabbitMQ does not even read that the channel is
        closed.
        """
        if self._is_silent:
            return Alarm.UNKNOWN
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                channel = await open_channel(self._connection, confirms=True)
                return await _publish_unroutable(channel)
        except (BrokerUnavailable, TimeoutError) as error:
            is_refused = isinstance(error.__cause__, ChannelAccessRefused)
            return Alarm.HIDDEN if is_refused else Alarm.UNKNOWN

    async def _try(self, queue: QueueKey | None, mode: DeclareMode) -> Inspection:
        if self._is_silent:
            return Inspection(State.UNKNOWN, "RabbitMQ stopped answering")
        try:
            async with (
                asyncio.timeout(CHECK_TIMEOUT_S),
                _new_channel(self._connection) as channel,
            ):
                await _declare(channel, queue, mode)
        except (BrokerUnavailable, TimeoutError) as error:
            return self._failed(error)
        return Inspection(State.MATCHES)

    def _failed(self, error: BrokerUnavailable | TimeoutError) -> Inspection:
        match error.__cause__:
            case ChannelNotFoundEntity() as cause:  # also of a queue whose node is down
                is_missing = "NOT_FOUND - no " in str(cause)
                return Inspection(State.MISSING if is_missing else State.UNKNOWN, str(cause))
            case ChannelAccessRefused() as cause:
                return Inspection(State.REFUSED, str(cause))
            case AMQPChannelError() as cause:
                return Inspection(State.DIFFERS, str(cause))
            case _:
                self._is_silent = True
                reason = str(error) or f"no answer within {CHECK_TIMEOUT_S:g} s"
                return Inspection(State.UNKNOWN, reason)


async def _declare(channel: AbstractChannel, queue: QueueKey | None, mode: DeclareMode) -> None:
    if queue is None:
        await declare_exchange(channel, mode)
    else:
        await declare_queue(channel, queue, mode)


@asynccontextmanager
async def _new_channel(connection: AbstractConnection) -> AsyncIterator[Channel]:
    """Open a channel for one request: RabbitMQ closes it to report a failure."""
    channel = await open_channel(connection)
    try:
        yield channel
    finally:
        await close_channel(channel)


async def _publish_unroutable(channel: Channel) -> Alarm:
    # Two messages: in alarm RabbitMQ still takes the first one of a connection.
    try:
        async with asyncio.timeout(RETURN_TIMEOUT_S):
            for _ in range(2):
                await _publish_one(channel)
    except TimeoutError:
        return Alarm.UNKNOWN if await is_unblocked(channel) else Alarm.ON
    return Alarm.OFF


async def _publish_one(channel: Channel) -> None:
    """Return when RabbitMQ has returned the message. Raises BrokerUnavailable."""
    try:
        with translated():
            await channel.basic_publish(
                b"", exchange=DEFAULT_EXCHANGE, routing_key=uuid4().hex, mandatory=True
            )
    except BrokerUnavailable as error:
        if not isinstance(error.__cause__, PublishError):
            raise
