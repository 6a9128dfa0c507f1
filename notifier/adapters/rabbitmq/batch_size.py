"""Estimates how many pointers a queue's messages carry.

The broker counts messages, the rest of Notifier counts pointers. A process estimates from the
messages that it publishes and receives.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from notifier.domain.notification import QueueKey

_WINDOW: Final = 64
_DOUBLE_ABOVE: Final = 1.5
_HALVE_BELOW: Final = 0.6


class BatchSizeEstimate:
    """The moving average over the last 64 messages of each queue."""

    def __init__(self) -> None:
        self._mean: dict[QueueKey, float] = {}
        self._count: Counter[QueueKey] = Counter()

    def record(self, queue: QueueKey, pointers: int) -> None:
        """Record a published or received message of the queue."""
        mean = self.mean(queue)
        self._count[queue] = min(self._count[queue] + 1, _WINDOW)
        self._mean[queue] = mean + (pointers - mean) / self._count[queue]

    def mean(self, queue: QueueKey) -> float:
        """Return the pointers per message; 1.0 before the first message."""
        return self._mean.get(queue, 1.0)

    def pointers(self, queue: QueueKey, messages: int) -> int:
        """Return about how many pointers this number of messages carries."""
        return round(messages * self.mean(queue))


class Prefetch:
    """Converts the prefetch of one subscription from pointers to messages.

    Where messages carry several pointers, twice the wanted number of pointers is held: a message is
    held until its last pointer is done, and a second one must be there to continue with. The batch
    size is a power of two that changes late, because each change costs a new consumer.
    """

    def __init__(self) -> None:
        self.pointers = 0
        self._batch_size = 1

    @property
    def messages(self) -> int:
        """How many messages to hold."""
        if self._batch_size == 1 or self.pointers <= 1:
            return self.pointers
        return min(self.pointers, max(2, 2 * self.pointers // self._batch_size))

    @property
    def max_held(self) -> int:
        """An upper estimate of how many pointers these messages carry."""
        return self.messages if self._batch_size == 1 else 2 * self.messages * self._batch_size

    def follow(self, mean: float) -> bool:
        """Adapt to the present mean of pointers per message; return whether `messages` changed."""
        before = self.messages
        while mean > self._batch_size * _DOUBLE_ABOVE:
            self._batch_size *= 2
        while self._batch_size > 1 and mean < self._batch_size * _HALVE_BELOW:
            self._batch_size //= 2
        return self.messages != before
