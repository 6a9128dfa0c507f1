"""Statistics: the roll-ups, and who reads them. All raise StoreUnavailable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from notifier.domain.stats import Dimension, Step
from notifier.ports.queries import View


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsSelection:
    """Selects what begins at or after `begin` and before `end`, told apart `by` these."""

    step: Step
    begin: datetime
    end: datetime
    by: frozenset[Dimension] = frozenset()
    view: View


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsRow:
    """What happened in the step that begins `at`.

    `queue`, `tag` and `provider` are None if rows are not told apart by them, and `tag` and
    `provider` are None, too, of what has none. `waits` and `calls` are histograms.
    """

    at: datetime
    queue: str | None
    tag: str | None
    provider: str | None
    accepted: int
    sent: int
    delivered: int
    undelivered: int
    failed: int
    expired: int
    cancelled: int
    suppressed: int
    waits: Sequence[int]
    calls: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsPage:
    """Rows, the oldest first. `next_begin` is where the next page begins, None after the last."""

    rows: Sequence[StatsRow]
    next_begin: datetime | None


class StatsReader(Protocol):
    """Reads the roll-ups."""

    async def stats(self, selection: StatsSelection) -> StatsPage:
        """Return whole steps, as many as a bounded number of stored rows has, but one at least."""
        ...


class RolledUp(NamedTuple):
    """What a step did.

    How many changes it counted, None if another process counts now, and how old the oldest one was
    before, 0 if there was none.
    """

    changes: int | None
    behind_s: float


class StatsRollUps(Protocol):
    """Counts what was recorded into the roll-ups, each change once."""

    async def step(self, count: int) -> RolledUp:
        """Count up to `count` changes, the oldest first. May be repeated.

        Nothing is counted twice and nothing is left out, wherever a process ends.
        """
        ...

    async def prune(self) -> int:
        """Remove some rows that are older than they are kept; returns how many."""
        ...
