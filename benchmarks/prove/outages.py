"""Server restarts under load, and a backlog that waits for minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from benchmarks.prove.load import backlog
from benchmarks.prove.metrics import total
from harness.client import orders
from harness.figure import Figure, never
from harness.judge import doubled
from harness.run import Run, at_least_in_flight
from harness.stack import Stack
from harness.statuses import UNCLAIMED
from notifier.embedded.process import Steps, run_steps_async

WAIT_S = 300.0
SLOW = 12
"""Consumers of the queue: at 200 ms per send, 20,000 take a little over five minutes."""


async def rabbitmq_wiped(stack: Stack) -> Sequence[Figure]:
    return await _restarted(stack, "RabbitMQ restarted empty", stack.rabbitmq.wiping)


async def postgres_restarted(stack: Stack) -> Sequence[Figure]:
    return await _restarted(stack, "Postgres restarted", stack.postgres.restarting)


async def _restarted(stack: Stack, name: str, fault: Callable[[], Steps]) -> Sequence[Figure]:
    """Three workers, 219 consumers at 300 ms per send."""
    async with stack.running(workers=3) as run:
        await run.client.set_behaviour(latency_ms=300)
        ids = await run.client.submit(orders(6_000))
        await run.client.wait_for_calls(1_000)
        in_flight = at_least_in_flight(await run.sending())
        await run_steps_async(fault())
        await run.all_final()
        accepted = await run.accepted()
        return [
            never(f"{name} under 3 workers: not sent", await run.not_sent(ids)),
            never("... never called", len(set(ids) - set(accepted))),
            never("... duplicates", len(doubled(accepted))),
            never("... declared dead", run.logged("worker_died")),
            Figure(name="... in flight at the restart", value=in_flight, low=20, always=True),
        ]


async def slow_backlog(stack: Stack) -> Sequence[Figure]:
    async with stack.running(workers=2, channels__email__max_consumers=SLOW // 2) as run:
        await run.client.set_behaviour(latency_ms=200)
        await backlog(run.client, "email.low", 20_000)
        await asyncio.sleep(WAIT_S)
        rescues, waiting = await _rescues(run), await _waiting(run)
    return [
        never("20,000 waiting for 5 minutes: rescues", rescues),
        Figure(name="... still waiting", value=waiting, low=1, always=True),
    ]


async def _rescues(run: Run) -> float:
    return await total([*run.workers, run.api], "notifier_rescues")


async def _waiting(run: Run) -> float:
    return await run.number("SELECT count(*) FROM live WHERE claimed_by = $1", UNCLAIMED)
