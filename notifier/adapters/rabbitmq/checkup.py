"""Looks at a RabbitMQ, over one connection, and changes nothing.

Only what is there is declared with our arguments: RabbitMQ compares them and changes nothing. An
alarm is told only to who publishes, so a message is published that no queue can get.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
from notifier.adapters.rabbitmq.connection import (
    CONNECT_TIMEOUT_S,
    close_channel,
    is_unblocked,
    open_channel,
    open_connection,
    quieten_driver,
)
from notifier.adapters.rabbitmq.diagnosis import Alarm, Sight, State
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.topology import Way, declare_exchange, declare_queue
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.finding import Finding
from notifier.domain.notification import QueueKey

WITHIN_S: Final = 5.0
RETURNED_WITHIN_S: Final = 2.0
_Declare = Callable[[AbstractChannel, Way], Awaitable[None]]

NOBODY: Final = ""
"""The default exchange: nobody can bind to it, so a name that no queue has leads nowhere."""


async def examine_rabbitmq(url: str, queues: Sequence[QueueKey], *, place: str) -> list[Finding]:
    """All there is to say of a RabbitMQ; `place` is its URL as it may be shown.

    Raises nothing for what is wrong with the broker.
    """
    quieten_driver()
    try:
        async with open_connection(url, "doctor") as connection:
            return await _look_around(connection, queues, place)
    except BrokerUnavailable as error:
        return diagnosis.of_no_connection(error, queues, place=place, within_s=CONNECT_TIMEOUT_S)


async def _look_around(
    connection: AbstractConnection, queues: Sequence[QueueKey], place: str
) -> list[Finding]:
    eyes = _Eyes(connection)
    exchange = await eyes.see(declare_exchange)
    return [
        diagnosis.of_reach(place),
        diagnosis.of_version(connection.server_properties),
        diagnosis.of_exchange(exchange),
        *[
            diagnosis.of_queue(
                await eyes.see(_declaring(queue)),
                queue,
                has_exchange=exchange.state is not State.ABSENT,
            )
            for queue in queues
        ],
        diagnosis.of_alarm(await eyes.see_alarm()),
    ]


def _declaring(queue: QueueKey) -> _Declare:
    return lambda channel, way: declare_queue(channel, queue, way)


class _Eyes:
    """One thing at a time, each within 5 s; none any more once the broker is gone."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._is_gone = False

    async def see(self, declare: _Declare) -> Sight:
        """Whether a thing is there, and ours; or whether we might make it.

        Between the looking and the comparing somebody may delete it: then it is made anew, as any
        process would.
        """
        looked = await self._try(declare, Way.LOOK)
        match looked.state:
            case State.OURS:
                return await self._try(declare, Way.MAKE)
            case State.ABSENT:
                rehearsed = await self._try(declare, Way.REHEARSE)
                return looked if rehearsed.state is State.UNLIKE else rehearsed
            case _:
                return looked

    async def see_alarm(self) -> Alarm:
        """Whether a message would be taken: one to nobody comes back at once.

        The last question: in alarm the broker does not even read that the channel is closed.
        """
        if self._is_gone:
            return Alarm.UNKNOWN
        try:
            async with asyncio.timeout(WITHIN_S):
                channel = await open_channel(self._connection, confirms=True)
                return await _publish_to_nobody(channel)
        except (BrokerUnavailable, TimeoutError) as error:
            is_refused = isinstance(error.__cause__, ChannelAccessRefused)
            return Alarm.HIDDEN if is_refused else Alarm.UNKNOWN

    async def _try(self, declare: _Declare, way: Way) -> Sight:
        if self._is_gone:
            return Sight(State.UNKNOWN, "RabbitMQ stopped answering")
        try:
            async with asyncio.timeout(WITHIN_S), _a_channel(self._connection) as channel:
                await declare(channel, way)
        except (BrokerUnavailable, TimeoutError) as error:
            return self._unseen(error)
        return Sight(State.OURS)

    def _unseen(self, error: BrokerUnavailable | TimeoutError) -> Sight:
        match error.__cause__:
            case ChannelNotFoundEntity() as cause:  # it says so, too, of one whose node is down
                is_absent = "NOT_FOUND - no " in str(cause)
                return Sight(State.ABSENT if is_absent else State.UNKNOWN, str(cause))
            case ChannelAccessRefused() as cause:
                return Sight(State.REFUSED, str(cause))
            case AMQPChannelError() as cause:
                return Sight(State.UNLIKE, str(cause))
            case _:
                self._is_gone = True
                return Sight(State.UNKNOWN, str(error) or f"no answer within {WITHIN_S:g} s")


@asynccontextmanager
async def _a_channel(connection: AbstractConnection) -> AsyncIterator[Channel]:
    """For one question: RabbitMQ closes a channel to say no."""
    channel = await open_channel(connection)
    try:
        yield channel
    finally:
        await close_channel(channel)


async def _publish_to_nobody(channel: Channel) -> Alarm:
    """In alarm RabbitMQ still takes the first message of a connection, and reads no more then."""
    try:
        async with asyncio.timeout(RETURNED_WITHIN_S):
            for _ in range(2):
                await _publish_one(channel)
    except TimeoutError:
        return Alarm.UNKNOWN if await is_unblocked(channel) else Alarm.ON
    return Alarm.OFF


async def _publish_one(channel: Channel) -> None:
    """Returns when the broker has sent it back. Raises BrokerUnavailable."""
    try:
        with translated():
            await channel.basic_publish(
                b"", exchange=NOBODY, routing_key=uuid4().hex, mandatory=True
            )
    except BrokerUnavailable as error:
        if not isinstance(error.__cause__, PublishError):
            raise
