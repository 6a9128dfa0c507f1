"""The load during a round: seeded, mixed, and it repeats while the API is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import aiohttp

from harness.client import QUEUES, Client, Document, submit_body
from notifier.lifecycle import wait

FATES: Final[Mapping[str, int]] = {
    "ok": 86,
    "refuse": 4,
    "flaky-2": 4,
    "down": 2,
    "cut": 2,
    "hang": 2,
}
"""Recipients per fate of a hundred; the failures stay far below what opens a breaker. None is
throttled: a response with a Retry-After lets its whole provider rest."""
HOPELESS: Final = frozenset({"down", "cut", "hang"})
TRIES_OF_THE_HOPELESS: Final = 2
CALLERS, BATCH = 10, 10
AGAIN_S = 0.1
COMPANY_S = 1.0


@dataclass(slots=True)
class Load:
    """Submits at a rate; `accepted` and `asked_at` hold fate and time of every id with a 202."""

    client: Client
    random: Random
    rate: float
    queues: Sequence[str] = QUEUES
    accepted: dict[str, str] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    unanswered: int = 0
    in_flight_submits: int = 0
    _next_at: float = 0.0

    async def run(self) -> None:
        """Submit at the rate until cancelled."""
        self._next_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(self._call(), name=f"caller {number}")

    async def submit(self, bodies: Sequence[Document], fate: str = "ok") -> list[str]:
        """Submit these too, as recipients with this fate, and return their ids."""
        asked_at = time.time()
        ids = await self.client.submit(bodies)
        self.accepted |= dict.fromkeys(ids, fate)
        self.asked_at |= dict.fromkeys(ids, asked_at)
        return ids

    async def keep_company(self, stop: asyncio.Event) -> None:
        """Submit a few that are accepted until `stop`.

        If only those that fail were left, their providers would be taken for broken.
        """
        while not stop.is_set():
            await self._submit(["ok"] * len(self.queues))
            await wait(stop, COMPANY_S)

    async def _call(self) -> None:
        while True:
            await asyncio.sleep(self._wait())
            fates = self.random.choices(list(FATES), list(FATES.values()), k=BATCH)
            await self._submit(fates)

    def _wait(self) -> float:
        """Wait for this caller's next slot; missed slots are skipped."""
        now = time.monotonic()
        self._next_at = max(now, self._next_at + BATCH / self.rate)
        return self._next_at - now

    async def _submit(self, fates: list[str]) -> None:
        wanted = [_order(self.random.choice(self.queues), fate) for fate in fates]
        self.in_flight_submits += len(wanted)
        asked_at = time.time()
        try:
            ids = await self.client.submit(wanted)
            self.accepted |= dict(zip(ids, fates, strict=True))
            self.asked_at |= dict.fromkeys(ids, asked_at)
        except (AssertionError, aiohttp.ClientError, TimeoutError):  # 503, cut, not there
            self.unanswered += len(wanted)
            await asyncio.sleep(AGAIN_S)
        finally:
            self.in_flight_submits -= len(wanted)


def _order(queue: str, fate: str) -> Document:
    tries = {"max_tries": TRIES_OF_THE_HOPELESS} if fate in HOPELESS else {}
    return submit_body(queue, fate, **tries)
