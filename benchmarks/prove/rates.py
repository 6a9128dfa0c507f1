"""One provider rate over several workers, of which one joins and one is killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.prove.load import backlog, steady
from harness.figure import Figure
from harness.judge import count_within, instants, max_in_any_second
from harness.run import Run, sleep_until
from harness.stack import Stack

SPAN_S, JOIN_S, KILL_S, AROUND_S = 60.0, 15.0, 40.0, 5.0
SETTLES_S = 3.0
LATE_S = 2.0
"""High notifications of the last two seconds need not be called by the end."""


async def rate_50(stack: Stack) -> Sequence[Figure]:
    return await _rate(stack, 50)


async def rate_500(stack: Stack) -> Sequence[Figure]:
    return await _rate(stack, 500)


async def _rate(stack: Stack, rate: int) -> Sequence[Figure]:
    return [figure for workers in (1, 2, 4) for figure in await _over(stack, rate, workers)]


async def _over(stack: Stack, rate: int, workers: int) -> Sequence[Figure]:
    """More low than can be sent waits all the time; high arrives at half the rate."""
    async with stack.running(workers=workers, providers__smtp__rate=rate) as run:
        await run.client.set_behaviour(latency_ms=20)
        await backlog(run.client, "email.low", round(rate * SPAN_S))
        await run.client.wait_for_calls(rate)
        await asyncio.sleep(SETTLES_S)
        began = time.time()
        async with asyncio.TaskGroup() as group:
            load = group.create_task(
                steady(run.client, ["email.high"], rate=rate / 2, span_s=SPAN_S)
            )
            killed_at = await _one_joins_one_is_killed(run, began)
        calls, ended = await run.client.log(), began + SPAN_S
        begun = await _begun(run, began, ended)
    at = instants(calls)
    high = {which for which, when in load.result().items() if when < ended - LATE_S}
    called = count_within(instants(calls, high), began, ended) / len(high)
    return [
        *_used(f"{rate}/s over {workers}, one joins, one killed", rate, at, began, killed_at),
        Figure(
            name="... by the start of the calls", value=max_in_any_second(begun) / rate, unit="x"
        ),
        Figure(name="... high called of high submitted", value=called, unit="%", low=0.97),
    ]


async def _begun(run: Run, began: float, ended: float) -> Sequence[float]:
    """Return when the workers began the calls: the provider is late too on a busy machine."""
    rows = await run.rows("SELECT date_part('epoch', started_at) AS at FROM attempts ORDER BY 1")
    return [row["at"] for row in rows if began <= row["at"] < ended]


async def _one_joins_one_is_killed(run: Run, began: float) -> float:
    doomed = run.workers[0]
    await sleep_until(began + JOIN_S)
    await run.join()
    await sleep_until(began + KILL_S)
    killed_at = run.kill(doomed)
    await sleep_until(began + SPAN_S)
    return killed_at


def _used(
    name: str, rate: float, at: Sequence[float], began: float, killed_at: float
) -> Sequence[Figure]:
    """Judge the rate; the ten seconds around the kill have a separate bound."""
    first, last = killed_at - AROUND_S, killed_at + AROUND_S
    around = count_within(at, first, last) / (rate * 2 * AROUND_S)
    quiet = count_within(at, began, first) + count_within(at, last, began + SPAN_S)
    used = quiet / (rate * (SPAN_S - 2 * AROUND_S))
    most = max_in_any_second(at) / rate
    return [
        Figure(name=f"{name}: maximum in any second", value=most, unit="x", high=1.05, always=True),
        Figure(name="... used", value=used, unit="%", low=0.97),
        Figure(name="... used in the 10 s around the kill", value=around, unit="%", low=0.9),
    ]
