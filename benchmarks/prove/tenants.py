"""Tenants beside each other: the wait of a small one, and what the turns cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.prove.metrics import total, until_finished
from harness.client import Document, submit_body
from harness.figure import Figure, never
from harness.judge import first_calls, percentile, waits
from harness.run import Run
from harness.stack import Stack

QUEUE = "email.medium"
LARGE, SMALL = 50_000, 10
TENANTS, ROWS_EACH, LONE = 10_000, 100, 20
CHUNK = 10_000
PROMISE_MS = 10_000
WITHIN_S = 1800.0


async def tenants(stack: Stack) -> Sequence[Figure]:
    """Tenant a submits 50,000 to email.medium, then b submits 10; the same 50,010 of one tenant.

    All of a's wait before the first is sent. b submits a second after sending has begun. A wait is
    counted from before the request until the sandbox has the whole message.
    """
    async with stack.running() as run:
        one, _, _ = await _drain(run, "a", "a")
    async with stack.running() as run:
        two, waited, missing = await _drain(run, "a", "b")
    return [
        Figure(
            name="10 of tenant b after 50,000 of a: wait, p99",
            value=percentile(waited, 0.99),
            unit="ms",
            high=2000,
        ),
        Figure(name="... p50", value=percentile(waited, 0.5), unit="ms"),
        Figure(name="... drain, compared with one tenant's", value=two / one, unit="x", low=0.9),
        Figure(name="... drain", value=two, unit="/s"),
        never("... not sent", missing),
    ]


async def many_tenants(stack: Stack) -> Sequence[Figure]:
    """10,000 tenants submit 100 each to email.medium; then 20 others submit one each, one a second.

    All wait before the first is sent.
    """
    async with stack.running(api__max_backlog=2 * TENANTS * ROWS_EACH) as run:
        await _see(run, ["t0", "t1"])
        await run.client.hold("pause", "channel", "email")
        names = [f"t{number}" for number in range(TENANTS)]
        for start in range(0, TENANTS, CHUNK // ROWS_EACH):
            some = names[start : start + CHUNK // ROWS_EACH]
            await run.client.submit([body for name in some for body in _bodies(name, ROWS_EACH)])
        await run.client.hold("resume", "channel", "email")
        asked = dict[str, float]()
        for number in range(LONE):
            await asyncio.sleep(1.0)
            at = time.time()
            asked[await run.client.submit_one(_bodies(f"lone{number}", 1)[0])] = at
        await until_finished(run.workers, 2 + TENANTS * ROWS_EACH + LONE, WITHIN_S)
        waited = waits(asked, first_calls(await run.client.log()))
    return [
        Figure(
            name="1 of each of 20 tenants beside 10,000 with 100: longest wait",
            value=max(waited),
            unit="ms",
            high=PROMISE_MS,
        ),
        Figure(name="... p50", value=percentile(waited, 0.5), unit="ms"),
    ]


def _bodies(tenant: str, count: int) -> list[Document]:
    return [submit_body(QUEUE) | {"tenant": tenant} for _ in range(count)]


async def _see(run: Run, names: Sequence[str]) -> None:
    """Let the API see these tenants, and the worker warm up."""
    await run.client.submit([body for name in names for body in _bodies(name, 1)])
    await run.all_final()


async def _drain(run: Run, large: str, small: str) -> tuple[float, list[float], int]:
    """Return the sends per second, the waits of the small tenant, and how many were not sent."""
    await _see(run, sorted({large, small}))
    await run.client.hold("pause", "channel", "email")
    ids = await run.client.submit(_bodies(large, LARGE))
    before = await total(run.workers, "notifier_finished")
    await run.client.hold("resume", "channel", "email")
    began = time.time()
    await asyncio.sleep(1.0)
    at = time.time()
    few = await run.client.submit(_bodies(small, SMALL))
    await until_finished(run.workers, before + LARGE + SMALL, WITHIN_S)
    called = first_calls(await run.client.log())
    rate = (LARGE + SMALL) / (max(called.values()) - began)
    missing = await run.not_sent([*ids, *few])
    return rate, waits(dict.fromkeys(few, at), called), missing
