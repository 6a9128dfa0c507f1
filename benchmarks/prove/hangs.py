"""Figures of a hang: the SMS provider hangs while email continues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from benchmarks.prove.load import steady
from benchmarks.prove.metrics import of_channel
from harness.client import Client, until
from harness.client import Document as Call
from harness.figure import Figure, never
from harness.judge import count_within, instants, percentile
from harness.run import Run
from harness.stack import Stack

CONSUMERS = 64
LATENCY_MS = 100
BEFORE_S, HANG_S, KNOWN_S, AFTER_S = 30.0, 120.0, 30.0, 20.0
SMS_RATE, EMAIL_RATE = 300.0, 50.0
HANGING = {"channel": "sms", "latency_ms": 30_000}


async def provider_hangs(stack: Stack) -> Sequence[Figure]:
    """300 SMS/s at 100 ms each use 30 of 73 consumers, more than a quarter."""
    async with stack.running() as run:
        await run.client.set_behaviour(latency_ms=LATENCY_MS)
        async with asyncio.TaskGroup() as group:
            span_s = BEFORE_S + HANG_S + AFTER_S
            mail = group.create_task(
                steady(run.client, ["email.high"], rate=EMAIL_RATE, span_s=span_s)
            )
            group.create_task(
                steady(run.client, ["sms.medium", "sms.low"], rate=SMS_RATE, span_s=span_s)
            )
            await asyncio.sleep(BEFORE_S)
            hung_at, held, kept = await _hang(run)
            healed_at = time.time()
            back = await _back_after(run.client, healed_at)
        calls = await run.client.log(channel="email")
        run.kill(run.workers[0])  # the rest of the backlog does not matter
    before, during = _ends_ms(mail.result(), calls, hung_at)
    return [
        *_slower(before, during),
        Figure(name="... consumers at SMS, of 64", value=held, high=CONSUMERS / 4),
        never("... connections idle in a transaction", kept),
        Figure(name="... SMS rate 2 s after the first reply", value=back, unit="%", low=1),
    ]


async def _hang(run: Run) -> tuple[float, int, int]:
    """Return when the hang began, the most consumers at SMS, and the connections held."""
    await run.client.set_behaviour(**HANGING)
    began, most, kept = time.time(), 0, 0
    while (passed := time.time() - began) < HANG_S:
        if passed > KNOWN_S:
            busy = await of_channel(run.workers, "notifier_consumers_busy", "sms")
            most = max(most, busy)
        kept += await _idle_in_transaction(run)
        await asyncio.sleep(0.5)
    await run.client.set_behaviour(channel="sms", latency_ms=LATENCY_MS)
    return began, most, kept


async def _idle_in_transaction(run: Run) -> int:
    sql = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND state LIKE 'idle in transaction%' AND now() - state_change > interval '1 s'"""
    return round(await run.number(sql))


async def _back_after(client: Client, healed_at: float) -> float:
    """Return the rate of SMS calls from 2 s after the first reply, as a share of before."""

    async def seen() -> list[float]:
        at = instants(await client.log(channel="sms"))
        return at[count_within(at, 0, healed_at) :]

    (first, *_) = await until(seen, bool)
    await asyncio.sleep(max(0.0, first + LATENCY_MS / 1000 + 6 - time.time()))
    start = first + LATENCY_MS / 1000 + 2
    return count_within(await seen(), start, start + 4) / (4 * SMS_RATE)


def _ends_ms(
    submitted: Mapping[str, float], calls: Sequence[Call], hung_at: float
) -> tuple[list[float], list[float]]:
    """Return the seconds from submit to reply before the hang and during it."""
    before, during = list[float](), list[float]()
    for call in calls:
        asked = submitted[call["notification_id"]]
        took_ms = (call["at"].timestamp() - asked) * 1000 + LATENCY_MS
        if hung_at - BEFORE_S / 2 <= asked < hung_at - 1:
            before.append(took_ms)
        elif hung_at <= asked < hung_at + HANG_S:
            during.append(took_ms)
    return before, during


def _slower(before: Sequence[float], during: Sequence[float]) -> Sequence[Figure]:
    first, then = percentile(before, 0.99), percentile(during, 0.99)
    name = "SMS hangs: p99 of email.high, compared with before"
    return [
        Figure(name=name, value=then / first, unit="%", high=1.1),
        Figure(name="... p99 before", value=first, unit="ms"),
    ]
