"""Several workers: one is killed, or all are replaced in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.prove.load import steady
from harness.client import QUEUES, orders
from harness.figure import Figure, never
from harness.judge import doubled, unexplained_repeats
from harness.run import Run, at_least_in_flight
from harness.stack import Stack
from harness.system import Child

GRACE_S = 25.0


async def worker_killed(stack: Stack) -> Sequence[Figure]:
    """146 consumers at 100 ms per send; the kill comes when 4,000 of 10,000 were called."""
    async with stack.running(workers=2) as run:
        await run.client.set_behaviour(latency_ms=100)
        ids = await run.client.submit(orders(10_000))
        await run.client.wait_for_calls(4_000)
        doomed = await run.identity(run.workers[0])
        killed_at = run.kill(run.workers[0])
        await asyncio.sleep(1)  # lets the server commit what was sent to it
        held = await run.sending(doomed)
        in_flight = at_least_in_flight(held)
        await run.all_final()
        took_s = await run.last_end(ids) - killed_at
        judged = await _judged(run, ids, {which for which, _ in held})
    return [
        Figure(name="10,000, one of two killed: all final after", value=took_s, unit="s", high=30),
        *judged,
        Figure(name="... in flight at the kill", value=in_flight, low=20, always=True),
    ]


async def _judged(run: Run, ids: Sequence[str], in_flight: set[str]) -> list[Figure]:
    accepted, ambiguous = await run.accepted(), await run.ambiguous()
    return [
        never("... not sent", await run.not_sent(ids)),
        never("... never called", len(set(ids) - set(accepted))),
        never("... duplicates beyond the in-flight", unexplained_repeats(accepted, in_flight)),
        never("... duplicates not marked Ambiguous", len(doubled(accepted) - ambiguous)),
        Figure(name="... duplicates", value=len(doubled(accepted))),
    ]


async def rolling_restart(stack: Stack) -> Sequence[Figure]:
    """Replace four workers one after the other at 300/s, 600 ms per send."""
    async with stack.running(workers=4) as run:
        await run.client.set_behaviour(latency_ms=600)
        async with asyncio.TaskGroup() as group:
            load = group.create_task(steady(run.client, QUEUES, rate=300, span_s=40))
            await asyncio.sleep(5)
            stops_s = [await _replace(run, child) for child in list(run.workers)]
        ids = list(load.result())
        await run.all_final()
        accepted, ambiguous = await run.accepted(), await run.ambiguous()
        unsent = await run.not_sent(ids)
    return [
        Figure(name="4 workers replaced: longest stop", value=max(stops_s), unit="s", high=GRACE_S),
        never("... not sent", unsent),
        never("... duplicates", len(doubled(accepted))),
        never("... Ambiguous", len(ambiguous)),
    ]


async def _replace(run: Run, child: Child) -> float:
    """Start a new worker, stop this one while it works, and return the seconds of the stop."""
    await run.join()
    at_least_in_flight(await run.sending(await run.identity(child)))
    return await run.stop(child)
