"""What one worker counted of one provider's calls: a sliding window and the present streak."""

from __future__ import annotations

from collections import deque
from typing import Final

from notifier.domain.breaker import (
    WINDOW_S,
    ProviderFigures,
    is_about_credentials,
    is_failure,
)
from notifier.domain.outcome import Outcome

_GRAIN_S: Final = 0.5


class FailureWindow:
    """Times are monotonic seconds. Bounded: one entry for each half second of the window."""

    def __init__(self) -> None:
        self._answered_at: float | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the failures: what was counted belongs to a breaker that has opened."""
        self._buckets: deque[tuple[float, int, int]] = deque()
        self._streak = 0
        self._streak_since = 0.0
        self._is_about_credentials = False

    def add(self, outcome: Outcome, now: float) -> None:
        """Count a call that ended."""
        failed = is_failure(outcome)
        if failed is None:
            return
        self._count(now, failed=failed)
        if not failed:
            self._answered_at, self._streak = now, 0
            return
        if self._streak == 0:
            self._streak_since = now
        self._streak += 1
        self._is_about_credentials = is_about_credentials(outcome)

    def _count(self, now: float, *, failed: bool) -> None:
        self._forget(now)
        if self._buckets and now - self._buckets[-1][0] < _GRAIN_S:
            since, calls, failures = self._buckets.pop()
        else:
            since, calls, failures = now, 0, 0
        self._buckets.append((since, calls + 1, failures + failed))

    def _forget(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] < now - WINDOW_S:
            self._buckets.popleft()

    def figures(self, now: float) -> ProviderFigures:
        """For the heartbeat and for our own judgement."""
        self._forget(now)
        return ProviderFigures(
            calls=sum(calls for _, calls, _ in self._buckets),
            failures=sum(failures for _, _, failures in self._buckets),
            streak=self._streak,
            streak_s=now - self._streak_since if self._streak else 0.0,
            answered_s=None if self._answered_at is None else now - self._answered_at,
            credentials=self._streak > 0 and self._is_about_credentials,
        )
