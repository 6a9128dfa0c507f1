"""RabbitMQ and Postgres are killed, wiped, filled up."""

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


async def rabbitmq_killed(this: Round) -> float:
    await this.aim("queued", "sending")
    await run_steps_async(this.arena.stack.rabbitmq.killing())
    await run_steps_async(this.arena.stack.rabbitmq.starting())
    return time.time()


async def rabbitmq_wiped(this: Round) -> float:
    await this.aim("queued", "sending")
    await run_steps_async(this.arena.stack.rabbitmq.wiping())
    return time.time()


async def rabbitmq_in_alarm(this: Round) -> float:
    """It takes no publishes; what it has it delivers."""
    server = this.arena.stack.rabbitmq
    await this.aim("queued", "sending")
    await server.control("set_vm_memory_high_watermark", "absolute", LOW)
    try:
        await asyncio.sleep(ALARM_S)
    finally:
        await server.control("set_vm_memory_high_watermark", "absolute", NORMAL)
    return time.time()


async def postgres_killed(this: Round) -> float:
    await this.aim("queued", "sending")
    await run_steps_async(this.arena.stack.postgres.killing())
    await run_steps_async(this.arena.stack.postgres.starting())
    return time.time()


async def postgres_out_of_connections(this: Round) -> float:
    """Ours are closed, and somebody else has all there are."""
    await this.aim("queued", "sending")
    url, name = this.arena.stack.postgres.url(), this.arena.place.name
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
    """All that are free, as fast as several can: ours ask for them, too."""

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


async def postgres_disk_full(this: Round) -> float:
    """Its disk has no room for a while; if it gave up, it is started again."""
    await this.aim("queued", "sending")
    postgres = this.arena.stack.postgres
    with ballast(postgres.data_folder):
        await asyncio.sleep(FULL_S)
    if postgres.pid is None:
        await run_steps_async(postgres.starting())
    return time.time()


SERVERS: Final = (
    Fault(
        strike=rabbitmq_killed,
        within_s=SERVER_S,
        says="RabbitMQ is killed (-9) and started again.",
    ),
    Fault(
        strike=rabbitmq_wiped,
        within_s=SERVER_S,
        says="RabbitMQ is killed and comes back with nothing but an empty vhost.",
    ),
    Fault(
        strike=rabbitmq_in_alarm,
        within_s=SERVER_S,
        says="RabbitMQ is in a memory alarm for 8 s: it takes no publishes.",
    ),
    Fault(
        strike=postgres_killed,
        within_s=SERVER_S,
        says="Postgres and all its processes are killed (-9) and started again.",
    ),
    Fault(
        strike=postgres_out_of_connections,
        within_s=SERVER_S,
        says="All connections of ours are closed, and for 8 s others hold all that Postgres has.",
    ),
    Fault(
        strike=postgres_disk_full,
        within_s=SERVER_S,
        on_small_disk=True,
        says="The disk of Postgres is full for 8 s (a small tmpfs: only root can play it).",
    ),
)
