"""Whether a wait is late, where some are always long. Pure."""

from __future__ import annotations

from typing import Final

LATE_S: Final = 0.035
STEP_S: Final = 0.001
"""What one wait moves the usual, up or down: a stall must not become usual while it lasts."""


class LatenessDetector:
    """Learns the median of the waits, and calls late what takes 35 ms longer."""

    def __init__(self) -> None:
        self._usual_s = 0.0

    def is_late(self, took_s: float) -> bool:
        """Whether this one, of so many seconds, was."""
        more_s = took_s - self._usual_s
        self._usual_s += min(max(more_s, -STEP_S), STEP_S)
        return more_s > LATE_S
