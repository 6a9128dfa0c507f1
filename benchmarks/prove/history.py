"""The cost of 2,000,000 sent notifications for new ones."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.prove.bulk import insert_history, settle, templates
from benchmarks.prove.metrics import until_finished
from harness.client import QUEUES, orders
from harness.figure import Figure
from harness.run import Run
from harness.stack import Stack

FINISHED = 2_000_000
COUNT = 20_000
WITHIN_S = 600.0


async def history(stack: Stack) -> Sequence[Figure]:
    """Submit while no worker runs, then drain with one worker.

    The history consists of copies of sent notifications and attempts over the last seven days, one
    partition per day. Postgres's statistics are from before the load, as for any sudden load.
    """
    bare_submit, bare_drain = await _rates(stack, finished=0)
    submit, drain = await _rates(stack, finished=FINISHED)
    return [
        Figure(name="submitted, no history", value=bare_submit, unit="/s"),
        Figure(
            name=f"... after {FINISHED:,} sent, compared",
            value=submit / bare_submit,
            unit="%",
            low=0.9,
        ),
        Figure(name="drained, no history", value=bare_drain, unit="/s"),
        Figure(
            name=f"... after {FINISHED:,} sent, compared",
            value=drain / bare_drain,
            unit="%",
            low=0.9,
        ),
    ]


async def _rates(stack: Stack, *, finished: int) -> tuple[float, float]:
    """Return submits and sends per second."""
    async with stack.running() as run:
        copied = await templates(run, QUEUES)
        await run.client.submit(orders(COUNT // 10))  # warm up plans and connections
        await run.all_final()
        await run.stop(run.workers[0])
        if finished:
            await insert_history(run, copied, finished)
        await settle(run)
        began = time.monotonic()
        ids = await run.client.submit(orders(COUNT))
        submit_s = time.monotonic() - began
        await until_finished([await run.join()], COUNT, WITHIN_S)
        await run.all_final()
        return COUNT / submit_s, COUNT / await _drain_s(run, ids[0])


async def _drain_s(run: Run, first: str) -> float:
    """Return the seconds from the start of the first call to the end of the last."""
    return await run.number(
        """
        SELECT extract(epoch FROM max(finished_at) - min(started_at))
        FROM attempts WHERE id >= $1::text::uuid""",
        first,
    )
