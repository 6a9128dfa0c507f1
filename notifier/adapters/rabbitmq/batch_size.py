"""Estimates how many pointers a queue's messages carry.

The broker counts messages, the rest of Notifier counts pointers. A process estimates from the
messages that it publishes and receives.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from notifier.domain.notification import QueueKey

_WINDOW: Final = 64


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
