"""Per-queue backoff after an unconfirmed publish."""

from __future__ import annotations

from typing import Final

from notifier.lifecycle import Backoff

MIN_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0


class PublishBackoff:
    """Stops publishing to one queue for 1 s, doubling to 60 s; then tries a single pointer.

    It keeps a queue that refuses messages from delaying the other queues.
    """

    def __init__(self) -> None:
        self._backoff = Backoff(MIN_BACKOFF_S, MAX_BACKOFF_S)
        self._until = 0.0

    def record_failure(self, now: float) -> float:
        """Record an unconfirmed publish; returns the seconds until the next try.

        Failures during a backoff do not lengthen it: they belong to the same outage.
        """
        if now < self._until:
            return self._until - now
        delay_s = self._backoff.next_s()
        self._until = now + delay_s
        return delay_s

    def reset(self) -> None:
        """Record a confirmed publish, which ends the backoff."""
        self._backoff.reset()
        self._until = 0.0

    @property
    def is_active(self) -> bool:
        """Whether the last publish was unconfirmed."""
        return not self._backoff.is_fresh

    def limit(self, now: float, limit: int) -> int:
        """Return how many pointers of `limit` may be published now: all, one to try, or none."""
        if not self.is_active:
            return limit
        return min(limit, 1) if now >= self._until else 0
