"""The exchange and the queues: one direct exchange, one quorum queue per channel and priority.

RabbitMQ compares the arguments at every declare (406 when they differ). They are therefore the same
in every version of Notifier; tuning belongs in policies. There is no dead-letter exchange: no
message can be poison, and a lost one is rescued. The delivery limit only replaces RabbitMQ 4's
default of 20, which would drop healthy messages.
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


class DeclareMode(Enum):
    """The effect of a declare. RabbitMQ closes the channel to report a failure.

    CREATE creates a missing thing and compares an existing one. CHECK (a passive declare) reports
    whether it exists. DRY_RUN never creates anything: it has an impossible argument, which RabbitMQ
    refuses (406) after it has checked the permissions (403).
    """

    CREATE = auto()
    CHECK = auto()
    DRY_RUN = auto()


def queue_name(queue: QueueKey) -> str:
    """Return the name in RabbitMQ: `notifier.email.high`. The routing key is `email.high`."""
    return f"{EXCHANGE}.{queue}"


async def declare(channel: AbstractChannel, queues: Iterable[QueueKey]) -> None:
    """Create the exchange, these queues and their bindings where they are missing.

    Raises BrokerUnavailable, also where one exists with other arguments.
    """
    await declare_exchange(channel)
    for queue in queues:
        await declare_and_bind(channel, queue)


async def declare_and_bind(channel: AbstractChannel, queue: QueueKey) -> None:
    """Create a queue and its binding where they are missing. Raises BrokerUnavailable."""
    await declare_queue(channel, queue)
    with translated():
        await channel.queue_bind(queue_name(queue), EXCHANGE, str(queue), timeout=RPC_TIMEOUT_S)


async def declare_exchange(
    channel: AbstractChannel, mode: DeclareMode = DeclareMode.CREATE
) -> None:
    """Declare the exchange. Raises BrokerUnavailable."""
    with translated():
        await channel.exchange_declare(
            EXCHANGE,
            exchange_type="direct",
            durable=True,
            passive=mode is DeclareMode.CHECK,
            arguments={"alternate-exchange": 0} if mode is DeclareMode.DRY_RUN else None,
            timeout=RPC_TIMEOUT_S,
        )


async def declare_queue(
    channel: AbstractChannel, queue: QueueKey, mode: DeclareMode = DeclareMode.CREATE
) -> None:
    """Declare a queue without its binding. Raises BrokerUnavailable."""
    arguments: ArgumentsType = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
    if mode is DeclareMode.DRY_RUN:
        arguments["x-expires"] = 0
    with translated():
        await channel.queue_declare(
            queue_name(queue),
            durable=True,
            passive=mode is DeclareMode.CHECK,
            arguments=arguments,
            timeout=RPC_TIMEOUT_S,
        )
