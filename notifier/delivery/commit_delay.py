"""How long what joins a group commit would wait for its write. Pure."""

from __future__ import annotations

from collections import deque
from math import ceil
from statistics import median
from typing import Final

REMEMBERED_WRITES: Final = 7
"""The median of so many: one write that stalled foretells nothing."""


class CommitDelayEstimator:
    """Learns from the writes that were done; one that failed says nothing of the next."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._took_s = deque[float](maxlen=REMEMBERED_WRITES)

    def wrote(self, took_s: float) -> None:
        """A batch was written in so many seconds."""
        self._took_s.append(took_s)

    def of(self, position: int) -> float:
        """Seconds until the item at this place of the queue is written, at `most` a write."""
        if not self._took_s:
            return 0.0
        return ceil(position / self._most) * median(self._took_s)
