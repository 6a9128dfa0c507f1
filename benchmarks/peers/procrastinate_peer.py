"""procrastinate on Postgres, with psycopg.

A worker is `procrastinate worker`, woken by LISTEN/NOTIFY. It fetches and finishes each job by a
statement of its own. Finished jobs are kept, as by default (`--delete-jobs never`): a row of the
job and one of each change of its state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from procrastinate import App, PsycopgConnector

from benchmarks.peers import place
from benchmarks.peers.job import perform_async
from benchmarks.peers.submit import async_app

procrastinate = App(
    connector=PsycopgConnector(
        conninfo=place.database_url(), min_size=place.CONNECTIONS, max_size=place.CONNECTIONS
    )
)


@procrastinate.task(name="send")
async def send(notification: dict[str, Any]) -> None:
    await perform_async(notification)


async def enqueue(notification: dict[str, Any]) -> str:
    queue = send.configure(queue=place.queue_of(notification))
    return str(await queue.defer_async(notification=notification))


async def enqueue_many(many: list[dict[str, Any]]) -> None:
    queue = send.configure(queue=place.queue_of(many[0]))
    await queue.batch_defer_async(*({"notification": one} for one in many))


@asynccontextmanager
async def connected(_: FastAPI | None = None) -> AsyncIterator[None]:
    async with procrastinate.open_async():
        yield


app = async_app(enqueue, connected)
