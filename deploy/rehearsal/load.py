"""A caller that submits steadily, never repeats a submit, and records the accepted ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp

from harness.client import QUEUES, Client, submit_body
from harness.figure import Figure, never

SUBMIT_INTERVAL_S = 0.1
API_ERRORS = (aiohttp.ClientError, TimeoutError, AssertionError)
"""Errors of the client for a missing response and for a status other than 202."""


@asynccontextmanager
async def under_load(client: Client, *, rate: int) -> AsyncIterator[list[str]]:
    """Submit `rate` per second over all queues inside the block. Yields the ids accepted so far."""
    ids = list[str]()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_submit(client, round(rate * SUBMIT_INTERVAL_S), ids), name="load")
        try:
            yield ids
        finally:
            task.cancel()


async def lost_and_duplicate(client: Client, ids: Sequence[str]) -> list[Figure]:
    """Wait until all are final, then count lost and duplicate sends in the sandbox's log."""
    await client.all_final(ids)
    accepted = await client.accepted()
    return [
        Figure(name="accepted by the API", value=len(ids), low=1),
        never("... and never called", sum(accepted[id_] == 0 for id_ in ids)),
        never("... called more than once", sum(accepted[id_] > 1 for id_ in ids)),
    ]


async def _submit(client: Client, batch: int, ids: list[str]) -> None:
    while True:
        first = len(ids)
        bodies = [submit_body(QUEUES[(first + number) % len(QUEUES)]) for number in range(batch)]
        with suppress(*API_ERRORS):
            ids += await client.submit(bodies)
        await asyncio.sleep(SUBMIT_INTERVAL_S)
