"""What stands in RabbitMQ, as data: one direct exchange, one quorum queue per channel x priority.

Arguments are compared on every redeclare (406 when they differ), so they are the same on every
version; tuning belongs in policies. There is no dead-letter exchange: a pointer cannot be poison
and a lost one is rescued, so the delivery limit only keeps RabbitMQ 4's default of 20 from
dropping healthy pointers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiormq.abc import AbstractChannel

from notifier.adapters.rabbitmq.failures import translated
from notifier.domain.notification import QueueKey

EXCHANGE: Final = "notifier"
DELIVERY_LIMIT: Final = 1_000
RPC_TIMEOUT_S: Final = 10.0


def queue_name(queue: QueueKey) -> str:
    """The name of a queue in RabbitMQ: `notifier.email.high`. Its routing key is `email.high`."""
    return f"{EXCHANGE}.{queue}"


async def declare(channel: AbstractChannel, queues: Iterable[QueueKey]) -> None:
    """Make sure the exchange, these queues and their bindings exist. Raises BrokerUnavailable."""
    with translated():
        await channel.exchange_declare(
            EXCHANGE, exchange_type="direct", durable=True, timeout=RPC_TIMEOUT_S
        )
        for queue in queues:
            await _declare_queue(channel, queue)


async def _declare_queue(channel: AbstractChannel, queue: QueueKey) -> None:
    name = queue_name(queue)
    await channel.queue_declare(
        name,
        durable=True,
        arguments={"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT},
        timeout=RPC_TIMEOUT_S,
    )
    await channel.queue_bind(name, EXCHANGE, str(queue), timeout=RPC_TIMEOUT_S)
