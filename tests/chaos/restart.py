"""Kills everything while a million notifications wait; measures the time to the full rate."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.prove.bulk import insert_waiting, settle, templates
from harness.client import QUEUES, Document
from harness.figure import Figure, never
from harness.judge import count_within, doubled, instants, times_accepted
from harness.run import Run
from harness.statuses import UNCLAIMED, on_statuses
from notifier.domain.notification import WAITING, Status
from notifier.embedded.process import run_steps_async
from tests.chaos.arena import Arena
from tests.chaos.judge import full_rate_after_s

COUNT: Final = 1_000_000
LATENCY_MS, RATE = 40, 200
RATES: Final[Mapping[str, object]] = {
    f"providers.{name}.rate": RATE for name in ("smtp", "twilio", "fcm")
}
"""Provider rates that two cores can keep up, so that the full rate is the providers' limit."""
STEADY_S, BEFORE_S = 10.0, 10.0
WITHIN_S, WINDOW_S, SHARE = 60.0, 5.0, 0.9
UNTOUCHED: Final = f"""
    SELECT count(*) FROM live
    WHERE claimed_by <> '{UNCLAIMED}' AND claimed_at < to_timestamp($1)"""
BY_STATUS: Final = on_statuses("SELECT id, status FROM statuses")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The times of a restart, in seconds since the epoch: kill, start, all ready."""

    killed_at: float
    started_at: float
    ready_at: float


async def everything_restarted(arena: Arena) -> Sequence[Figure]:
    """The million rows are copies inserted into Postgres; the sandbox, which judges, stays up.

    Counted from the start of all, not from when they are ready.
    """
    run = arena.run
    copied = await templates(run, QUEUES)
    await run.client.set_behaviour(latency_ms=LATENCY_MS)
    await insert_waiting(run, copied, COUNT)
    await settle(run)
    await asyncio.sleep(STEADY_S + BEFORE_S)
    restart = await _restart(arena)
    await asyncio.sleep(restart.started_at + WITHIN_S + WINDOW_S - time.time())
    untouched = await run.number(UNTOUCHED, restart.killed_at)
    for child in list(run.workers):
        await run.stop(child)
    calls = await run.client.log()
    return [
        *_rates(instants(calls), restart),
        never("still claimed by a killed worker", untouched),
        *await _judged(run, calls, COUNT + len(copied)),
    ]


async def _restart(arena: Arena) -> Restart:
    """Send SIGKILL to all at once, as in a power failure, then start all in parallel."""
    ours = [arena.api, *arena.run.workers]
    servers = [arena.stack.postgres, arena.stack.rabbitmq]
    killed_at = time.time()
    for child in ours:
        child.send(signal.SIGKILL)
    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(run_steps_async(server.killing()))
    for child in ours:
        child.kill()
    arena.run.workers.clear()
    started_at = time.time()
    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(run_steps_async(server.starting()))
        group.create_task(arena.start_api())
        for _ in ours[1:]:
            group.create_task(arena.join())
    return Restart(killed_at=killed_at, started_at=started_at, ready_at=time.time())


def _rates(at: Sequence[float], restart: Restart) -> Sequence[Figure]:
    """Return the figures computed from the times of all calls."""
    before = count_within(at, restart.killed_at - BEFORE_S, restart.killed_at) / BEFORE_S
    ready_s = restart.ready_at - restart.started_at
    full_s = full_rate_after_s(at, restart.started_at, target=SHARE * before, span_s=WINDOW_S)
    return [
        Figure(name=f"calls with {COUNT:,} waiting", value=before, unit="/s", low=1),
        Figure(name="all ready again after", value=ready_s, unit="s"),
        Figure(name="full rate again after", value=full_s, unit="s", high=WITHIN_S),
    ]


async def _judged(run: Run, calls: Sequence[Document], count: int) -> Sequence[Figure]:
    """Return the figures once no worker runs and nothing changes."""
    times = times_accepted(calls)
    statuses = {str(row["id"]): row["status"] for row in await run.rows(BY_STATUS)}
    sent = {which for which, status in statuses.items() if status == Status.SENT}
    twice, waiting = doubled(times), sum(status in WAITING for status in statuses.values())
    unmarked = (twice | (set(times) - sent)) - await run.ambiguous()
    return [
        never("neither sent nor waiting", count - len(sent) - waiting),
        never("sent and never accepted by the sandbox", len(sent - set(times))),
        Figure(name="accepted twice by the sandbox", value=len(twice)),
        never("accepted twice, or accepted and not sent, without a mark", len(unmarked)),
    ]
