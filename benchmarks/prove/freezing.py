"""Freezes one of two workers for longer than its peers consider it alive, then continues it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

import asyncpg

from harness.client import orders
from harness.figure import Figure, never
from harness.judge import doubled, unexplained_repeats
from harness.run import Held, Run, at_least_in_flight, sleep_until
from harness.stack import Stack
from harness.system import Child

FROZEN_S = 20.0
BLOCKED_S = 0.25
LOCK = "BEGIN; LOCK TABLE live IN EXCLUSIVE MODE"


async def worker_frozen(stack: Stack) -> Sequence[Figure]:
    """146 consumers at 400 ms per send have work before, during and after the freeze."""
    async with stack.running(workers=2) as run:
        await run.client.set_behaviour(latency_ms=400)
        ids = await run.client.submit(orders(12_000))
        await run.client.wait_for_calls(2_000)
        frozen_at, continued_at, held = await _freeze(run, run.workers[0])
        await run.all_final()
        accepted, in_flight = await run.accepted(), {which for which, _ in held}
        before, after = await _called(run, held, continued_at)
        late, middle = await _late(run, held, frozen_at + 0.1)
        unsent = await run.not_sent(ids)
    return [
        never("one of two frozen for 20 s: not sent", unsent),
        never("... calls it began after it continued", len(after - middle)),
        never("... results that it did not record late", len(before - late)),
        never("... duplicates beyond its in-flight", unexplained_repeats(accepted, in_flight)),
        Figure(name="... in flight when frozen", value=len(held), low=20, always=True),
        Figure(name="... called, and the result came late", value=len(before), low=1),
        Figure(name="... claimed and not called", value=len(held - before), low=1),
        Figure(name="... duplicates", value=len(doubled(accepted))),
    ]


async def _freeze(run: Run, child: Child) -> tuple[float, float, Held]:
    """Return when the worker was stopped and continued, and what it held."""
    worker = await run.identity(child)
    frozen_at = await _stop_between_claim_and_call(run, child)
    try:
        await asyncio.sleep(1)
        held = await run.sending(worker)
        at_least_in_flight(held)
        await sleep_until(frozen_at + FROZEN_S)
    finally:
        child.send(signal.SIGCONT)
    return frozen_at, time.time(), held


async def _stop_between_claim_and_call(run: Run, child: Child) -> float:
    """Send SIGSTOP while a claim is at Postgres; its reply then waits in the socket.

    The lock blocks all claims for longer than the rows that are claimed already last.
    """
    connection = await asyncpg.connect(run.database)
    try:
        await connection.execute(LOCK)
        await asyncio.sleep(BLOCKED_S)
        child.send(signal.SIGSTOP)
        await connection.execute("COMMIT")
    finally:
        await connection.close()
    return time.time()


async def _called(run: Run, held: Held, continued_at: float) -> tuple[Held, Held]:
    """Split what it held into calls before it continued and calls after."""
    before, after = Held(), Held()
    for call in await run.client.log():
        side = before if call["at"].timestamp() < continued_at else after
        side.add((call["notification_id"], call["claim"]))
    return held & before, held & after - before


async def _late(run: Run, held: Held, begun_before: float) -> tuple[Held, Held]:
    """Return what was recorded late, and the part that was being called at the stop."""
    sql = """SELECT id, claim, started_at < to_timestamp($1) AS is_middle
             FROM attempts WHERE late"""
    late = {
        (str(row["id"]), row["claim"]): row["is_middle"]
        for row in await run.rows(sql, begun_before)
    }
    return held & set(late), {which for which, is_middle in late.items() if is_middle}
