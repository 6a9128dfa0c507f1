"""Latency from submit to provider call: on an idle system and under a flood."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf
from uuid import UUID

from benchmarks.prove.bulk import insert_waiting, settle, templates
from benchmarks.prove.load import poisson
from benchmarks.prove.metrics import by_queue, total
from benchmarks.prove.processors import Ticks
from harness.client import QUEUES, orders, until
from harness.figure import Figure
from harness.judge import first_calls, percentile, waits
from harness.run import Run
from harness.stack import Stack
from harness.statuses import UNCLAIMED
from notifier.domain.allocation.demand import RESERVED_CONSUMERS
from notifier.domain.notification import QueueKey
from notifier.settings import WorkerSettings

HIGH = ("email.high", "sms.high", "push.high")
LOW = ("email.low", "sms.low", "push.low")
HIGH_PER_S, HIGH_S = 20.0, 25.0
WAITING = 100_000
DRAINED_MEANWHILE = 90_000
SEND_MS = 20
FLOOD_ADDS_MS = 20.0
FEW_CONSUMERS = 24
WAITING_NOW = "SELECT count(*) FROM live WHERE claimed_by = $1"


async def idle_latency(stack: Stack) -> Sequence[Figure]:
    """Submit about 300 notifications, 50 ms apart on average, over nine queues.

    `accepted` is the row's `created_at`: the time of its transaction, before the commit and the
    response. `called` is when the sandbox has the whole message. Each queue was used before, since
    an idle system has open connections.
    """
    async with stack.running() as run:
        await run.client.submit(orders(5 * len(QUEUES)))
        await run.all_final()
        asked = await poisson(run.client, rate=20, span_s=15)
        await run.all_final()
        called = first_calls(await run.client.log())
        accepted = waits(await _accepted_at(run, list(asked)), called)
    submitted = waits(asked, called)
    return [
        Figure(
            name="idle: accepted to called, p50",
            value=percentile(accepted, 0.5),
            unit="ms",
            high=10,
        ),
        Figure(name="... p99", value=percentile(accepted, 0.99), unit="ms", high=30),
        Figure(name="... submit to called, p50", value=percentile(submitted, 0.5), unit="ms"),
        Figure(name="... submit to called, p99", value=percentile(submitted, 0.99), unit="ms"),
        Figure(name="... samples", value=len(asked), low=250, always=True),
    ]


async def flood(stack: Stack) -> Sequence[Figure]:
    """Submit 20/s of high, alone and then while 100,000 of low wait and all consumers are busy.

    The low rows are copies in Postgres, more than can be sent meanwhile. A wait is counted from
    before the request until the sandbox has the whole message. The target holds for as many
    consumers as the processors can serve, sandbox and servers included. The figure for the default
    number of consumers, where the processors are full, is reported beside it.
    """
    return [
        *await _flood(stack, FEW_CONSUMERS, adds_most_ms=FLOOD_ADDS_MS),
        *await _flood(stack, WorkerSettings().consumers, adds_most_ms=inf),
    ]


async def _flood(stack: Stack, consumers: int, *, adds_most_ms: float) -> Sequence[Figure]:
    async with stack.running(worker__consumers=consumers) as run:
        await run.client.set_behaviour(latency_ms=SEND_MS)
        low = await templates(run, LOW)
        idle = await _high(run)
        await insert_waiting(run, low, WAITING + DRAINED_MEANWHILE)
        await settle(run)
        await until(lambda: _idle_consumers(run), lambda idle: idle <= 0)
        began, before = time.monotonic(), await total(run.workers, "notifier_finished")
        used = Ticks.now()
        flooded = await _high(run)
        busy = Ticks.now().busy_since(used)
        sent = await total(run.workers, "notifier_finished") - before
        rate = sent / (time.monotonic() - began)
        left = await run.number(WAITING_NOW, UNCLAIMED)
        run.kill(run.workers[0])  # the rest of the backlog does not matter
    alone, among = percentile(idle, 0.99), percentile(flooded, 0.99)
    return [
        Figure(name=f"20/s of high alone, {consumers} consumers: p99", value=alone, unit="ms"),
        Figure(name=f"... while {WAITING:,} low wait", value=among, unit="ms"),
        Figure(
            name="... difference of the two p99", value=among - alone, unit="ms", high=adds_most_ms
        ),
        Figure(name="... p50 alone", value=percentile(idle, 0.5), unit="ms"),
        Figure(name="... p50 while low wait", value=percentile(flooded, 0.5), unit="ms"),
        Figure(name="... sent meanwhile", value=rate, unit="/s"),
        Figure(name="... processors busy meanwhile", value=busy, unit="%"),
        Figure(
            name="... samples, the smaller number",
            value=min(len(idle), len(flooded)),
            low=400,
            always=True,
        ),
        Figure(name="... low still waiting", value=left, low=WAITING, always=True),
    ]


async def _high(run: Run) -> list[float]:
    """Return the milliseconds from submit to call of each."""
    asked = await poisson(run.client, rate=HIGH_PER_S, span_s=HIGH_S, queues=HIGH)
    await until(lambda: run.not_sent(list(asked)), lambda left: left == 0)
    return waits(asked, first_calls(await run.client.log()))


async def _idle_consumers(run: Run) -> int:
    """Wait until no consumer is free, except the reserved ones of queues without work."""
    held = await by_queue(run.workers, "notifier_consumers")
    busy = await by_queue(run.workers, "notifier_consumers_busy")
    return sum(held[queue] - busy[queue] for queue in LOW) + sum(
        held[queue] - RESERVED_CONSUMERS[QueueKey.parse(queue).priority]
        for queue in QUEUES
        if queue not in LOW
    )


async def _accepted_at(run: Run, ids: Sequence[str]) -> dict[str, float]:
    sql = """SELECT id, extract(epoch FROM created_at)::float8 AS at
             FROM notifications WHERE id = ANY($1)"""
    return {str(row["id"]): row["at"] for row in await run.rows(sql, [UUID(one) for one in ids])}
