"""Loads: submits at random intervals, at a steady rate, or all at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random

from harness.client import QUEUES, Client, submit_body

EVERY_S = 0.05
SEED = 1


async def poisson(
    client: Client, *, rate: float, span_s: float, queues: Sequence[str] = QUEUES
) -> dict[str, float]:
    """Submit single notifications at random intervals over these queues.

    Returns the ids with the time of each request. No request waits for the response to another.
    """
    random, began, at = Random(SEED), time.monotonic(), 0.0
    asked = dict[str, float]()
    async with asyncio.TaskGroup() as group:
        while at < span_s:
            at += random.expovariate(rate)
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            group.create_task(_submit_one(client, random.choice(queues), asked))
    return asked


async def _submit_one(client: Client, queue: str, asked: dict[str, float]) -> None:
    now = time.time()
    status, _, answer = await client.post(submit_body(queue))
    assert status == 202, f"{status}: {answer}"
    asked[answer["id"]] = now


async def steady(
    client: Client, queues: Sequence[str], *, rate: float, span_s: float
) -> dict[str, float]:
    """Submit at a steady rate, in turn over these queues; return the ids with their times."""
    began, submitted = time.monotonic(), dict[str, float]()
    while (passed := time.monotonic() - began) < span_s:
        first, after = len(submitted), round(rate * (passed + EVERY_S))
        wanted = [submit_body(queues[number % len(queues)]) for number in range(first, after)]
        asked = time.time()
        submitted |= dict.fromkeys(await client.submit(wanted), asked)
        await asyncio.sleep(max(0.0, began + passed + EVERY_S - time.monotonic()))
    return submitted


async def backlog(client: Client, queue: str, count: int) -> list[str]:
    """Submit all at once."""
    return await client.submit([submit_body(queue) for _ in range(count)])
