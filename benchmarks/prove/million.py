"""Sends a million notifications: each once, by processes that do not grow."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.prove.metrics import resident_mib, series, until_finished
from harness.client import orders
from harness.figure import Figure, never
from harness.run import Run
from harness.stack import Stack
from harness.statuses import on_statuses
from harness.system import Child

COUNT, FIRST, CHUNK = 1_000_000, 50_000, 10_000
WITHIN_S = 3 * 3600.0


async def million(stack: Stack) -> Sequence[Figure]:
    """Submit over nine queues through the batch API at full speed, to two workers.

    Judged by the rows and by the sandbox's summary of its log. Memory is compared with the memory
    after the first 50,000 sends.
    """
    async with stack.running(workers=2) as run:
        await _submit(run, FIRST)
        await until_finished(run.workers, FIRST, WITHIN_S)
        before = [await resident_mib(child) for child in _processes(run)]
        await _submit(run, COUNT - FIRST)
        await until_finished(run.workers, COUNT, WITHIN_S)
        await run.all_final()
        after = [await resident_mib(child) for child in _processes(run)]
        most_series = max([await series(child) for child in _processes(run)])
        exact = await _exactly_once(run)
    api, *workers = (then / first for first, then in zip(before, after, strict=True))
    return [
        *exact,
        Figure(name="... series of a process", value=most_series, high=1000, always=True),
        Figure(
            name="... API's memory, compared with that after 50,000", value=api, unit="x", high=1.1
        ),
        Figure(name="... workers' memory, the same", value=max(workers), unit="x", high=1.1),
        Figure(name="... API's memory at the end", value=after[0], unit="MiB"),
        Figure(name="... a worker's memory at the end", value=max(after[1:]), unit="MiB"),
    ]


async def _submit(run: Run, count: int) -> None:
    for _ in range(count // CHUNK):
        await run.client.submit(orders(CHUNK))


async def _exactly_once(run: Run) -> Sequence[Figure]:
    sent = await run.number(on_statuses("SELECT count(*) FROM statuses WHERE status = 'sent'"))
    again = await run.number("""
        SELECT count(*) FROM (SELECT FROM attempts GROUP BY id HAVING count(*) <> 1) AS id""")
    tried = await run.number("SELECT count(DISTINCT id) FROM attempts")
    summary = await run.client.summary()
    return [
        never(f"{COUNT:,} through the batch API: not sent", COUNT - sent),
        never("... without an attempt", COUNT - tried),
        never("... with more than one attempt", again),
        never("... never accepted by the sandbox", COUNT - summary["accepted_notifications"]),
        never("... accepted by it more than once", summary["doubled"]),
    ]


def _processes(run: Run) -> Sequence[Child]:
    return [run.api, *run.workers]
