"""What a backlog costs the worker: 1,000,000 waiting against 10,000."""

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
    """One worker with so much waiting."""

    at_start_mib: float
    mib: float
    drain_per_s: float
    worker_series: int
    api_series: int


async def growth(stack: Stack) -> Sequence[Figure]:
    """Both backlogs are put into Postgres as copies, over nine queues, and kept at their size.

    The same feeder tops both up once a second with what was sent, so that both pay for it alike.
    The sandbox answers at once. The few are measured before and after the many, which stand against
    the mean of both: that a machine becomes slower or faster meanwhile is no cost of theirs.
    The few of the first time are all sent, and then the database's size is divided by its
    notifications: rows, indexes and attempts. What is left of the others is of no interest.
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
        Figure(name=f"... with {MANY:,} of that", value=memory, unit="%", low=0.95, high=1.05),
        Figure(name=f"drained with {FEW:,} waiting", value=few_per_s, unit="/s"),
        Figure(name=f"... with {MANY:,} of that", value=rate, unit="%", low=0.9),
        Figure(name="series of a worker", value=many.worker_series, high=1000, always=True),
        Figure(name="series of an API", value=many.api_series, high=1000, always=True),
        Figure(name="database, all final, a notification", value=row_bytes, unit="bytes"),
    ]


async def _alone(stack: Stack, waiting: int) -> Cost:
    """On a system of its own, which ends with what is left."""
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
    """What was sent comes in again; how many were sent a second."""
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
