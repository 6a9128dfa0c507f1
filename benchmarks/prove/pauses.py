"""The time until a pause and a resume reach every worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.prove.load import backlog
from harness.figure import Figure
from harness.judge import instants
from harness.run import Run
from harness.stack import Stack

SCOPES = (("queue", "email.low"), ("channel", "email"), ("provider", "smtp"))
PAUSED_S = 4.0


async def pause(stack: Stack) -> Sequence[Figure]:
    """Four workers send from one long queue; the last call of any worker counts."""
    async with stack.running(workers=4) as run:
        await run.client.set_behaviour(latency_ms=100)
        await backlog(run.client, "email.low", 30_000)
        await run.client.wait_for_calls(2_000)
        figures = [figure for kind, name in SCOPES for figure in await _paused(run, kind, name)]
        for child in list(run.workers):
            run.kill(child)  # the rest of the backlog does not matter
    return figures


async def _paused(run: Run, kind: str, name: str) -> Sequence[Figure]:
    await run.client.hold("pause", kind, name)
    paused_at = time.time()
    await asyncio.sleep(PAUSED_S)
    resumed_at = time.time()
    await run.client.hold("resume", kind, name)
    await asyncio.sleep(PAUSED_S)
    at = instants(await run.client.log())
    last = max(one for one in at if one < resumed_at) - paused_at
    first = min((one for one in at if one >= resumed_at), default=float("inf")) - resumed_at
    return [
        Figure(name=f"pause of a {kind}: last call after", value=max(0, last), unit="s", high=1),
        Figure(name="... resumed: first call after", value=first, unit="s", high=1),
    ]
