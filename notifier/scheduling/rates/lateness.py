"""Detects waits well above the running median. Pure."""

from __future__ import annotations

from typing import Final

LATE_S: Final = 0.035
STEP_S: Final = 0.001
"""The most that one wait moves the median, so that a stall is late for as long as it lasts."""


class LatenessDetector:
    """Tracks the median of the waits; a wait is late if it exceeds the median by 35 ms."""

    def __init__(self) -> None:
        self._median_s = 0.0

    def is_late(self, wait_s: float) -> bool:
        """Record a wait and return whether it was late."""
        excess_s = wait_s - self._median_s
        self._median_s += min(max(excess_s, -STEP_S), STEP_S)
        return excess_s > LATE_S
