"""What one worker counts of one provider's calls: a sliding window, and what happened in a row."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from notifier.domain.breaker import (
    MAX_REFUSALS,
    WINDOW_S,
    ProviderFigures,
    is_about_credentials,
    is_failure,
)
from notifier.domain.outcome import Accepted, Misconfigured, Outcome, Refused, Throttled

BUCKET_S: Final = 0.5


@dataclass(slots=True)
class _Bucket:
    began_at: float
    calls: int = 0
    failures: int = 0
    misconfigured: int = 0


class FailureWindow:
    """Times are monotonic seconds. Holds one bucket per half second of the window at most."""

    def __init__(self) -> None:
        self._answered_at: float | None = None
        self._accepted_at: float | None = None
        self.reset()

    def reset(self) -> None:
        """Drop calls and failures: they belong to an opening of the breaker that has been made."""
        self._buckets: deque[_Bucket] = deque()
        self._streak = 0
        self._streak_since = 0.0
        self._last_failure: Outcome | None = None
        self._throttled: set[int] = set()
        self._refused_at: dict[int, float] = {}

    @property
    def throttled(self) -> int:
        """How many recipients were throttled since the last acceptance."""
        return len(self._throttled)

    @property
    def refused(self) -> int:
        """How many recipients were refused since the last acceptance that is known here."""
        return len(self._refused_at)

    def add(self, outcome: Outcome, now: float, recipient: str = "") -> None:
        """Count a call that ended."""
        if isinstance(outcome, Accepted):  # nearly all: nothing else is needed
            self._bucket(now).calls += 1
            self._answered_at = self._accepted_at = now
            self._streak = 0
            self._throttled.clear()
            self._refused_at.clear()
            return
        self._remember(outcome, now, recipient)
        failed = is_failure(outcome)
        if failed is None:
            return
        bucket = self._bucket(now)
        bucket.calls += 1
        bucket.failures += failed
        if not failed:
            self._answered_at, self._streak = now, 0
            return
        bucket.misconfigured += isinstance(outcome, Misconfigured)
        if self._streak == 0:
            self._streak_since = now
        self._streak += 1
        self._last_failure = outcome

    def accepted_elsewhere(self, at: float) -> None:
        """Another worker's call was accepted: drop the refusals from before it."""
        self._refused_at = {
            recipient: refused_at
            for recipient, refused_at in self._refused_at.items()
            if refused_at > at
        }

    def figures(self, now: float) -> ProviderFigures:
        """The counts as of now, for the heartbeat and for this worker's own decision."""
        self._drop_old(now)
        last = self._last_failure if self._streak else None
        is_misconfigured = isinstance(last, Misconfigured)
        credentials = last is not None and is_about_credentials(last)
        return ProviderFigures(
            calls=sum(bucket.calls for bucket in self._buckets),
            failures=sum(bucket.failures for bucket in self._buckets),
            misconfigured=sum(bucket.misconfigured for bucket in self._buckets),
            streak=self._streak,
            streak_s=now - self._streak_since if self._streak else 0.0,
            answered_s=None if self._answered_at is None else now - self._answered_at,
            credentials=credentials,
            configuration=is_misconfigured and not credentials,
            code=self._last_failure.code if self._last_failure else "",
            accepted_s=None if self._accepted_at is None else now - self._accepted_at,
            throttled=len(self._throttled),
            refused=tuple(self._refused_at),
            refused_s=now - min(self._refused_at.values(), default=now),
        )

    def _bucket(self, now: float) -> _Bucket:
        """The bucket of this instant."""
        if not self._buckets or now - self._buckets[-1].began_at >= BUCKET_S:
            self._drop_old(now)
            self._buckets.append(_Bucket(now))
        return self._buckets[-1]

    def _drop_old(self, now: float) -> None:
        while self._buckets and self._buckets[0].began_at < now - WINDOW_S:
            self._buckets.popleft()

    def _remember(self, outcome: Outcome, now: float, recipient: str) -> None:
        """Remember who was throttled or refused, also by us: a broken template refuses all."""
        if isinstance(outcome, Throttled):
            self._last_failure = outcome
            if len(self._throttled) < MAX_REFUSALS:
                self._throttled.add(_hash(recipient))
        elif isinstance(outcome, Refused):
            self._last_failure = outcome
            if len(self._refused_at) < MAX_REFUSALS:
                self._refused_at.setdefault(_hash(recipient), now)


def _hash(recipient: str) -> int:
    return crc32(recipient.encode("utf-8", "replace"))
