"""How the rows that one pass publishes of a queue are divided among its turns. Pure.

Start-time fair queueing: each turn has a tag, which grows by its stride with each row that is
published of it, and the turn with the least tag is served next. The turns of tenants have the
stride 1. Turn 0, with the first rows of all tenants, gets as much as all others together.
"""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from notifier.delivery.retry_share import RetryShare
from notifier.domain.due import DueClass
from notifier.domain.turns import FIRST_TURN

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from notifier.delivery.class_cursor import ClassRead

TURN_CLASSES: Final = (DueClass.BACK, DueClass.FIRST, DueClass.RETRY)
"""The classes of a turn other than 0: what is published directly is in turn 0."""
ACTIVE_S: Final = 2.0
"""For how long after a read that returned rows a turn is read by every pass."""
IDLE_INTERVAL_S: Final = 0.4
"""How often another turn is read."""
MAX_IDLE_READ: Final = 16
"""How many idle turns a pass reads."""
NEW_ROWS: Final = 16
"""Rows that a pass reads of a turn of which none waited after the last pass."""
MAX_LAG: Final = 100.0
"""How many rows a turn catches up at most that could not be served for a time."""
STEPS: Final = 16
"""Into how many parts for each turn a room is divided."""

ClassLimits = dict[DueClass, int]


class Division(NamedTuple):
    """What a pass may read: rows of turn 0, and rows of each class of others."""

    first: int
    others: Mapping[int, ClassLimits]


class TurnShares:
    """The shares of the turns of one queue."""

    def __init__(self) -> None:
        self._tags: dict[int, float] = {FIRST_TURN: 0.0}
        self._least_tag = 0.0
        self._waiting: set[int] = set()
        """The turns of which more rows waited after their last read."""
        self._retries: dict[int, RetryShare] = {}
        self._active_until: dict[int, float] = {}
        self._read_at: dict[int, float] = {}

    @property
    def is_backlogged(self) -> bool:
        """Whether rows of a turn other than 0 wait."""
        return bool(self._waiting - {FIRST_TURN})

    def divide(self, turns: Collection[int], room: int, now: float) -> Division:
        """Divide the room of a pass before its read; `turns` are those other than 0.

        More may be read than there is room for, so that no room is left while rows wait.
        """
        if not turns:
            return Division(room, {})
        limits = self._limits_of_waiting(room)
        first = limits.pop(FIRST_TURN, room)
        idle = 0
        for turn in sorted(turns, key=lambda turn: self._read_at.get(turn, -inf)):
            if turn in self._waiting:
                continue
            if self._active_until.get(turn, -inf) <= now:
                if now - self._read_at.get(turn, -inf) < IDLE_INTERVAL_S or idle == MAX_IDLE_READ:
                    continue
                idle += 1
            limits[turn] = min(room, NEW_ROWS)
        return Division(first, {turn: self._split(turn, limits[turn]) for turn in limits})

    def _limits_of_waiting(self, room: int) -> dict[int, int]:
        if not self.is_backlogged:
            return {}
        parts = self.grant(dict.fromkeys(self._waiting, room), room)
        return {turn: part for turn, part in parts.items() if part or turn == FIRST_TURN}

    def _split(self, turn: int, limit: int) -> ClassLimits:
        first_attempts, retries = self._share(turn).split(limit)
        limits = {
            DueClass.BACK: limit,
            DueClass.FIRST: first_attempts,
            DueClass.RETRY: retries,
        }
        return {due_class: limit for due_class, limit in limits.items() if limit}

    def grant(self, counts: Mapping[int, int], room: int) -> dict[int, int]:
        """Divide a room among turns that have so many rows each."""
        if sum(counts.values()) <= room:
            return dict(counts)
        step = max(1, room // (STEPS * len(counts)))
        stride = self._first_stride(counts)
        granted = dict.fromkeys(counts, 0)
        heap = [
            (max(self._tags.get(turn, 0.0), self._least_tag), turn)
            for turn, count in counts.items()
            if count
        ]
        heapify(heap)
        while room and heap:
            tag, turn = heap[0]
            rows = min(step, room, counts[turn] - granted[turn])
            granted[turn] += rows
            room -= rows
            if granted[turn] == counts[turn]:
                heappop(heap)
            else:
                heapreplace(heap, (tag + rows * (stride if turn == FIRST_TURN else 1.0), turn))
        return granted

    def record(self, classes: Mapping[int, Mapping[DueClass, ClassRead]], now: float) -> None:
        """Record a pass: for each turn that it read, the classes that it asked for."""
        got = {turn: sum(read.got for read in of.values()) for turn, of in classes.items()}
        stride = self._first_stride(got)
        for turn, of_turn in classes.items():
            if not of_turn:
                continue
            tag = max(self._tags.get(turn, 0.0), self._least_tag)
            self._tags[turn] = tag + got[turn] * (stride if turn == FIRST_TURN else 1.0)
            self._read_at[turn] = now
            if got[turn]:
                self._active_until[turn] = now + ACTIVE_S
            is_first = turn == FIRST_TURN
            has_more = (
                any(read.has_more for read in of_turn.values())
                if is_first
                else self._share(turn).record(of_turn)
            )
            (self._waiting.add if has_more else self._waiting.discard)(turn)
        tags = [self._tags[turn] for turn in self._waiting or got if turn in self._tags]
        if tags:
            self._least_tag = max(self._least_tag, min(tags), max(tags) - MAX_LAG)

    def _share(self, turn: int) -> RetryShare:
        return self._retries.setdefault(turn, RetryShare())

    def _first_stride(self, counts: Mapping[int, int]) -> float:
        """Return the stride of turn 0, beside the others that wait and those with rows here."""
        others = {turn for turn, count in counts.items() if count} | self._waiting
        return 1.0 / max(1, len(others - {FIRST_TURN}))
