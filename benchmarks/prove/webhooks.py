"""Webhooks that hang, fail or are gone beside others that answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from harness.client import submit_body, until
from harness.figure import Figure
from harness.judge import first_calls, percentile, waits
from harness.run import Run
from harness.stack import Stack
from harness.webhook_receiver import HANG, Receiver, open_receiver

GOOD = tuple(f"good{number}" for number in range(9))
BAD: dict[str, int | str] = {
    **{f"hang{number}": HANG for number in range(5)},
    **{f"fail{number}": 500 for number in range(5)},
    "gone": 410,
}
STEADY_EVENTS = 600
STEADY_INTERVAL_S = 0.05
EVENTS = 2000
"""Notifications that are sent at once: each is a call of every webhook."""
CALL_S = 0.02
STEADY_CODES, CODES = 300, 200
CODE_INTERVAL_S = 0.1
LATER = 1.1
SLOWER = 1.4
"""Webhooks that fail may have a fifth of the calls."""
CODE_ADDS_MS = 20.0
DELIVERED_S = 600.0


async def webhooks(stack: Stack) -> Sequence[Figure]:
    """20 webhooks, of which 5 hang, 5 answer 500 and 1 answers 410.

    600 events come one by one, 20 a second: a delay is counted from the event until the webhook has
    its call. Then 2,000 come at once. Meanwhile login codes are submitted, 10 a second: a wait is
    counted from before the request until the sandbox has the message. Before, the same events go to
    the other 9 webhooks alone.
    """
    alone = await _measure(stack, {})
    beside = await _measure(stack, BAD)
    return [
        Figure(name="9 webhooks alone: p50 of the delay", value=alone["p50_ms"], unit="ms"),
        Figure(name="9 webhooks alone: p99 of the delay", value=alone["p99_ms"], unit="ms"),
        Figure(name="... beside 11 that fail: p50", value=beside["p50_ms"], unit="ms"),
        Figure(name="... beside 11 that fail: p99", value=beside["p99_ms"], unit="ms"),
        Figure(
            name="... p99 against alone",
            value=beside["p99_ms"] / alone["p99_ms"],
            unit="x",
            high=LATER,
        ),
        Figure(name="login codes alone: p99", value=alone["steady_code_ms"], unit="ms"),
        Figure(name="... beside 11 that fail: p99", value=beside["steady_code_ms"], unit="ms"),
        Figure(
            name="... against alone",
            value=beside["steady_code_ms"] / alone["steady_code_ms"],
            unit="x",
            high=LATER,
        ),
        Figure(name="a burst to 9 webhooks alone", value=alone["per_s"], unit="/s"),
        Figure(name="... beside 11 that fail", value=beside["per_s"], unit="/s"),
        Figure(
            name="... against alone",
            value=beside["per_s"] / alone["per_s"],
            unit="x",
            low=1 / SLOWER,
        ),
        Figure(name="calls missed", value=alone["missed"] + beside["missed"], high=0),
        Figure(name="calls stored twice", value=alone["twice"] + beside["twice"], high=0),
        Figure(name="most calls at once to a webhook", value=beside["at_once"], high=4),
        Figure(name="login codes in the burst alone: p99", value=alone["code_ms"], unit="ms"),
        Figure(name="... beside 11 that fail: p99", value=beside["code_ms"], unit="ms"),
        Figure(
            name="... adds",
            value=beside["code_ms"] - alone["code_ms"],
            unit="ms",
            high=CODE_ADDS_MS,
        ),
        Figure(name="submits refused", value=beside["refused"], high=0),
    ]


async def _measure(stack: Stack, bad: dict[str, int | str]) -> dict[str, float]:
    settings: dict[str, Any] = {
        "webhooks__allow_http": True,
        "webhooks__allow_private": '["127.0.0.0/8"]',
    }
    async with open_receiver() as receiver, stack.running(**settings) as run:
        receiver.answers.update(bad)
        receiver.delay_s = CALL_S
        names = [*GOOD, *bad]
        random.Random(1).shuffle(names)
        for name in names:
            body = {"url": f"{receiver.url}/{name}", "events": ["notification.sent"]}
            await run.client.call("POST", "webhooks", json=body)
        async with asyncio.TaskGroup() as group:
            codes = group.create_task(_codes(run, STEADY_CODES))
            await _one_by_one(run)
        steady_asked = codes.result()
        wanted = STEADY_EVENTS + len(steady_asked)
        await _until_received(receiver, wanted)
        delays = _delays(receiver)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            codes = group.create_task(_codes(run, CODES))
            ids = await run.client.submit([submit_body("push.low") for _ in range(EVENTS)])
            await _until_received(receiver, wanted + len(ids))
        took_s = time.monotonic() - began
        asked = codes.result()
        wanted += len(ids) + len(asked)
        await _until_received(receiver, wanted)
        called = first_calls(await run.client.log())
        twice = await run.number(
            "SELECT count(*) - count(DISTINCT (recipient, content)) FROM notifications"
            " WHERE queue = 'webhook.medium'"
        )
        return {
            "p50_ms": percentile(delays, 0.5),
            "p99_ms": percentile(delays, 0.99),
            "per_s": len(GOOD) * EVENTS / took_s,
            "missed": sum(wanted - len(set(receiver.ids(name))) for name in GOOD),
            "twice": twice,
            "at_once": max(receiver.most_running.values()),
            "steady_code_ms": percentile(waits(steady_asked, called), 0.99),
            "code_ms": percentile(waits(asked, called), 0.99),
            "refused": STEADY_CODES + CODES - len(steady_asked) - len(asked),
        }


async def _one_by_one(run: Run) -> None:
    """Submit the first events at their pace."""
    began = time.monotonic()
    for number in range(STEADY_EVENTS):
        await asyncio.sleep(began + number * STEADY_INTERVAL_S - time.monotonic())
        await run.client.submit_one(submit_body("push.low"))


async def _until_received(receiver: Receiver, wanted: int) -> None:
    """Wait until each good webhook has as many events."""
    for name in GOOD:
        await until(
            partial(_received, receiver, name),
            lambda count: count >= wanted,
            timeout_s=DELIVERED_S,
        )


def _delays(receiver: Receiver) -> Sequence[float]:
    """Return how many ms after its event each call reached a good webhook for the first time."""
    clock_s = time.time() - asyncio.get_running_loop().time()
    delays = []
    for name in GOOD:
        first = {call.headers["webhook-id"]: call for call in reversed(receiver.received[name])}
        for call in first.values():
            event_at = datetime.fromisoformat(call.event["timestamp"]).timestamp()
            delays.append((call.at + clock_s - event_at) * 1000)
    return delays


async def _codes(run: Run, count: int) -> dict[str, float]:
    """Submit login codes; return when each was asked for."""
    asked: dict[str, float] = {}
    for _ in range(count):
        at = time.time()
        asked[await run.client.submit_one(submit_body("sms.high"))] = at
        await asyncio.sleep(CODE_INTERVAL_S)
    return asked


async def _received(receiver: Receiver, name: str) -> int:
    return len(set(receiver.ids(name)))
