"""A wrong campaign is paused and cancelled between a right one and login codes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.prove.load import poisson
from harness.client import Client, Document, submit_body, until
from harness.figure import Figure
from harness.judge import first_calls, percentile, waits
from harness.stack import Stack

WRONG, RIGHT = 200_000, 50_000
WRONG_TAG, RIGHT_TAG = "wrong-price", "receipts"
CODES_PER_S, CODES_S = 20.0, 20.0
SEND_MS = 50
PAUSED_WITHIN_S, CANCELLED_WITHIN_S, SLOWER_BY = 1.0, 30.0, 0.1


async def campaign(stack: Stack) -> Sequence[Figure]:
    """200,000 low emails with one tag among 50,000 with another, beside 20 codes per second.

    The wait of a code is counted from before its submit until the sandbox has it: first while the
    campaigns are being sent, then while the wrong one is cancelled.
    """
    async with stack.running() as run:
        client = run.client
        await client.set_behaviour(latency_ms=SEND_MS)
        await client.hold("pause", "channel", "email")
        right = await _submit(client, RIGHT_TAG, RIGHT // 2)
        wrong = set(await _submit(client, WRONG_TAG, WRONG))
        right += await _submit(client, RIGHT_TAG, RIGHT - RIGHT // 2)
        await client.hold("resume", "channel", "email")
        await until(lambda: _calls_of(client, wrong), bool)
        before = await _codes(client)
        paused_at = time.time()
        await client.hold("pause", "tag", WRONG_TAG)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            codes = group.create_task(_codes(client), name="codes")
            operation = await _cancel(client)
            took_s = time.monotonic() - began
        during = codes.result()
        await client.hold("resume", "tag", WRONG_TAG)
        await until(lambda: run.not_sent(right), lambda left: left == 0, 600)
        called = first_calls(await client.log())
        late = [at - paused_at for id_, at in called.items() if id_ in wrong and at > paused_at]
    slower = percentile(during, 0.99) / percentile(before, 0.99) - 1
    called_after = sum(each > PAUSED_WITHIN_S for each in late)
    return [
        Figure(
            name="pause of a tag: its last call after",
            value=max(late, default=0.0),
            unit="s",
            high=PAUSED_WITHIN_S,
        ),
        Figure(name="... calls after that", value=called_after, high=0),
        Figure(name=f"{WRONG:,} cancelled within", value=took_s, unit="s", high=CANCELLED_WITHIN_S),
        Figure(name="... cancelled", value=operation["done"]),
        Figure(name="... not changed by a fault", value=operation["failed"], high=0),
        Figure(name="codes meanwhile: p99", value=percentile(during, 0.99), unit="ms"),
        Figure(name="... before: p99", value=percentile(before, 0.99), unit="ms"),
        Figure(name="... slower by", value=slower, unit="%", high=SLOWER_BY),
        Figure(name="... p50 meanwhile", value=percentile(during, 0.5), unit="ms"),
        Figure(name="... p50 before", value=percentile(before, 0.5), unit="ms"),
    ]


async def _submit(client: Client, tag: str, count: int) -> list[str]:
    body: Document = {**submit_body("email.low"), "tag": tag}
    return await client.submit([body] * count)


async def _calls_of(client: Client, ids: set[str]) -> int:
    return sum(id_ in ids for id_ in await client.accepted())


async def _codes(client: Client) -> list[float]:
    """Return the milliseconds from submit to call of each code."""
    asked = await poisson(client, rate=CODES_PER_S, span_s=CODES_S, queues=("sms.high",))
    await asyncio.sleep(1)
    return waits(asked, first_calls(await client.log(channel="sms")))


async def _cancel(client: Client) -> Document:
    asked = {"kind": "cancel", "filter": {"tag": WRONG_TAG}, "note": "wrong price"}
    made = await client.call("POST", "operations", json=asked)

    async def read() -> Document:
        found: Document = await client.call("GET", f"operations/{made['id']}")
        return found

    ended: Document = await until(read, lambda found: found["status"] == "finished", 300)
    return ended
