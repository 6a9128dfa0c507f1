"""Simulated runs: a row that kills its worker takes no other row with it into `poison`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Final

import msgspec
import pytest

from notifier.domain.allocation.demand import TICK_S
from notifier.ports.broker import Pointer
from notifier.scheduling.consumers.claim_budget import ClaimBudget
from tests.builders import EMAIL_LOW, new_id

ROWS, CONSUMERS = 256, 64
MAX_DEATHS: Final = 3
CALL_S, HANG_S, DEAD_S = (0.005, 0.1), 15.0, 6.0


@dataclass(slots=True)
class Row:
    pointer: Pointer
    kills: bool
    call_s: float


class Worker:
    """Sends rows as a lane does: those with deaths first, each if the budget allows it."""

    def __init__(self, rows: list[Row], now: float) -> None:
        self.now = now
        self.budget = ClaimBudget(lambda: self.now)
        self.claimed: dict[int, Row] = {}
        self.ends: list[tuple[float, int]] = []
        self.waiting = [deque[Row](), deque[Row](), deque[Row]()]
        for row in rows:
            self.waiting[min(row.pointer.deaths, 2)].append(row)

    def next(self) -> Row | None:
        fresh, *suspects = self.waiting
        for rows in (*suspects, fresh):
            if rows and len(self.claimed) < CONSUMERS and self.budget.may_claim(rows[0].pointer):
                return rows.popleft()
        return None

    def run(self) -> bool:
        """Send until a row kills this worker; returns False if all rows are sent."""
        while True:
            while (row := self.next()) is not None:
                self.budget.add(row.pointer)
                self.claimed[id(row)] = row
                heappush(self.ends, (self.now + row.call_s, id(row)))
                if row.kills:
                    return True
            if not self.ends:
                return False
            self.now = min(self.ends[0][0], self.now + TICK_S)
            while self.ends and self.ends[0][0] <= self.now:
                self.budget.remove(self.claimed.pop(heappop(self.ends)[1]).pointer)

    def left(self) -> list[Row]:
        return [*self.claimed.values(), *(row for rows in self.waiting for row in rows)]


@pytest.mark.parametrize("hanging", [0, 12])
def test_only_the_row_that_kills_fails_as_poison(hanging: int) -> None:
    for seed in range(100):
        random = Random(seed)
        rows = [
            Row(
                Pointer(queue=EMAIL_LOW, id=new_id(), claim=0, published_at=0.0),
                kills=number == 0,
                call_s=HANG_S if number <= hanging else random.uniform(*CALL_S),
            )
            for number in range(ROWS)
        ]
        random.shuffle(rows)
        failed, now = list[Row](), 0.0
        while (worker := Worker(rows, now)).run():
            for row in worker.claimed.values():
                deaths = row.pointer.deaths + 1
                row.pointer = msgspec.structs.replace(row.pointer, deaths=deaths)
            failed += [row for row in worker.claimed.values() if row.pointer.deaths == MAX_DEATHS]
            rows = [row for row in worker.left() if row.pointer.deaths < MAX_DEATHS]
            now = worker.now + DEAD_S
        assert [row.kills for row in failed] == [True]
