"""Three times the submits that can be committed, for a while: what is refused, and how soon.

The link between API and Postgres is slow, so that what accept can commit is known and no more than
a client can submit.
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
class Answers:
    """What callers heard: seconds of each 202, and how many of each other answer."""

    accepted: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    refused_without_time: int = 0
    failed: int = 0

    def rate(self, first: float, last: float) -> float:
        """Accepted in a second between these instants."""
        return BATCH * sum(first <= at < last for at, _ in self.accepted) / (last - first)


async def overload(arena: Arena) -> Sequence[Figure]:
    assert arena.links, "it needs linked=True"
    await arena.run.client.set_behaviour()
    idle_mb, url = resident_mb(arena.api.pid), f"{arena.run.client.api}/v1/notifications/batch"
    arena.links.api_postgres.slow(DELAY_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        capacity = (await _saturate(session, url, MEASURED_S)).rate(*_the_last(MEASURED_S / 2))
        told, most_mb = await _overloaded(session, url, arena.api.pid, TIMES * capacity)
        ended_at = time.monotonic()
        after = await _saturate(session, url, AFTER_S)
    arena.links.api_postgres.heal()
    full_s = _full_again(after, ended_at, SHARE * capacity)
    waits = [seconds for _, seconds in told.accepted] or [float("inf")]
    return [
        Figure(name="it can commit", value=capacity, unit="/s", low=1),
        Figure(name="batches accepted under 3 x", value=len(told.accepted), low=1),
        Figure(name="... refused with 503", value=told.refused, low=1),
        Figure(name="... without Retry-After", value=told.refused_without_time, high=0),
        Figure(name="... answered otherwise, or not at all", value=told.failed, high=0),
        Figure(name="... p99 of the accepted", value=percentile(waits, 0.99), unit="s", high=1),
        Figure(name="... most memory of the API", value=most_mb / idle_mb, unit="x", high=2),
        Figure(name="at its full rate again after", value=full_s, unit="s", high=10),
    ]


def _the_last(span_s: float) -> tuple[float, float]:
    now = time.monotonic()
    return now - span_s, now


def _full_again(after: Answers, ended_at: float, wanted: float) -> float:
    """When the first second began in which enough was committed."""
    for tenth in range(round((AFTER_S - 1) * 10)):
        if after.rate(ended_at + tenth / 10, ended_at + tenth / 10 + 1) >= wanted:
            return tenth / 10
    return float("inf")


async def _saturate(session: aiohttp.ClientSession, url: str, span_s: float) -> Answers:
    """A few callers, each with its next batch as soon as the last is answered."""
    answers = Answers()

    async def call() -> None:
        while True:
            if not await _submit(session, url, answers):
                await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(call()) for _ in range(SATURATING)]
        await asyncio.sleep(span_s)
        for caller in callers:
            caller.cancel()
    return answers


async def _overloaded(
    session: aiohttp.ClientSession, url: str, pid: int, rate: float
) -> tuple[Answers, float]:
    """A batch at its time, however many are unanswered; and the most memory meanwhile."""
    answers, began, most_mb, number = Answers(), time.monotonic(), 0.0, 0
    async with asyncio.TaskGroup() as group:
        while (passed := time.monotonic() - began) < SPAN_S:
            while number < passed * rate / BATCH:
                number += 1
                group.create_task(_submit(session, url, answers))
            most_mb = max(most_mb, resident_mb(pid))
            await asyncio.sleep(0.02)
    return answers, most_mb


async def _submit(session: aiohttp.ClientSession, url: str, answers: Answers) -> bool:
    """One batch; whether it was taken."""
    began = time.monotonic()
    try:
        async with session.post(url, data=BODY, headers=JSON) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError):
        answers.failed += 1
        return False
    if answer.status == 202:
        answers.accepted.append((time.monotonic(), time.monotonic() - began))
    elif answer.status == 503:
        answers.refused += 1
        answers.refused_without_time += "Retry-After" not in answer.headers
    else:
        answers.failed += 1
    return answer.status == 202
