"""What one worker counts of one provider's calls: a sliding window and the current streak."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from notifier.domain.breaker import (
    WINDOW_S,
    ProviderFigures,
    is_about_credentials,
    is_failure,
)
from notifier.domain.outcome import Outcome

BUCKET_S: Final = 0.5


@dataclass(slots=True)
class _Bucket:
    began_at: float
    calls: int = 0
    failures: int = 0


class FailureWindow:
    """Times are monotonic seconds. Holds one bucket per half second of the window at most."""

    def __init__(self) -> None:
        self._answered_at: float | None = None
        self.reset()

    def reset(self) -> None:
        """Drop calls and failures: they belong to an opening of the breaker that has been made."""
        self._buckets: deque[_Bucket] = deque()
        self._streak = 0
        self._streak_since = 0.0
        self._is_about_credentials = False

    def add(self, outcome: Outcome, now: float) -> None:
        """Count a call that ended."""
        failed = is_failure(outcome)
        if failed is None:
            return
        if not self._buckets or now - self._buckets[-1].began_at >= BUCKET_S:
            self._drop_old(now)
            self._buckets.append(_Bucket(now))
        bucket = self._buckets[-1]
        bucket.calls += 1
        bucket.failures += failed
        if not failed:
            self._answered_at, self._streak = now, 0
            return
        if self._streak == 0:
            self._streak_since = now
        self._streak += 1
        self._is_about_credentials = is_about_credentials(outcome)

    def _drop_old(self, now: float) -> None:
        while self._buckets and self._buckets[0].began_at < now - WINDOW_S:
            self._buckets.popleft()

    def figures(self, now: float) -> ProviderFigures:
        """The counts as of now, for the heartbeat and for this worker's own decision."""
        self._drop_old(now)
        return ProviderFigures(
            calls=sum(bucket.calls for bucket in self._buckets),
            failures=sum(bucket.failures for bucket in self._buckets),
            streak=self._streak,
            streak_s=now - self._streak_since if self._streak else 0.0,
            answered_s=None if self._answered_at is None else now - self._answered_at,
            credentials=self._streak > 0 and self._is_about_credentials,
        )
