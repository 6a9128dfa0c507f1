"""Oban for Python on Postgres, with psycopg.

A worker is `oban start`; it fetches as many jobs as its limit leaves free with one statement, and
records each end with one. Finished jobs are kept until its pruner deletes them after a day.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from oban import Oban, worker
from oban.job import Job

from benchmarks.peers import place
from benchmarks.peers.job import perform_async
from benchmarks.peers.submit import async_app

_open: list[Oban] = []


@worker()
class Send:
    async def process(self, job: Job) -> None:
        await perform_async(job.args)


async def enqueue(notification: dict[str, Any]) -> str:
    job = await _open[0].enqueue(Send.new(notification, queue=place.queue_of(notification)))
    return str(job.id)


async def enqueue_many(many: list[dict[str, Any]]) -> None:
    await _open[0].enqueue_many([Send.new(one, queue=place.queue_of(one)) for one in many])


@asynccontextmanager
async def connected(_: FastAPI | None = None) -> AsyncIterator[None]:
    size = place.CONNECTIONS
    pool = await Oban.create_pool(place.database_url(), min_size=size, max_size=size)
    async with Oban(pool=pool) as oban:
        _open.append(oban)
        yield
    await pool.close()


app = async_app(enqueue, connected)
