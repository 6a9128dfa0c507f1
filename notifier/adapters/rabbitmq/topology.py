"""What stands in RabbitMQ, as data: one direct exchange, one quorum queue per channel x priority.

Arguments are compared on every redeclare (406 when they differ), so they are the same on every
version; tuning belongs in policies. There is no dead-letter exchange: a pointer cannot be poison
and a lost one is rescued, so the delivery limit only keeps RabbitMQ 4's default of 20 from
dropping healthy pointers.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from aiormq.abc import AbstractChannel, ArgumentsType

from notifier.adapters.rabbitmq.errors import translated
from notifier.domain.notification import QueueKey

EXCHANGE: Final = "notifier"
DELIVERY_LIMIT: Final = 1_000
RPC_TIMEOUT_S: Final = 10.0


class Way(Enum):
    """What a declare is for; RabbitMQ closes the channel to say no.

    MAKE makes what is missing and compares what is there. LOOK only says whether it is there.
    REHEARSE makes nothing, ever: it has an argument that cannot be, which RabbitMQ says (406) after
    it has looked at our rights (403).
    """

    MAKE = auto()
    LOOK = auto()
    REHEARSE = auto()


def queue_name(queue: QueueKey) -> str:
    """The name of a queue in RabbitMQ: `notifier.email.high`. Its routing key is `email.high`."""
    return f"{EXCHANGE}.{queue}"


async def declare(channel: AbstractChannel, queues: Iterable[QueueKey]) -> None:
    """Make sure the exchange, these queues and their bindings exist. Raises BrokerUnavailable."""
    await declare_exchange(channel)
    for queue in queues:
        await declare_queue(channel, queue)
        with translated():
            await channel.queue_bind(queue_name(queue), EXCHANGE, str(queue), timeout=RPC_TIMEOUT_S)


async def declare_exchange(channel: AbstractChannel, way: Way = Way.MAKE) -> None:
    """Make sure that the exchange exists, or one of the other ways. Raises BrokerUnavailable."""
    with translated():
        await channel.exchange_declare(
            EXCHANGE,
            exchange_type="direct",
            durable=True,
            passive=way is Way.LOOK,
            arguments={"alternate-exchange": 0} if way is Way.REHEARSE else None,
            timeout=RPC_TIMEOUT_S,
        )


async def declare_queue(channel: AbstractChannel, queue: QueueKey, way: Way = Way.MAKE) -> None:
    """As declare_exchange; the queue is not bound by it."""
    arguments: ArgumentsType = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
    if way is Way.REHEARSE:
        arguments["x-expires"] = 0
    with translated():
        await channel.queue_declare(
            queue_name(queue),
            durable=True,
            passive=way is Way.LOOK,
            arguments=arguments,
            timeout=RPC_TIMEOUT_S,
        )
