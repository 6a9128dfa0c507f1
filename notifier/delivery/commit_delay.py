"""Estimates how long an item that joins a group commit waits for its write. Pure."""

from __future__ import annotations

from collections import deque
from math import ceil
from statistics import median
from typing import Final

REMEMBERED_WRITES: Final = 7
"""The estimate is the median of this many writes, so one stalled write does not change it."""


class CommitDelayEstimator:
    """Learns from completed writes; failed writes are not recorded."""

    def __init__(self, *, batch_size: int) -> None:
        self._batch_size = batch_size
        self._durations_s = deque[float](maxlen=REMEMBERED_WRITES)

    def record_write(self, duration_s: float) -> None:
        """Record how long a batch took to write."""
        self._durations_s.append(duration_s)

    def estimate_s(self, position: int) -> float:
        """Estimate the seconds until the item at this position in the queue is written.

        Returns 0 before the first write. The first position is 1.
        """
        if not self._durations_s:
            return 0.0
        return ceil(position / self._batch_size) * median(self._durations_s)
