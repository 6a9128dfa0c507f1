"""A caller who submits steadily, repeats nothing, and remembers what was answered with 202."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp

from harness.client import QUEUES, Client, submit_body
from harness.figure import Figure, never

EVERY_S = 0.1
AWAY = (aiohttp.ClientError, TimeoutError, AssertionError)
"""How the client says that it was not answered, or not with 202."""


@asynccontextmanager
async def under_load(client: Client, *, rate: int) -> AsyncIterator[list[str]]:
    """Submit `rate` a second over all queues until the block is left; the ids accepted so far."""
    ids = list[str]()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_submit(client, round(rate * EVERY_S), ids), name="load")
        try:
            yield ids
        finally:
            task.cancel()


async def lost_and_doubled(client: Client, ids: Sequence[str]) -> list[Figure]:
    """Judged by the sandbox's log, once all are final."""
    await client.all_final(ids)
    accepted = await client.accepted()
    return [
        Figure(name="accepted by the API", value=len(ids), low=1),
        never("... and never called", sum(accepted[which] == 0 for which in ids)),
        never("... called more than once", sum(accepted[which] > 1 for which in ids)),
    ]


async def _submit(client: Client, batch: int, ids: list[str]) -> None:
    while True:
        first = len(ids)
        wanted = [submit_body(QUEUES[(first + number) % len(QUEUES)]) for number in range(batch)]
        with suppress(*AWAY):
            ids += await client.submit(wanted)
        await asyncio.sleep(EVERY_S)
