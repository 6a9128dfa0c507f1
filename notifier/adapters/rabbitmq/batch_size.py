"""How many pointers the messages of a queue carry, and so how many messages hold so many pointers.

The broker counts messages, everybody else counts pointers. What a process sees pass is its measure.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from notifier.domain.notification import QueueKey

MAX_POINTERS_PER_MESSAGE: Final = 64
"""A message that says it carries more is none of ours."""
_MEMORY: Final = 64
_RAISED_AT: Final = 1.5
_LOWERED_AT: Final = 0.6


class BatchSizeEstimate:
    """The moving average over the last few messages of each queue, published or delivered."""

    def __init__(self) -> None:
        self._mean: dict[QueueKey, float] = {}
        self._seen: Counter[QueueKey] = Counter()

    def saw(self, queue: QueueKey, pointers: int) -> None:
        """A message of the queue, with so many, passed."""
        mean = self.mean(queue)
        self._seen[queue] = min(self._seen[queue] + 1, _MEMORY)
        self._mean[queue] = mean + (pointers - mean) / self._seen[queue]

    def mean(self, queue: QueueKey) -> float:
        """Pointers a message; 1.0 where none has passed."""
        return self._mean.get(queue, 1.0)

    def pointers(self, queue: QueueKey, messages: int) -> int:
        """About how many pointers so many messages of the queue carry."""
        return round(messages * self.mean(queue))


class Prefetch:
    """One subscription's prefetch: asked for in pointers, told to the broker in messages.

    Where messages carry several, twice as many pointers are held as were asked for: a message is
    held until the last of its pointers is done, and two must be there for one to follow the other.
    The measure is a power of two that changes late, since each change consumes anew.
    """

    def __init__(self) -> None:
        self.pointers = 0
        self._each = 1

    @property
    def messages(self) -> int:
        """How many messages to hold."""
        if self._each == 1 or self.pointers <= 1:
            return self.pointers
        return min(self.pointers, max(2, 2 * self.pointers // self._each))

    @property
    def max_held(self) -> int:
        """How many pointers these messages carry, rather more than less."""
        return self.messages if self._each == 1 else 2 * self.messages * self._each

    def follow(self, mean: float) -> bool:
        """Take in how many pointers a message carries now; whether `messages` is another."""
        before = self.messages
        while mean > self._each * _RAISED_AT:
            self._each *= 2
        while self._each > 1 and mean < self._each * _LOWERED_AT:
            self._each //= 2
        return self.messages != before
