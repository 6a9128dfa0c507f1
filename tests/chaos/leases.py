"""Faults of the worker that holds the lease of a loaded queue, and so publishes what is due there.

Rows that become due during the fault show that another worker publishes them.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from harness.client import submit_body, until
from harness.system import Child
from harness.tcp_proxy import TcpProxy
from tests.chaos.backlog import BATCH, backlog_bodies, submit_backlog
from tests.chaos.processes import FROZEN_S, PROCESS_S, SETTLES_S
from tests.chaos.round import Fault, Round
from tests.chaos.trace import Kind, of_kind
from tests.chaos.traced import FAST, FULL

HOLDER: Final = "SELECT w.pid FROM leases l JOIN workers w ON w.id = l.holder WHERE l.queue = $1"
BACKLOG, CALL_MS = 2, 20
SCHEDULED: Final = 50
DUE_AFTER_S, DUE_EVERY_S = 5.0, 0.04
"""The first scheduled row is due this long after the fault began, the others one after the other:
by then the lease has another holder, or has it soon."""
TAKEN_OVER_S: Final = 12.0
"""Within this time of the fault another worker must hold the lease, and within this time of that it
must have published a row that became due."""
CUT_S: Final = 20.0
SNAPSHOT_S: Final = 60.0
LOW_WATER: Final = 1000


async def holder_killed(round_: Round) -> float:
    await submit_backlog(round_, BACKLOG, CALL_MS)
    return await _killed(round_, await _holder(round_))


async def _killed(round_: Round, child: Child) -> float:
    worker = await round_.arena.run.identity(child)
    killed_at = round_.arena.run.kill(child)
    scheduled = await _schedule(round_)
    await asyncio.sleep(SETTLES_S)
    round_.hit({which for which, _ in await round_.arena.run.sending(worker)} | scheduled)
    await round_.arena.join()
    await until(lambda: round_.arena.run.not_sent(list(scheduled)), lambda left: not left)
    sent_s = await round_.arena.run.last_end(list(scheduled)) - killed_at
    round_.found.append(f"all rows that became due were sent {sent_s:.1f} s after the kill")
    return killed_at


async def holder_frozen(round_: Round) -> float:
    """Freeze the holder; another worker publishes meanwhile."""
    await submit_backlog(round_, BACKLOG, CALL_MS)
    child = await _holder(round_)
    child.send(signal.SIGSTOP)
    try:
        await _another_publishes(round_, child, FROZEN_S)
    finally:
        child.send(signal.SIGCONT)
    return time.time()


async def holder_cut_off_from_rabbitmq(round_: Round) -> float:
    """Cut the holder's connections to RabbitMQ; it still reaches Postgres."""
    await submit_backlog(round_, BACKLOG, CALL_MS)
    child = await _holder(round_)
    return await _cut_off(round_, child, round_.arena.links_of[child.pid].rabbitmq)


async def holder_cut_off_from_postgres(round_: Round) -> float:
    """Cut the holder's connections to Postgres; it still reaches RabbitMQ."""
    await submit_backlog(round_, BACKLOG, CALL_MS)
    child = await _holder(round_)
    return await _cut_off(round_, child, round_.arena.links_of[child.pid].postgres)


async def _cut_off(round_: Round, child: Child, proxy: TcpProxy) -> float:
    proxy.cut()
    try:
        await _another_publishes(round_, child, CUT_S)
    finally:
        proxy.heal()
    return time.time()


async def holder_killed_under_a_snapshot(round_: Round) -> float:
    """Kill the holder after a minute at the full rate in which no dead row could be removed."""
    async with _snapshot(round_):
        await submit_backlog(round_, BACKLOG, CALL_MS)
        await _stay_at_full_rate(round_, SNAPSHOT_S)
        killed_at = await _killed(round_, await _holder(round_))
        await asyncio.sleep(killed_at + PROCESS_S - time.time())
    return killed_at


@asynccontextmanager
async def _snapshot(round_: Round) -> AsyncIterator[None]:
    """Hold the snapshot of an idle transaction."""
    connection = await asyncpg.connect(round_.arena.place.database)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.fetch("SELECT count(*) FROM live")
            yield
    finally:
        await connection.close()


async def _stay_at_full_rate(round_: Round, span_s: float) -> None:
    """Refill the backlog whenever it is low."""
    ends_at, submitted = time.monotonic() + span_s, BACKLOG * BATCH
    while time.monotonic() < ends_at:
        if submitted - len(of_kind(round_.trace.events(), Kind.ACCEPTED)) < LOW_WATER:
            await round_.load.submit(backlog_bodies(BATCH, CALL_MS))
            submitted += BATCH
        else:
            await asyncio.sleep(0.2)
    round_.found.append(f"{submitted} rows of the backlog before the kill")


async def _holder(round_: Round) -> Child:
    """Return the worker that holds the lease of the loaded queue."""
    workers = {child.pid: child for child in round_.arena.run.workers}
    pids = await until(lambda: round_.arena.run.rows(HOLDER, str(FULL)), bool)
    return workers[pids[0]["pid"]]


async def _schedule(round_: Round) -> set[str]:
    """Submit rows that become due after a while: no API publishes these directly.

    They become due one after the other, so that several messages carry them.
    """
    due_at = datetime.now(UTC) + timedelta(seconds=DUE_AFTER_S)
    bodies = [
        submit_body(
            str(FULL),
            recipient=f"{FAST}{CALL_MS}",
            send_at=(due_at + timedelta(seconds=number * DUE_EVERY_S)).isoformat(),
        )
        for number in range(SCHEDULED)
    ]
    return set(await round_.load.submit(bodies))


async def _another_publishes(round_: Round, child: Child, span_s: float) -> None:
    """Check during a fault of the holder that its queue is published.

    Some of the rows may go to the faulty worker itself, if RabbitMQ still delivers to it.
    """
    began_at = time.time()
    scheduled = await _schedule(round_)
    await asyncio.sleep(SETTLES_S)
    worker = await round_.arena.run.identity(child)
    round_.hit({which for which, _ in await round_.arena.run.sending(worker)} | scheduled)
    await until(lambda: _holder(round_), lambda holder: holder is not child, TAKEN_OVER_S)
    took_s = time.time() - began_at
    sent = await until(lambda: _sent(round_, scheduled), bool, TAKEN_OVER_S)
    round_.found.append(
        f"the lease was taken over after {took_s:.1f} s, and {sent} of {SCHEDULED} rows that "
        f"became due were sent after {time.time() - began_at:.1f} s"
    )
    await asyncio.sleep(began_at + span_s - time.time())
    sent = await _sent(round_, scheduled)
    round_.found.append(f"{sent} were sent at the end")


async def _sent(round_: Round, ids: set[str]) -> int:
    return len(ids) - await round_.arena.run.not_sent(list(ids))


LEASES: Final = (
    Fault(
        strike=holder_killed,
        timeout_s=PROCESS_S,
        traced=True,
        text="The worker that holds the lease of a loaded queue is killed (-9); another joins.",
    ),
    Fault(
        strike=holder_frozen,
        timeout_s=PROCESS_S,
        traced=True,
        text=f"The worker that holds the lease of a loaded queue is stopped (SIGSTOP) for "
        f"{FROZEN_S:g} s. The other one takes the lease over and publishes. Counted from the end.",
    ),
    Fault(
        strike=holder_cut_off_from_rabbitmq,
        timeout_s=PROCESS_S,
        traced=True,
        linked=True,
        text=f"The holder's connections to RabbitMQ alone are cut for {CUT_S:g} s. The other "
        "worker takes the lease over and publishes. Counted from the end.",
    ),
    Fault(
        strike=holder_cut_off_from_postgres,
        timeout_s=PROCESS_S,
        traced=True,
        linked=True,
        text=f"The holder's connections to Postgres alone are cut for {CUT_S:g} s. The other "
        "worker takes the lease over and publishes. Counted from the end.",
    ),
    Fault(
        strike=holder_killed_under_a_snapshot,
        timeout_s=PROCESS_S,
        traced=True,
        text=f"A transaction holds its snapshot for {SNAPSHOT_S:g} s at the full rate, so that no "
        "dead row is removed; then the holder is killed (-9), and another joins.",
    ),
)
