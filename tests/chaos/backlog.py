"""A backlog of the queue whose messages are full and whose calls are in the trace."""

from __future__ import annotations

import asyncio
from typing import Final

from harness.client import Document, submit_body, until
from harness.run import TooFewInFlight
from tests.chaos.round import Round
from tests.chaos.trace import Kind, of_kind
from tests.chaos.traced import FAST, FULL

BATCH: Final = 1000
WARM: Final = 300
"""Calls of the backlog after which the queue is in full work."""
MANY: Final = 32
"""Pointers of a message that counts as full; most have twice as many."""


def backlog_bodies(count: int, call_ms: int) -> list[Document]:
    """Return submit bodies whose calls take this time and are accepted."""
    return [submit_body(str(FULL), recipient=f"{FAST}{call_ms}")] * count


async def submit_backlog(round_: Round, batches: int, call_ms: int) -> None:
    """Submit batches of 1,000 and wait until their messages are full and worked off at speed.

    Raises TooFewInFlight if most pointers were in smaller messages.
    """
    async with asyncio.TaskGroup() as group:
        for _ in range(batches):
            group.create_task(round_.load.submit(backlog_bodies(BATCH, call_ms)))

    async def called() -> int:
        return len(of_kind(round_.trace.events(), Kind.ACCEPTED))

    await until(called, lambda count: count >= WARM)
    sizes = [
        len(event.keys)
        for event in of_kind(round_.trace.events(), Kind.MESSAGE)
        if event.where == str(FULL)
    ]
    full = sum(size for size in sizes if size >= MANY)
    if 2 * full < sum(sizes):
        raise TooFewInFlight(f"{full} of {sum(sizes)} pointers were in full messages")
    round_.found.append(f"messages had up to {max(sizes)} pointers")
