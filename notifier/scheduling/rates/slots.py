"""The slots of a provider's schedule that this worker holds."""

from __future__ import annotations

from collections import deque
from math import floor
from typing import Final

from notifier.lifecycle import Clock
from notifier.ports.rates import Slice

SLOT_VALID_S: Final = 0.02
MAX_REPLY_AGE_S: Final = 0.01
"""Upper bound of the assumed age of a reply from the store."""
MAX_OVER_RATE: Final = 1.05
JITTER_S: Final = 0.03
BUSY_JITTER_S: Final = 0.075
MIN_USED_SHARE: Final = 0.98


def even_rate(rate_per_s: float) -> float:
    """The rate to schedule so that no second has more than 1.05 times `rate_per_s` calls.

    Slots are evenly spaced, but a late event loop and a claim lie between slot and call, and their
    delay varies: with 30 ms of jitter a second of n calls may contain 1.03 n. Where 5 % is less
    than one whole call (1.05 * 10 is still 10), the schedule is slower by 3 %. On a busy machine
    the jitter may be 75 ms: the schedule is slower for that too, by up to 2 %.
    """
    calls = max(floor(MAX_OVER_RATE * rate_per_s + 1e-9), rate_per_s)
    calm, busy = calls / (1 + JITTER_S), calls / (1 + BUSY_JITTER_S)
    return min(rate_per_s, calm, max(busy, MIN_USED_SHARE * rate_per_s))


class Slots:
    """Slots in the order of their times. A slot expires 20 ms after its time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_at: deque[float] = deque()

    def __len__(self) -> int:
        """The number of slots that have not expired."""
        expired_at = self._clock() - SLOT_VALID_S
        while self._due_at and self._due_at[0] < expired_at:
            self._due_at.popleft()
        return len(self._due_at)

    def add(self, piece: Slice, requested_at: float) -> None:
        """Add a slice that the store returned just now; it was current half a round trip ago."""
        now = self._clock()
        reply_age_s = min((now - requested_at) / 2, MAX_REPLY_AGE_S)
        starts_at = now - reply_age_s + piece.starts_in_s
        self._due_at.extend(starts_at + piece.spacing_s * number for number in range(piece.count))

    def restore(self) -> None:
        """Put back a slot that was taken just now and not used."""
        self._due_at.appendleft(self._clock())

    def take(self) -> None:
        """Use the first slot."""
        self._due_at.popleft()

    @property
    def first_in_s(self) -> float:
        """Seconds until the first slot is due; infinite without a slot."""
        return self._due_at[0] - self._clock() if self._due_at else float("inf")

    @property
    def covered_s(self) -> float:
        """Seconds until the last slot is due, 0 without a slot."""
        return self._due_at[-1] - self._clock() if self._due_at else 0.0
