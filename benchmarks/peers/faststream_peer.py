"""FastStream on RabbitMQ.

Quorum queues by its `queue_type`, `persist=True`, publisher confirms by default; acknowledged
after the handler. `prefetch_count` of the channel is also the number of concurrent handlers per
queue. `faststream run` takes uvloop when it is installed. Priorities are `x-max-priority` and
`priority=`, on a classic queue.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from benchmarks.peers import place
from benchmarks.peers.job import perform_async
from benchmarks.peers.submit import async_app

broker = RabbitBroker(
    place.broker_url(),
    default_channel=Channel(prefetch_count=place.concurrency()),
    log_level=logging.DEBUG,  # log lines per message, which `--log-level warning` hides
)
faststream = FastStream(broker)


def declared(name: str) -> RabbitQueue:
    if place.has_priorities():
        return RabbitQueue(name, durable=True, arguments={"x-max-priority": 10})
    return RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True)


QUEUES = {name: declared(name) for name in place.queue_names()}


async def send(notification: dict[str, Any]) -> None:
    await perform_async(notification)


for queue in QUEUES.values():
    broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)(send)


async def enqueue(notification: dict[str, Any]) -> str:
    which = str(uuid4())
    await broker.publish(
        notification,
        QUEUES[place.queue_of(notification)],
        persist=True,
        message_id=which,
        priority=place.priority_of(notification),
    )
    return which


@asynccontextmanager
async def connected(_: FastAPI | None = None) -> AsyncIterator[None]:
    """Publishing needs only a connection; the queues may not exist before the first worker."""
    await broker.connect()
    for queue in QUEUES.values():
        await broker.declare_queue(queue)
    yield
    await broker.stop()


app = async_app(enqueue, connected)
