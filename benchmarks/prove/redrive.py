"""What failed or expired is sent again: at a rate, exactly once, beside fresh traffic."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence

from benchmarks.prove.load import poisson
from harness.client import Client, Document, submit_body, until
from harness.figure import Figure
from harness.judge import first_calls, instants, max_in_any_second, percentile, waits
from harness.run import Run
from harness.stack import Stack

TAG, LATE_TAG = "receipts", "newsletter"
QUEUES = ("email.medium", "sms.medium", "push.medium")
FAILED_EACH = 333
EXPIRED = 5_000
SEND_MS = 50
EXPIRED_PER_S = 250.0
RATE_PER_S, CODES_PER_S, CODES_S = 20.0, 20.0, 20.0
SLOWER_BY = 0.1


async def redrive(stack: Stack) -> Sequence[Figure]:
    """999 failures with three codes among as many that are sent.

    Two people send one code again, at 20/s each, beside 20 login codes per second: first in peace,
    for the wait of the codes, and once more with a worker killed. Then 5,000 that have expired
    while their channel was paused are sent again.
    """
    async with stack.running() as run:
        client = run.client
        await client.set_behaviour(latency_ms=SEND_MS)
        failed = {queue: await _submit(run, queue) for queue in QUEUES}
        again = [*failed[QUEUES[0]], *failed[QUEUES[1]]]
        calls_before = Counter(call["notification_id"] for call in await client.log())
        before = await _codes(client)
        since = time.time()
        async with asyncio.TaskGroup() as group:
            codes = group.create_task(_codes(client), name="codes")
            await _send_again(client, failed[QUEUES[0]])
        during = codes.result()
        first = await _calls_since(client, since, failed[QUEUES[0]])
        since = time.time()
        async with asyncio.TaskGroup() as group:
            group.create_task(_kill_amid(run), name="kill")
            await _send_again(client, failed[QUEUES[1]])
        second = await _calls_since(client, since, failed[QUEUES[1]])
        await run.all_final()
        calls = Counter(call["notification_id"] for call in await client.log())
        called_again = calls - calls_before
        marked = await run.ambiguous()
        expired_s, expired_left = await _expired(run)
    return [
        Figure(
            name="one code sent again: calls in any second",
            value=max_in_any_second(instants(first)),
            high=2 * RATE_PER_S + 2,
        ),
        Figure(name="... with a worker killed", value=max_in_any_second(instants(second))),
        Figure(
            name="... called more or less than once more, unmarked",
            value=sum(called_again[id_] != 1 for id_ in again if id_ not in marked),
            high=0,
        ),
        Figure(name="... marked", value=sum(id_ in marked for id_ in again)),
        Figure(
            name="... failures with another code that were called",
            value=sum(called_again[id_] for id_ in failed[QUEUES[2]]),
            high=0,
        ),
        Figure(name="codes meanwhile: p99", value=percentile(during, 0.99), unit="ms"),
        Figure(name="... before: p99", value=percentile(before, 0.99), unit="ms"),
        Figure(
            name="... slower by",
            value=percentile(during, 0.99) / percentile(before, 0.99) - 1,
            unit="%",
            high=SLOWER_BY,
        ),
        Figure(name=f"{EXPIRED:,} expired ones sent after", value=expired_s, unit="s"),
        Figure(name="... not sent", value=expired_left, high=0),
    ]


async def _submit(run: Run, queue: str) -> list[str]:
    """Submit notifications that are refused among as many that are sent; return the refused."""
    refused = submit_body(queue, "refuse", tag=TAG)
    ids = await run.client.submit([refused, submit_body(queue, tag=TAG)] * FAILED_EACH)
    await run.all_final()
    return ids[::2]


async def _codes(client: Client) -> list[float]:
    """Return the milliseconds from submit to call of each login code."""
    asked = await poisson(client, rate=CODES_PER_S, span_s=CODES_S, queues=("sms.high",))
    await asyncio.sleep(1)
    return waits(asked, first_calls(await client.log(channel="sms")))


async def _send_again(client: Client, ids: Sequence[str]) -> None:
    """Let two people send again what failed with the code that these failed with, until it is."""
    failed = await client.notification(ids[0])
    asked = {
        "kind": "retry",
        "filter": {"tag": TAG, "code": failed["result"]["code"]},
        "note": "the list was wrong",
        "rate_per_s": RATE_PER_S,
    }
    made = [await client.call("POST", "operations", json=asked) for _ in range(2)]
    ended = [await _finished(client, each["id"]) for each in made]
    done = sum(each["done"] for each in ended)
    assert done == len(ids), f"{done} of {len(ids)} were sent again"


async def _kill_amid(run: Run) -> None:
    """Kill a worker while the operations run; another one joins."""
    await asyncio.sleep(FAILED_EACH / (2 * RATE_PER_S) / 2)
    run.kill(run.workers[0])
    await run.join()


async def _calls_since(client: Client, since: float, ids: Collection[str]) -> list[Document]:
    wanted = set(ids)
    return [
        call
        for call in await client.log()
        if call["notification_id"] in wanted and call["at"].timestamp() >= since
    ]


async def _expired(run: Run) -> tuple[float, int]:
    """Return the seconds from a retry of what has expired to its last send, and what is left."""
    client = run.client
    await client.hold("pause", "channel", "email")
    body = submit_body("email.low", tag=LATE_TAG, ttl_s=20)
    ids = await client.submit([body] * EXPIRED)
    await run.all_final()
    await client.hold("resume", "channel", "email")
    since = time.time()
    asked = {
        "kind": "retry",
        "filter": {"tag": LATE_TAG, "status": "expired"},
        "rate_per_s": EXPIRED_PER_S,
        "note": "the provider was down",
    }
    made = await client.call("POST", "operations", json=asked)
    await _finished(client, made["id"])
    await run.all_final()
    return await run.last_end(ids) - since, await run.not_sent(ids)


async def _finished(client: Client, id_: str) -> Document:
    async def read() -> Document:
        found: Document = await client.call("GET", f"operations/{id_}")
        return found

    ended: Document = await until(read, lambda found: found["status"] == "finished", 300)
    return ended
