"""Claims rows for the consumers of some lanes, as many as they begin soon.

A claim of a whole message costs little more than one of a single row. But a claimed row belongs to
this worker: others cannot send it, and if the worker dies it counts as perhaps sent. So no more is
claimed than the consumers begin within a fraction of a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from notifier.domain.notification import QueueKey
from notifier.ports.attempts import AttemptRunner, ClaimedRow
from notifier.scheduling.consumers.claim_budget import ClaimBudget
from notifier.scheduling.consumers.held import LanePointer
from notifier.scheduling.consumers.lane import Lane

MAX_ROWS: Final = 256
MAX_BYTES: Final = 4 * 1024 * 1024
"""One claim returns this much content at most, so that the next one need not wait long."""


class ClaimLoop:
    """Runs one claim after the other for its lanes, each time beginning with another lane."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        attempts: AttemptRunner,
        budget: ClaimBudget,
        is_urgent: bool,
    ) -> None:
        self._lanes = deque(lanes)
        self._attempts = attempts
        self._budget = budget
        self._is_urgent = is_urgent
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        for lane in lanes:
            lane.attach_claims(self._wake)
        budget.attach(self._wake)

    async def run(self) -> None:
        """Claim until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while True:
                await self._attempts.wait_until_ready()
                batch = self._next_batch()
                if not batch:
                    break
                self._idle.clear()
                try:
                    await self._claim(batch)
                finally:
                    self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no claim is under way."""
        await self._idle.wait()

    async def _claim(self, batch: Sequence[tuple[Lane, Sequence[LanePointer]]]) -> None:
        pointers = [held for _, of_lane in batch for held in of_lane]
        rows = await self._attempts.claim(pointers, is_urgent=self._is_urgent)
        by_queue: dict[QueueKey, list[ClaimedRow]] = {lane.queue: [] for lane, _ in batch}
        for row in rows:
            by_queue[row.held.pointer.queue].append(row)
        for lane, of_lane in batch:
            lane.end_claim(len(of_lane), by_queue[lane.queue])

    def _next_batch(self) -> list[tuple[Lane, list[LanePointer]]]:
        rows, size = MAX_ROWS, MAX_BYTES
        batch = []
        self._lanes.rotate(-1)
        for lane in self._lanes:
            pointers = self._next_of(lane, rows, size)
            if pointers:
                batch.append((lane, pointers))
                rows -= len(pointers)
                size -= sum(held.pointer.size for held in pointers)
        return batch

    def _next_of(self, lane: Lane, rows: int, size: int) -> list[LanePointer]:
        """Remove the pointers of one lane that are claimed next; they may exceed `size` by one."""
        pointers: list[LanePointer] = []
        room = self._budget.rows_left
        if room:  # without, the reserved consumers still get a row each
            size = min(size, self._budget.bytes_left)
        for _ in range(min(lane.claims_wanted(room=room), rows)):
            held = lane.begin_claim() if size > 0 else None
            if held is None:
                break
            pointers.append(held)
            size -= held.pointer.size
        return pointers
