"""The cost of moving consumers: a load that changes queues against one that stays."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.prove.load import backlog
from benchmarks.prove.metrics import total, until_finished
from harness.figure import Figure
from harness.judge import instants
from harness.run import Run, sleep_until
from harness.stack import Stack

WORKING = 65
"""64 floating consumers and the reserved one of the queue that has the work."""

SEND_S = 0.2
PHASE_S = 10.0
WITHIN_S = 300.0
STAYS = ("email.low", "email.low", "email.low")
SKEWS = ("sms.low", "push.medium", "email.medium")


async def skewed_load(stack: Stack) -> Sequence[Figure]:
    """Every 10 s a burst of work for 65 consumers arrives, each time in another queue.

    The ideal is a pool in which every consumer may serve every queue. It is measured first as the
    same worker whose bursts all arrive in one queue: same process, bursts and schedule, with all
    costs of an attempt except moving. A burst is what 65 consumers do in 10 s if an attempt takes
    nothing but its send, so the work lasts until the end, and the rest of a burst is done while the
    next one waits in another queue. The rate is all calls divided by the time from the first
    submit to the last call, so idle consumers lower it. Sends of 200 ms keep the processors from
    being the limit.
    """
    async with stack.running() as run:
        await run.client.set_behaviour(latency_ms=1000 * SEND_S)
        await _rate(run, ("email.low",), burst=2 * WORKING)  # warm up
        stays, skews = await _rate(run, STAYS), await _rate(run, SKEWS)
    arithmetic = WORKING / SEND_S
    return [
        Figure(
            name="load moves over 3 queues: rate, compared with one queue",
            value=skews / stays,
            unit="%",
            low=0.97,
        ),
        Figure(name="... compared with 65 consumers / 200 ms", value=skews / arithmetic, unit="%"),
        Figure(name="... one queue, compared with the same", value=stays / arithmetic, unit="%"),
    ]


async def _rate(
    run: Run, phases: Sequence[str], burst: int = round(WORKING / SEND_S * PHASE_S)
) -> float:
    """Return the calls per second over these phases, each with its burst on one queue."""
    finished = await total(run.workers, "notifier_finished")
    began, ids = time.time(), list[str]()
    for number, queue in enumerate(phases):
        await sleep_until(began + number * PHASE_S)
        ids += await backlog(run.client, queue, burst)
    await until_finished(run.workers, finished + len(ids), WITHIN_S)
    at = instants(await run.client.log(), set(ids))
    return len(at) / (at[-1] - began)
