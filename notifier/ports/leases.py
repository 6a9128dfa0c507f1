"""Leases: which process publishes the rows of a queue.

A lease keeps two processes from publishing the same rows, for speed only: a row that is published
twice is sent once, because only one claim of it succeeds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec

from notifier.domain.due import BEGINNING, DueClass, Position
from notifier.domain.notification import QueueKey, WorkerId
from notifier.domain.turns import FIRST_TURN


class TurnProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What Progress says of the rows of a turn other than 0."""

    floors: Mapping[DueClass, Position] = {}
    marks: Mapping[DueClass, Position] = {}


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the rows of a queue are published: what the next holder continues from.

    In each class of `floors`, every row up to the position was read, also rows that were committed
    late. `marks` has the position before the oldest row that was unclaimed at the last look.
    `is_backlogged` says that due rows wait to be published. `floors` and `marks` are those of turn
    0, `turns` has those of others. What is left out starts at the beginning.
    """

    floors: Mapping[DueClass, Position] = {}
    marks: Mapping[DueClass, Position] = {}
    is_backlogged: bool = False
    turns: Mapping[int, TurnProgress] = {}

    def floor(self, due_class: DueClass, turn: int = FIRST_TURN) -> Position:
        """The floor of a class of a turn."""
        return self._of(turn).floors.get(due_class, BEGINNING)

    def mark(self, due_class: DueClass, turn: int = FIRST_TURN) -> Position:
        """The mark of a class of a turn."""
        return self._of(turn).marks.get(due_class, BEGINNING)

    def _of(self, turn: int) -> Progress | TurnProgress:
        return self if turn == FIRST_TURN else self.turns.get(turn, _AT_BEGINNING)


_AT_BEGINNING: Final = TurnProgress()


class Lease(NamedTuple):
    """One row of the table `leases`, as other processes see it.

    `term` grows with each holder, `beat` with each renewal; `holder` is None after a release. A
    queue that never had a holder has term and beat 0. `is_backlogged` is the holder's last report.
    `turns` are the turns other than 0 in which rows of the queue were ever stored.
    """

    queue: QueueKey
    holder: WorkerId | None
    term: int
    beat: int
    is_backlogged: bool
    turns: Sequence[int] = ()


class LeaseRead(NamedTuple):
    """The leases of all queues as one statement read them, and those that it renewed."""

    leases: Sequence[Lease]
    renewed: Collection[QueueKey]


@dataclass(slots=True, kw_only=True)
class HeldLease:
    """A lease that this process holds, shared by its keeper and its relay.

    The keeper writes `renewed_at`, when the last renewal that succeeded was requested, and `turns`,
    the turns other than 0 that the queue uses. The relay
    writes `progress`, `passed_at`, when its last pass ended, and `unpublishable_since`: since when
    the broker takes nothing, None while it does. Instants are of lifecycle.uptime_s.
    """

    queue: QueueKey
    term: int
    progress: Progress
    renewed_at: float
    passed_at: float
    unpublishable_since: float | None = None
    turns: Sequence[int] = ()


class LeaseStore(Protocol):
    """The table of leases, for the queues of the settings. Every method raises StoreUnavailable."""

    async def renew(self, held: Sequence[HeldLease]) -> LeaseRead:
        """Write the progress of these leases unless they have another holder; read all leases."""
        ...

    async def acquire(self, seen: Sequence[Lease]) -> Mapping[QueueKey, Progress]:
        """Become the holder of each lease whose term and beat are still as seen.

        Returns the progress of those acquired. Their term is one more than the term seen.
        """
        ...

    async def release(self, held: Sequence[HeldLease]) -> None:
        """Write the progress of these leases and leave them without a holder."""
        ...


class HeldLeases(Protocol):
    """The leases of this process, as its relay sees them."""

    def held(self) -> Mapping[QueueKey, HeldLease]:
        """The leases under which this process may publish now.

        One whose last renewal is too old is left out: another process may have taken it over. If
        the same object comes back, no other process has held the lease in between.
        """
        ...


class BacklogView(Protocol):
    """Which queues have rows that wait to be published, as their holders last reported."""

    def is_backlogged(self, queue: QueueKey) -> bool:
        """Whether due rows of the queue wait. False if no holder has reported yet."""
        ...
