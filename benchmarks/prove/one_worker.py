"""Figures of one API and one worker: exactly once, movement, starvation."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks.prove.load import backlog, poisson
from benchmarks.prove.metrics import by_queue, total
from harness.client import orders, submit_body
from harness.figure import Figure, never
from harness.judge import instants, max_in_any_second
from harness.run import Run
from harness.stack import Stack

CONSUMERS = 64
FLOOD = ("email.high", "sms.high", "push.high")


async def exactly_once(stack: Stack) -> Sequence[Figure]:
    async with stack.running() as run:
        ids = await run.client.submit(orders(10_000))
        await run.all_final()
        accepted = await run.accepted()
        unsent = await run.not_sent(ids)
    return [
        never("10,000 over nine queues: not sent", unsent),
        never("... not called exactly once", sum(accepted[which] != 1 for which in ids)),
    ]


async def movement(stack: Stack) -> Sequence[Figure]:
    async with stack.running() as run:
        await run.client.set_behaviour(latency_ms=20)
        began = time.time()
        async with asyncio.TaskGroup() as group:
            there = group.create_task(_until_there(run, "email.low", 0.8 * CONSUMERS))
            for _ in range(5):
                await backlog(run.client, "email.low", 1000)
        asked = time.time()
        code = await run.client.submit_one(submit_body("sms.high"))
        await run.client.final(code)
        (called, *_) = instants(await run.client.calls(code))
    there_ms, call_ms = (there.result() - began) * 1000, (called - asked) * 1000
    return [
        Figure(name="80 % of 64 consumers at email.low", value=there_ms, unit="ms", high=500),
        Figure(name="then one on sms.high: its call", value=call_ms, unit="ms", high=100),
    ]


async def steady_moves(stack: Stack) -> Sequence[Figure]:
    """73 consumers at 200 ms per send reach 365/s; submit half of that over nine queues."""
    async with stack.running() as run:
        await run.client.set_behaviour(latency_ms=200)
        async with asyncio.TaskGroup() as group:
            load = group.create_task(poisson(run.client, rate=180, span_s=72))
            await asyncio.sleep(10)
            before = await total(run.workers, "notifier_consumer_moves")
            await asyncio.sleep(60)
            moves = await total(run.workers, "notifier_consumer_moves") - before
            await load
    return [Figure(name="moves in 60 s of half load (200 ms)", value=moves, high=12)]


async def starvation(stack: Stack) -> Sequence[Figure]:
    """Capacity at 100 ms per send is 730/s; 1,100/s of high arrive for 30 s over a low backlog."""
    async with stack.running() as run:
        await run.client.set_behaviour(latency_ms=100)
        await backlog(run.client, "email.low", 2000)
        before = await by_queue(run.workers, "notifier_attempts")
        await _flood(run, rate=1100, span_s=30)
        done = await by_queue(run.workers, "notifier_attempts") - before
        run.kill(run.workers[0])  # the rest of the backlog does not matter
    share = done["email.low"] / done.total()
    return [
        Figure(name="share of low during 30 s of too much high", value=share, unit="%", low=0.03)
    ]


async def consumer_rate(stack: Stack) -> Sequence[Figure]:
    return [
        await _at_consumer_rate(stack, held=held, most=most) for held, most in ((1, 5), (2, 10))
    ]


async def _at_consumer_rate(stack: Stack, *, held: int, most: int) -> Figure:
    limits = {"channels__email__consumer_rate": 5, "channels__email__max_consumers": held}
    async with stack.running(**limits) as run:
        await backlog(run.client, "email.high", 15 * most)
        await run.all_final()
        at = instants(await run.client.log())
    name = f"consumer_rate 5/s, {held} on the queue: calls in any second"
    return Figure(name=name, value=max_in_any_second(at), high=most, always=True)


async def _until_there(run: Run, queue: str, consumers: float) -> float:
    while True:
        held: Counter[str] = await by_queue(run.workers, "notifier_consumers")
        if held[queue] - 1 >= consumers:  # without the reserved one
            return time.time()
        await asyncio.sleep(0.01)


async def _flood(run: Run, *, rate: float, span_s: float) -> None:
    began, sent = time.monotonic(), 0
    while time.monotonic() - began < span_s:
        for queue in FLOOD:
            sent += len(await backlog(run.client, queue, 110))
        await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
