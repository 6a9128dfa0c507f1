"""Overload: three times the submits that Postgres can commit.

The connection between API and Postgres is slowed, so that the commit rate is known and one client
can exceed it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from harness.client import orders
from harness.figure import Figure
from harness.judge import percentile
from tests.chaos.arena import Arena
from tests.chaos.memory import resident_mb

SPAN_S: Final = 180.0 if os.environ.get("CHAOS_LONG") else 60.0
DELAY_S: Final = 0.15
MEASURED_S, AFTER_S, SHARE = 8.0, 10.0, 0.9
SATURATING, BATCH, TIMES = 20, 100, 3
JSON: Final = {"Content-Type": "application/json"}
BODY: Final = json.dumps({"notifications": orders(BATCH)})


@dataclass(slots=True)
class Responses:
    """What the callers got: the seconds of each 202, and counts of all other responses."""

    accepted: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    refused_without_time: int = 0
    failed: int = 0

    def rate(self, first: float, last: float) -> float:
        """Return the notifications accepted per second between these instants."""
        return BATCH * sum(first <= at < last for at, _ in self.accepted) / (last - first)


async def overload(arena: Arena) -> Sequence[Figure]:
    assert arena.links, "overload needs linked=True"
    await arena.run.client.set_behaviour()
    idle_mb, url = resident_mb(arena.api.pid), f"{arena.run.client.api}/v1/notifications/batch"
    arena.links.api.postgres.slow(DELAY_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        capacity = (await _saturate(session, url, MEASURED_S)).rate(*_last(MEASURED_S / 2))
        during, peak_mb = await _overloaded(session, url, arena.api.pid, TIMES * capacity)
        ended_at = time.monotonic()
        after = await _saturate(session, url, AFTER_S)
    arena.links.api.postgres.heal()
    full_s = _full_again(after, ended_at, SHARE * capacity)
    waits = [seconds for _, seconds in during.accepted] or [float("inf")]
    return [
        Figure(name="commit capacity", value=capacity, unit="/s", low=1),
        Figure(name="batches accepted at 3 times that rate:", value=len(during.accepted), low=1),
        Figure(name="... refused with 503", value=during.refused, low=1),
        Figure(name="... without Retry-After", value=during.refused_without_time, high=0),
        Figure(name="... answered otherwise, or not at all", value=during.failed, high=0),
        Figure(name="... p99 of the accepted", value=percentile(waits, 0.99), unit="s", high=1),
        Figure(
            name="... peak memory of the API, compared with idle",
            value=peak_mb / idle_mb,
            unit="x",
            high=2,
        ),
        Figure(name="full rate again after", value=full_s, unit="s", high=10),
    ]


def _last(span_s: float) -> tuple[float, float]:
    now = time.monotonic()
    return now - span_s, now


def _full_again(after: Responses, ended_at: float, target: float) -> float:
    """Return when the first second with enough commits began."""
    for tenth in range(round((AFTER_S - 1) * 10)):
        if after.rate(ended_at + tenth / 10, ended_at + tenth / 10 + 1) >= target:
            return tenth / 10
    return float("inf")


async def _saturate(session: aiohttp.ClientSession, url: str, span_s: float) -> Responses:
    """Submit with a few callers, each sending its next batch after the last response."""
    responses = Responses()

    async def call() -> None:
        while True:
            if not await _submit(session, url, responses):
                await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(call()) for _ in range(SATURATING)]
        await asyncio.sleep(span_s)
        for caller in callers:
            caller.cancel()
    return responses


async def _overloaded(
    session: aiohttp.ClientSession, url: str, pid: int, rate: float
) -> tuple[Responses, float]:
    """Submit batches at a fixed rate; return the responses and the peak memory of the API."""
    responses, began, peak_mb, number = Responses(), time.monotonic(), 0.0, 0
    async with asyncio.TaskGroup() as group:
        while (passed := time.monotonic() - began) < SPAN_S:
            while number < passed * rate / BATCH:
                number += 1
                group.create_task(_submit(session, url, responses))
            peak_mb = max(peak_mb, resident_mb(pid))
            await asyncio.sleep(0.02)
    return responses, peak_mb


async def _submit(session: aiohttp.ClientSession, url: str, responses: Responses) -> bool:
    """Submit one batch; return whether it got a 202."""
    began = time.monotonic()
    try:
        async with session.post(url, data=BODY, headers=JSON) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError):
        responses.failed += 1
        return False
    if answer.status == 202:
        responses.accepted.append((time.monotonic(), time.monotonic() - began))
    elif answer.status == 503:
        responses.refused += 1
        responses.refused_without_time += "Retry-After" not in answer.headers
    else:
        responses.failed += 1
    return answer.status == 202
