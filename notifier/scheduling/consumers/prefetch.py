"""How many messages a lane holds. Pure.

The broker counts messages, a lane counts the pointers that its consumers begin.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Final

MAX_HOLD_S: Final = 5.0
"""A lane with a rate holds at most what it sends in this time."""
MAX_POINTERS: Final = 1_024
_WINDOW: Final = 64
_DOUBLE_ABOVE: Final = 1.5
_HALVE_BELOW: Final = 0.6


class MessageSize:
    """The mean number of pointers of the last 64 messages, as a power of two that changes late."""

    def __init__(self) -> None:
        self._mean = 1.0
        self._count = 0
        self.pointers = 1

    def record(self, pointers: int) -> None:
        """Record a message."""
        self._count = min(self._count + 1, _WINDOW)
        self._mean += (pointers - self._mean) / self._count
        while self._mean > self.pointers * _DOUBLE_ABOVE:
            self.pointers *= 2
        while self.pointers > 1 and self._mean < self.pointers * _HALVE_BELOW:
            self.pointers //= 2


def prefetch_for(
    consumers: int,
    *,
    rate_per_s: float | None = None,
    ahead: float = 0.0,
    message_size: int = 1,
    tails: int = 0,
) -> int:
    """Return the messages that `consumers` should hold; 0 without consumers.

    `ahead` is the number of pointers that they begin in the time of a claim. `rate_per_s` limits
    the pointers to 5 s of the rate, at least 1. `tails` are messages that wait for a few slow calls
    and have nothing left to begin. Where messages carry several pointers, twice the pointers are
    held: a second message must be there to continue with.
    """
    if consumers <= 0:
        return 0
    pointers = _power_of_two_above(min(ceil(consumers + ahead), max(consumers, MAX_POINTERS)))
    if rate_per_s is not None:
        pointers = max(1, min(pointers, floor(rate_per_s * MAX_HOLD_S)))
    if message_size == 1:
        return pointers
    messages = min(pointers, max(2, 2 * pointers // message_size))
    return messages + (_power_of_two_above(min(tails, consumers)) if tails else 0)


def is_worth_a_change(wanted: int, present: int) -> bool:
    """Whether a prefetch differs enough: each change costs a new consumer in the broker."""
    return wanted > present or wanted < present // 2 or (wanted == 0) != (present == 0)


def _power_of_two_above(number: int) -> int:
    result: int = 1 << (number - 1).bit_length()
    return result
