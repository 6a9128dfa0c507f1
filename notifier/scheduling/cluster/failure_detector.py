"""Who of the others lives, as one process sees it by its own monotonic clock.

A process is dead when its counter has not moved for 6 s in which we ourselves beat without error: a
Postgres that was away, or a pause of our own, declares nobody dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from notifier.domain.notification import WorkerId
from notifier.ports.heartbeat import WorkerFigures

DEAD_AFTER_S: Final = 6.0
"""More than STALE_S: whoever is taken for dead has stopped to begin calls before."""
MAX_BEAT_GAP_S: Final = 2.5
"""Beats of ours that are further apart than this were not "without error": we stood still."""


@dataclass(slots=True)
class _Seen:
    figures: WorkerFigures
    moved_at: float
    has_moved: bool = False


class FailureDetector:
    """Fed with every heartbeat of ours that brought an answer; times are monotonic seconds."""

    def __init__(self) -> None:
        self._seen: dict[WorkerId, _Seen] = {}
        self._beat_at = float("-inf")
        self._unbroken_since = float("-inf")

    def missed(self) -> None:
        """A heartbeat of ours failed: all spans start anew with the next that does not."""
        self._beat_at = float("-inf")

    def beaten(self, others: Sequence[WorkerFigures], now: float) -> None:
        """A heartbeat of ours brought the rows of the others."""
        if now - self._beat_at > MAX_BEAT_GAP_S:
            self._unbroken_since = now
        self._beat_at = now
        self._seen = {other.id: self._look(other, now) for other in others}

    def _look(self, other: WorkerFigures, now: float) -> _Seen:
        seen = self._seen.get(other.id)
        if seen is None:
            return _Seen(other, now)
        if seen.figures.beat == other.beat:
            return _Seen(other, seen.moved_at, seen.has_moved)
        return _Seen(other, now, has_moved=True)

    def silent(self) -> list[tuple[WorkerId, int]]:
        """The dead that still have a row, each with the counter at which it stands."""
        return [(each.figures.id, each.figures.beat) for each in self._all() if self._is_dead(each)]

    def lost(self) -> set[WorkerId]:
        """Those of the dead that lived when we looked: not what others left behind long ago."""
        return {each.figures.id for each in self._all() if each.has_moved and self._is_dead(each)}

    def others(self) -> list[WorkerFigures]:
        """The living: not dead, and seen to beat by us or, before that, lately by Postgres."""
        return [
            each.figures
            for each in self._all()
            if not self._is_dead(each) and (each.has_moved or each.figures.age_s < DEAD_AFTER_S)
        ]

    def _all(self) -> Sequence[_Seen]:
        return list(self._seen.values())

    def _is_dead(self, seen: _Seen) -> bool:
        return self._beat_at - max(seen.moved_at, self._unbroken_since) >= DEAD_AFTER_S
