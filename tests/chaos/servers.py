"""Faults of RabbitMQ and Postgres: killed, wiped, out of memory, disk or connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg

from notifier.embedded.process import run_steps_async
from tests.chaos.disk import ballast
from tests.chaos.round import Fault, Round

SERVER_S: Final = 30.0
ALARM_S, HELD_S, FULL_S = 8.0, 8.0, 8.0
LOW, NORMAL = "1MB", "512MB"
TAKERS, ROUNDS_OF_TAKING = 8, 100
OURS: Final = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
CLOSE_OURS: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"


async def rabbitmq_killed(round_: Round) -> float:
    await round_.aim("queued", "sending")
    await run_steps_async(round_.arena.stack.rabbitmq.killing())
    await run_steps_async(round_.arena.stack.rabbitmq.starting())
    return time.time()


async def rabbitmq_wiped(round_: Round) -> float:
    await round_.aim("queued", "sending")
    await run_steps_async(round_.arena.stack.rabbitmq.wiping())
    return time.time()


async def rabbitmq_in_alarm(round_: Round) -> float:
    """Put RabbitMQ into a memory alarm: it blocks publishes and still delivers."""
    server = round_.arena.stack.rabbitmq
    await round_.aim("queued", "sending")
    await server.control("set_vm_memory_high_watermark", "absolute", LOW)
    try:
        await asyncio.sleep(ALARM_S)
    finally:
        await server.control("set_vm_memory_high_watermark", "absolute", NORMAL)
    return time.time()


async def postgres_killed(round_: Round) -> float:
    await round_.aim("queued", "sending")
    await run_steps_async(round_.arena.stack.postgres.killing())
    await run_steps_async(round_.arena.stack.postgres.starting())
    return time.time()


async def postgres_out_of_connections(round_: Round) -> float:
    """Close our connections and let another client hold all of Postgres's."""
    await round_.aim("queued", "sending")
    url, name = round_.arena.stack.postgres.url(), round_.arena.place.name
    async with _connected(url) as first, AsyncExitStack() as held:
        for _ in range(ROUNDS_OF_TAKING):
            await _take_all(held, url)
            if not await first.fetchval(OURS, name):
                break
            await first.fetch(CLOSE_OURS, name)
        assert not await first.fetchval(OURS, name), "ours hold on to their connections"
        await asyncio.sleep(HELD_S)
    return time.time()


async def _take_all(held: AsyncExitStack, url: str) -> None:
    """Open all free connections with several tasks, since Notifier competes for them."""

    async def take() -> None:
        while True:
            try:
                await held.enter_async_context(_connected(url))
            except asyncpg.TooManyConnectionsError:
                return

    async with asyncio.TaskGroup() as group:
        for number in range(TAKERS):
            group.create_task(take(), name=f"taker {number}")


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def postgres_disk_full(round_: Round) -> float:
    """Fill the disk of Postgres for a while; restart Postgres if it exited."""
    await round_.aim("queued", "sending")
    postgres = round_.arena.stack.postgres
    with ballast(postgres.data_folder):
        await asyncio.sleep(FULL_S)
    if postgres.pid is None:
        await run_steps_async(postgres.starting())
    return time.time()


SERVERS: Final = (
    Fault(
        strike=rabbitmq_killed,
        timeout_s=SERVER_S,
        text="RabbitMQ is killed (-9) and restarted.",
    ),
    Fault(
        strike=rabbitmq_wiped,
        timeout_s=SERVER_S,
        text="RabbitMQ is killed and comes back with an empty vhost.",
    ),
    Fault(
        strike=rabbitmq_in_alarm,
        timeout_s=SERVER_S,
        text="RabbitMQ is in a memory alarm for 8 s and blocks publishes.",
    ),
    Fault(
        strike=postgres_killed,
        timeout_s=SERVER_S,
        text="Postgres and all its processes are killed (-9) and restarted.",
    ),
    Fault(
        strike=postgres_out_of_connections,
        timeout_s=SERVER_S,
        text="Our connections are closed, and for 8 s another client holds all of Postgres's.",
    ),
    Fault(
        strike=postgres_disk_full,
        timeout_s=SERVER_S,
        on_small_disk=True,
        text="The disk of Postgres is full for 8 s (a small tmpfs, which needs root).",
    ),
)
