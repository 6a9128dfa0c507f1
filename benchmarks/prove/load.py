"""Who submits, and how steadily."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random

from tests.e2e.client import QUEUES, Client, an_order

EVERY_S = 0.05
SEED = 1


async def poisson(client: Client, *, rate: float, span_s: float) -> None:
    """Single submits at random over nine queues."""
    random, began, at = Random(SEED), time.monotonic(), 0.0
    async with asyncio.TaskGroup() as group:
        while at < span_s:
            at += random.expovariate(rate)
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            group.create_task(client.submit_one(an_order(random.choice(QUEUES))))


async def steady(
    client: Client, queues: Sequence[str], *, rate: float, span_s: float
) -> dict[str, float]:
    """So many a second in turn over these queues; their ids, and when each was submitted."""
    began, submitted = time.monotonic(), dict[str, float]()
    while (passed := time.monotonic() - began) < span_s:
        first, after = len(submitted), round(rate * (passed + EVERY_S))
        wanted = [an_order(queues[number % len(queues)]) for number in range(first, after)]
        asked = time.time()
        submitted |= dict.fromkeys(await client.submit(wanted), asked)
        await asyncio.sleep(max(0.0, began + passed + EVERY_S - time.monotonic()))
    return submitted


async def backlog(client: Client, queue: str, count: int) -> list[str]:
    """All at once."""
    return await client.submit([an_order(queue) for _ in range(count)])
