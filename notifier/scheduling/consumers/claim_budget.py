"""How much one worker may have claimed at once, over all its queues."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import inf
from typing import Final

from notifier.domain.notification import NotificationId, Priority
from notifier.lifecycle import Clock, uptime_s
from notifier.ports.broker import Pointer

MAX_CLAIMED_ROWS: Final = 1_024
MAX_CLAIMED_BYTES: Final = 32 * 1024 * 1024
MAX_WITH_ONE_DEATH: Final = 32
"""How many rows with one death a worker may have claimed. One with more deaths is claimed beside no
other row with deaths: each may kill this worker too, and the death counts for all rows that it has
claimed. So no other row fails as poison beside one that kills; beside 3 of 256 that kill, another
one fails in a quarter of the runs (simulated as in tests/unit/test_claim_budget_runs.py). A lower
limit keeps the rows of a dead worker waiting."""
HANGS_AFTER_S: Final = 2.0
"""A row with one death that was claimed this long ago no longer holds up those with more deaths:
its call hangs, and may do so for minutes. At worst it gets its second death beside them."""
KEPT_FOR_HIGH: Final = 8
"""Of the rows with one death: calls of the other priorities may take long."""


class ClaimBudget:
    """Counts what is claimed and not settled."""

    def __init__(self, clock: Clock = uptime_s) -> None:
        self._clock = clock
        self._rows = 0
        self._bytes = 0
        self._suspects: Counter[tuple[bool, bool]] = Counter()
        self._one_death_at: dict[NotificationId, float] = {}
        """When the rows with one death were claimed, the oldest first."""
        self._wakes: list[asyncio.Event] = []

    @property
    def rows_left(self) -> int:
        """How many more rows may be claimed; 0 once the bytes are used up."""
        return 0 if self._is_full else MAX_CLAIMED_ROWS - self._rows

    @property
    def bytes_left(self) -> int:
        """How much more content may be claimed. The last row may exceed it."""
        return max(0, MAX_CLAIMED_BYTES - self._bytes)

    def attach(self, wake: asyncio.Event) -> None:
        """Set this event whenever something may be claimed that could not be before."""
        self._wakes.append(wake)

    def may_claim(self, pointer: Pointer) -> bool:
        """Whether this row may be claimed beside those with deaths that are claimed already."""
        if not pointer.deaths:
            return True
        many, urgent = pointer.deaths > 1, pointer.queue.priority is Priority.HIGH
        with_one = self._suspects[False, True] + self._suspects[False, False]
        with_more = self._suspects[True, True] + self._suspects[True, False]
        if with_more:
            return False
        if many:
            newest = next(reversed(self._one_death_at.values()), -inf)
            return self._clock() - newest >= HANGS_AFTER_S
        limit = MAX_WITH_ONE_DEATH - KEPT_FOR_HIGH
        return with_one < MAX_WITH_ONE_DEATH and (urgent or self._suspects[False, False] < limit)

    def add(self, pointer: Pointer) -> None:
        """Count a row that is about to be claimed."""
        self._rows += 1
        self._bytes += pointer.size
        if pointer.deaths:
            self._suspects[_kind(pointer)] += 1
        if pointer.deaths == 1:
            self._one_death_at[pointer.id] = self._clock()

    def remove(self, pointer: Pointer) -> None:
        """Count a row no longer: it is settled."""
        was_full = self._is_full
        self._rows -= 1
        self._bytes -= pointer.size
        if pointer.deaths:
            self._suspects[_kind(pointer)] -= 1
            self._one_death_at.pop(pointer.id, None)
        if was_full or pointer.deaths:
            for wake in self._wakes:
                wake.set()

    @property
    def _is_full(self) -> bool:
        return self._rows >= MAX_CLAIMED_ROWS or self._bytes >= MAX_CLAIMED_BYTES


def _kind(pointer: Pointer) -> tuple[bool, bool]:
    """Whether it has more than one death, and whether it is of the priority high."""
    return pointer.deaths > 1, pointer.queue.priority is Priority.HIGH
