"""Evidence, collected by one lane, that messages of its queue are lost. The rescuer acts on it."""

from __future__ import annotations

from collections import deque
from typing import Final

from notifier.ports.broker import Depth, Message

SETTLED_AFTER_S: Final = 10.0
MAX_POLL_GAP_S: Final = 1.0
_BUCKET_S: Final = 0.5


class LossDetector:
    """Keeps the watermark of one queue, and for how long the queue has been drained.

    Times are monotonic seconds, except `published_at`, which is Postgres's clock.
    """

    def __init__(self) -> None:
        self._newest: deque[tuple[float, float]] = deque()
        """Buckets of half a second: when the bucket ends, and the newest `published_at` in it."""
        self._watermark: float | None = None
        self._drained_since: float | None = None
        self._polled_at: float | None = None

    def delivered(self, message: Message, now: float) -> None:
        """Record a delivery: the queue is not drained, and its watermark may rise.

        A redelivery does not count for the watermark: older messages may follow it.
        """
        self._drained_since = None
        if message.redelivered:
            return
        published_at = message.published_at
        # A delivery counts as if made at the end of its bucket. So the watermark may rise late,
        # never early.
        if self._newest and now < self._newest[-1][0]:
            ends_at, before = self._newest.pop()
            self._newest.append((ends_at, max(before, published_at)))
        else:
            self._newest.append((now + _BUCKET_S, published_at))

    def polled(self, depth: Depth | None, *, held: int, now: float) -> None:
        """Record a poll of the broker; `depth` is None if the depth is unknown."""
        is_drained = depth is not None and depth.ready == 0 and depth.consumers > 0 and held == 0
        is_continuous = self._polled_at is not None and now - self._polled_at <= MAX_POLL_GAP_S
        if not is_drained:
            self._drained_since = None
        elif self._drained_since is None or not is_continuous:
            self._drained_since = now
        self._polled_at = now

    def connection_lost(self) -> None:
        """Forget everything: the broker delivers again, possibly the oldest message last."""
        self._drained_since = None
        self._watermark = None
        self._newest.clear()

    def watermark(self, now: float) -> float | None:
        """The newest publish time of a first delivery at least 10 s ago, None without one."""
        while self._newest and self._newest[0][0] <= now - SETTLED_AFTER_S:
            published_at = self._newest.popleft()[1]
            self._watermark = max(published_at, self._watermark or published_at)
        return self._watermark

    def drained_s(self, now: float) -> float:
        """For how long every poll found the queue drained and nothing held, without interruption.

        0 if the last poll is older than MAX_POLL_GAP_S.
        """
        if self._drained_since is None or self._polled_at is None:
            return 0.0
        is_recent = now - self._polled_at <= MAX_POLL_GAP_S
        return self._polled_at - self._drained_since if is_recent else 0.0
