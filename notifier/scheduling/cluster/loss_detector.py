"""What one lane saw pass: the rescuer's evidence that a message is lost."""

from __future__ import annotations

from collections import deque
from typing import Final

from notifier.ports.broker import Delivery, Depth

SETTLED_S: Final = 10.0
SILENCE_S: Final = 1.0
_GRAIN_S: Final = 0.5


class LossDetector:
    """The mark, and for how long the queue was seen to be drained. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._newest: deque[tuple[float, float]] = deque()
        self._mark: float | None = None
        self._drained_since: float | None = None
        self._polled_at: float | None = None

    def taken(self, delivery: Delivery, now: float) -> None:
        """A message came: the queue is not drained, and its publish time may become the mark.

        Kept is one entry for each half second, that counts as taken at its end: the mark may come
        late, never early.
        """
        self._drained_since = None
        if delivery.redelivered:
            return
        published_at = delivery.pointer.published_at
        if self._newest and now < self._newest[-1][0]:
            ends_at, before = self._newest.pop()
            self._newest.append((ends_at, max(before, published_at)))
        else:
            self._newest.append((now + _GRAIN_S, published_at))

    def polled(self, depth: Depth | None, *, held: int, now: float) -> None:
        """The broker was asked; None means that it did not know."""
        is_drained = depth is not None and depth.ready == 0 and depth.consumers > 0 and held == 0
        is_unbroken = self._polled_at is not None and now - self._polled_at <= SILENCE_S
        if not is_drained:
            self._drained_since = None
        elif self._drained_since is None or not is_unbroken:
            self._drained_since = now
        self._polled_at = now

    def lost(self) -> None:
        """The connection went: what comes, comes anew, the oldest of it last perhaps."""
        self._drained_since = None
        self._mark = None
        self._newest.clear()

    def mark(self, now: float) -> float | None:
        """The newest publish time of a first delivery taken at least 10 s ago."""
        while self._newest and self._newest[0][0] <= now - SETTLED_S:
            published_at = self._newest.popleft()[1]
            self._mark = max(published_at, self._mark or published_at)
        return self._mark

    def drained_s(self, now: float) -> float:
        """For how long, without a break, every poll found the queue drained and nothing held."""
        if self._drained_since is None or self._polled_at is None:
            return 0.0
        return self._polled_at - self._drained_since if now - self._polled_at <= SILENCE_S else 0.0
