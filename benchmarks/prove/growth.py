"""The cost of a backlog for a worker: 1,000,000 waiting against 10,000."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from benchmarks.prove.bulk import BYTES_EACH, insert_waiting, settle, templates
from benchmarks.prove.metrics import resident_mib, series, total
from harness.client import QUEUES
from harness.figure import Figure
from harness.run import Run
from harness.stack import Stack

FEW, MANY = 10_000, 1_000_000
SETTLES_S, SPAN_S, FEED_EVERY_S = 5.0, 25.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One worker with a backlog of this size."""

    at_start_mib: float
    mib: float
    drain_per_s: float
    worker_series: int
    api_series: int


async def growth(stack: Stack) -> Sequence[Figure]:
    """Compare a small and a large backlog, copied into Postgres over nine queues.

    A feeder replaces once a second what was sent, at the same cost for both sizes. The sandbox
    answers at once. The small backlog is measured before and after the large one, and the large one
    is compared with the mean, so that a change of the machine's speed does not count. The first
    small backlog is sent completely; then the size of the database, with indexes and attempts, is
    divided by its notifications.
    """
    async with stack.running() as run:
        few = await _with_waiting(run, FEW)
        await run.all_final()
        row_bytes = await run.number(BYTES_EACH)
    many = await _alone(stack, MANY)
    after = await _alone(stack, FEW)
    few_per_s = (few.drain_per_s + after.drain_per_s) / 2
    memory, rate = many.mib / few.mib, many.drain_per_s / few_per_s
    return [
        Figure(name="worker's memory at its start", value=many.at_start_mib, unit="MiB", high=90),
        Figure(name=f"... with {FEW:,} waiting", value=few.mib, unit="MiB"),
        Figure(
            name=f"... with {MANY:,} waiting, compared", value=memory, unit="%", low=0.95, high=1.05
        ),
        Figure(name=f"drained with {FEW:,} waiting", value=few_per_s, unit="/s"),
        Figure(name=f"... with {MANY:,} waiting, compared", value=rate, unit="%", low=0.9),
        Figure(name="series of a worker", value=many.worker_series, high=1000, always=True),
        Figure(name="series of an API", value=many.api_series, high=1000, always=True),
        Figure(name="database size per notification, all final", value=row_bytes, unit="bytes"),
    ]


async def _alone(stack: Stack, waiting: int) -> Cost:
    """Measure one backlog on a new system, which is killed at the end."""
    async with stack.running() as run:
        cost = await _with_waiting(run, waiting)
        run.kill(run.workers[0])
        return cost


async def _with_waiting(run: Run, waiting: int) -> Cost:
    (worker,) = run.workers
    at_start = await resident_mib(worker)
    copied = await templates(run, QUEUES)
    await insert_waiting(run, copied, waiting)
    await settle(run)
    await _feed(run, copied, SETTLES_S)
    drained = await _feed(run, copied, SPAN_S)
    return Cost(
        at_start_mib=at_start,
        mib=await resident_mib(worker),
        drain_per_s=drained,
        worker_series=await series(worker),
        api_series=await series(run.api),
    )


async def _feed(run: Run, copied: Sequence[UUID], span_s: float) -> float:
    """Refill the backlog as it is sent; return the sends per second."""
    began, first = time.monotonic(), await _sent(run)
    seen, passed = first, 0.0
    while passed < span_s:
        await asyncio.sleep(FEED_EVERY_S)
        now, passed = await _sent(run), time.monotonic() - began
        await insert_waiting(run, copied, now - seen)
        seen = now
    return (seen - first) / passed


async def _sent(run: Run) -> int:
    return round(await total(run.workers, "notifier_finished", status="sent"))
