"""Taskiq with taskiq-aio-pika.

Quorum queues, persistent and confirmed publishes are its defaults. `qos` limits the messages a
worker process holds, `--max-async-tasks` its concurrent jobs; `--ack-type when_executed` acks after
the job. Its workers take uvloop when it is installed. Priorities are its `max_priority` and
the label `priority`, on a classic queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue, QueueType

from benchmarks.peers import place
from benchmarks.peers.job import perform_async
from benchmarks.peers.submit import async_app

KIND = QueueType.CLASSIC if place.has_priorities() else QueueType.QUORUM

broker = AioPikaBroker(
    place.broker_url(),
    qos=place.prefetch(),
    task_queues=[
        Queue(name=name, type=KIND, max_priority=10 if place.has_priorities() else None)
        for name in place.queue_names()
    ],
)


@broker.task
async def send(notification: dict[str, Any]) -> None:
    await perform_async(notification)


async def enqueue(notification: dict[str, Any]) -> str:
    labels: dict[str, Any] = {"queue_name": place.queue_of(notification)}
    if place.has_priorities():
        labels["priority"] = place.priority_of(notification)
    task = await send.kicker().with_labels(**labels).kiq(notification)
    return task.task_id


@asynccontextmanager
async def connected(_: FastAPI | None = None) -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


app = async_app(enqueue, connected)
