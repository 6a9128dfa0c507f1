"""pgqueuer on Postgres, with asyncpg.

Its own installation is durable: no table is unlogged. A worker is `pgq run`, which runs as many
jobs at once as it has fetched; the batch size is set beside it. One connection per process: with a
pool its queries overlapped, at more CPU time and no higher rate. A finished job leaves the queue
table; `pgqueuer_log` keeps three rows of it: queued, picked and successful.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers import place
from benchmarks.peers.job import perform_async
from benchmarks.peers.submit import async_app

_open: list[Queries] = []


async def send(job: Job) -> None:
    await perform_async(json.loads(job.payload or b""))


@asynccontextmanager
async def worker() -> AsyncIterator[PgQueuer]:
    connection = await asyncpg.connect(place.database_url())
    pgqueuer = PgQueuer.from_asyncpg_connection(connection)
    for name in place.queue_names():
        pgqueuer.entrypoint(name)(send)
    yield pgqueuer
    await connection.close()


async def enqueue(notification: dict[str, Any]) -> str:
    payload = json.dumps(notification).encode()
    (number,) = await _open[0].enqueue(place.queue_of(notification), payload)
    return str(number)


async def enqueue_many(many: list[dict[str, Any]]) -> None:
    queues = [place.queue_of(one) for one in many]
    payloads = [json.dumps(one).encode() for one in many]
    await _open[0].enqueue(queues, payloads, [0] * len(many))


@asynccontextmanager
async def connected(_: FastAPI | None = None) -> AsyncIterator[None]:
    async with asyncpg.create_pool(place.database_url(), max_size=place.CONNECTIONS) as pool:
        _open.append(Queries.from_asyncpg_pool(pool))
        yield


app = async_app(enqueue, connected)
