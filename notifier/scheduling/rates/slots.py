"""The slots of a schedule that this worker holds, each good at its time and a little longer."""

from __future__ import annotations

from collections import deque
from math import floor
from typing import Final

from notifier.ports.rates import Slice
from notifier.scheduling.consumers.measurements import Clock

CARRY_S: Final = 0.02
MAX_ANSWER_S: Final = 0.01
"""How long ago an answer is taken to have been given, at most."""
MAX_OVER_RATE: Final = 1.05
JITTER_S: Final = 0.03
BUSY_JITTER_S: Final = 0.075
MIN_USED_SHARE: Final = 0.98


def even_rate(rate_per_s: float) -> float:
    """What to schedule so that no second has more than 1.05 x the rate in calls.

    Slots are evenly spaced, but between slot and call lie a late event loop and a claim, now more
    and now less: with 30 ms of that a second of n calls a second may hold 1.03 n. Where the 5 %
    are less than that in whole calls (1.05 x 10 is still 10), the schedule is the slower by 3 %.
    On a busy machine it may be 75 ms: for that too it is slower, but by no more than 2 %.
    """
    calls = max(floor(MAX_OVER_RATE * rate_per_s + 1e-9), rate_per_s)
    calm, busy = calls / (1 + JITTER_S), calls / (1 + BUSY_JITTER_S)
    return min(rate_per_s, calm, max(busy, MIN_USED_SHARE * rate_per_s))


class Slots:
    """In the order of their times. Those past by more than 20 ms are lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_at: deque[float] = deque()

    def __len__(self) -> int:
        """How many are good still."""
        lapsed_at = self._clock() - CARRY_S
        while self._due_at and self._due_at[0] < lapsed_at:
            self._due_at.popleft()
        return len(self._due_at)

    def add(self, piece: Slice, asked_at: float) -> None:
        """What the store answered just now; it was true half a round trip ago."""
        now = self._clock()
        starts_at = now - min((now - asked_at) / 2, MAX_ANSWER_S) + piece.starts_in_s
        self._due_at.extend(starts_at + piece.spacing_s * number for number in range(piece.count))

    def restore(self) -> None:
        """One taken just now was not used."""
        self._due_at.appendleft(self._clock())

    def take(self) -> None:
        """Use the first."""
        self._due_at.popleft()

    @property
    def first_in_s(self) -> float:
        """How long until the first is due; infinite without one."""
        return self._due_at[0] - self._clock() if self._due_at else float("inf")

    @property
    def covered_s(self) -> float:
        """How long until the last is due."""
        return self._due_at[-1] - self._clock() if self._due_at else 0.0
