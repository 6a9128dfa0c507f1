"""The attempts that run for one queue, and which of them take too long."""

from __future__ import annotations

from math import inf
from typing import Final

from notifier.domain.allocation.demand import MAX_STUCK_REPLACED
from notifier.lifecycle import Clock
from notifier.ports.attempts import ClaimedRow
from notifier.scheduling.consumers.measurements import QueueMeasurements

MIN_STUCK_S: Final = 1.0
STUCK_FACTOR: Final = 4
"""An attempt is stuck once it runs this many times the average, and at least 1 s."""


class RunningCalls:
    """Implements gates.hang_detector.MonitoredCalls. Instants are on the lane's clock."""

    def __init__(self, measurements: QueueMeasurements, clock: Clock) -> None:
        self.answered_at = -inf
        """When the provider last answered."""
        self._measurements = measurements
        self._clock = clock
        self._started: dict[ClaimedRow, float] = {}
        self._recovered_at = -inf

    def __len__(self) -> int:
        """The number of attempts that run."""
        return len(self._started)

    def begin(self, row: ClaimedRow) -> None:
        """An attempt begins."""
        self._started[row] = now = self._clock()
        row.held.begin(now)

    def end(self, row: ClaimedRow) -> None:
        """An attempt has ended."""
        del self._started[row]

    @property
    def stuck(self) -> int:
        """Attempts that run far longer than usual, without those from before a recovery."""
        until = self._stuck_if_before
        return sum(self._recovered_at <= started < until for started in self._started.values())

    @property
    def stuck_before_recovery(self) -> int:
        """Stuck attempts from before the provider recovered; they do not show its present state."""
        until = min(self._recovered_at, self._stuck_if_before)
        return sum(started < until for started in self._started.values())

    @property
    def is_hanging(self) -> bool:
        """Whether over half of the attempts are stuck, and too many to be replaced."""
        current = len(self) - self.stuck_before_recovery
        return self.stuck > MAX_STUCK_REPLACED and 2 * self.stuck > current

    @property
    def service_s(self) -> float:
        """How long an answered attempt takes on average."""
        return self._measurements.service_s

    @property
    def oldest_s(self) -> float:
        """How long the oldest attempt has run, 0 if none runs."""
        now = self._clock()
        return now - min(self._started.values(), default=now)

    def oldest_start_since(self, instant: float) -> float | None:
        """When the oldest attempt started of those running since `instant` and any recovery."""
        since = max(instant, self._recovered_at)
        return min(
            (started for started in self._started.values() if started >= since), default=None
        )

    def begun_since(self, instant: float) -> int:
        """How many of the running attempts began at this instant or later."""
        return sum(started >= instant for started in self._started.values())

    def mark_recovered(self, at: float) -> None:
        """The provider answers again after a hang: attempts from before `at` are no hang."""
        self._recovered_at = at

    @property
    def _stuck_if_before(self) -> float:
        return self._clock() - max(MIN_STUCK_S, STUCK_FACTOR * self._measurements.service_s)
