"""Trials of deliveries: nothing is lost or sent twice while services start, scale and restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from deploy.rehearsal.load import lost_and_duplicate, under_load
from deploy.rehearsal.stack import Stack, ready_seconds
from deploy.rehearsal.watching import workers_up
from harness.client import orders, until
from harness.figure import Figure, never

RATE = 60
WORKERS = 4
WORKER_PORT = 8001
SETTLE_S = 3.0


async def started(stack: Stack) -> Sequence[Figure]:
    """Start the stack; the compose file defines the order and the health checks."""
    started_at = time.monotonic()
    await stack.up()
    span_s = time.monotonic() - started_at
    stack.client.key = await stack.first_key()
    return [
        Figure(name="all services healthy", value=span_s, unit="s"),
        Figure(name="a first key in the log", value=int(stack.client.key != ""), low=1),
    ]


async def thousand(stack: Stack) -> Sequence[Figure]:
    started_at = time.monotonic()
    ids = await stack.client.submit(orders(1000))
    figures = await lost_and_duplicate(stack.client, ids)
    return [
        *figures,
        Figure(name="until all were sent", value=time.monotonic() - started_at, unit="s"),
    ]


async def scaled(stack: Stack) -> Sequence[Figure]:
    """Scale from one worker to four and back."""
    async with under_load(stack.client, rate=RATE) as ids:
        ready = await _scale_up(stack)
        await until(lambda: workers_up(stack), lambda count: count == WORKERS)
        await stack.up("--no-recreate", "--scale", "worker=1")
        await until(lambda: workers_up(stack), lambda count: count == 1)
        await asyncio.sleep(SETTLE_S)
    slowest = Figure(name="a new worker ready, the slowest", value=max(ready), unit="s", high=10)
    return [slowest, *await lost_and_duplicate(stack.client, ids)]


async def restarted(stack: Stack) -> Sequence[Figure]:
    """Restart every service once, except the sandbox, which would lose its log."""
    names = [name for name in stack.services if name not in {"sandbox", "migrate", "first-key"}]
    async with under_load(stack.client, rate=RATE) as ids:
        for name in names:
            await stack.compose("restart", name)
            await stack.healthy()
            await asyncio.sleep(SETTLE_S)
    restarts = Figure(name="services restarted", value=len(names), low=len(names))
    return [restarts, *await lost_and_duplicate(stack.client, ids)]


async def sandbox_restarted(stack: Stack) -> Sequence[Figure]:
    """Restart the sandbox. Its log is lost, so the statuses of the API count."""
    async with under_load(stack.client, rate=RATE) as ids:
        await stack.compose("restart", "sandbox")
        await stack.healthy()
        await asyncio.sleep(SETTLE_S)
    ended = await stack.client.all_final(ids)
    return [
        Figure(name="accepted by the API", value=len(ids), low=1),
        never("... and not sent", len(ids) - ended["sent"]),
    ]


async def _scale_up(stack: Stack) -> list[float]:
    """Return the start-up time of each new worker, measured while compose starts the others."""
    before, tasks = set(stack.containers("worker")), dict[str, asyncio.Task[float]]()
    async with asyncio.TaskGroup() as group:
        scaling = stack.up("--no-recreate", "--scale", f"worker={WORKERS}")
        group.create_task(scaling, name="scale")
        while len(tasks) < WORKERS - 1:
            running = await asyncio.to_thread(stack.containers, "worker")
            for new in set(running) - before - set(tasks):
                tasks[new] = group.create_task(ready_seconds(new, WORKER_PORT), name="ready")
            await asyncio.sleep(0.1)
    return [task.result() for task in tasks.values()]
