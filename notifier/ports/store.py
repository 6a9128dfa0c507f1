"""The store: what the core writes to Postgres about notifications, one Protocol for each user.

Every write is compare-and-set on a row's status and claim, so each method may be repeated.
All methods raise StoreUnavailable (StoreConflict if the work was undone) and StoreRejected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple, Protocol

import msgspec

from notifier.domain.notification import (
    Claimed,
    NewNotification,
    NotificationId,
    QueueKey,
    Status,
    WorkerId,
)
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import DeadProcess


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the row `id` if it is still `queued` at this `claim`.

    `is_buffered` marks a pointer that was only buffered and never claimed: giving it back leaves a
    row that is being sent alone.
    """

    id: NotificationId
    claim: int
    is_buffered: bool = False


class NotClaimed(msgspec.Struct, frozen=True):
    """The row could not be claimed.

    `status` is None if the row had moved on (claimed by another worker, cancelled, final). If this
    very claim ended the row, `status` is its final status, expired or failed, and `age_s` its age.
    """

    status: Status | None = None
    age_s: float = 0.0


ClaimReply = Claimed | NotClaimed


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one attempt, to be recorded.

    `status` is sent, retrying or failed; sent means that the outcome is `accepted` and spends a
    try. `after` is the span until the row is due again (retrying only). `reason` is the failure's
    reason (failed only). The provider call's start and finish are instants of the monotonic clock.
    """

    id: NotificationId
    claim: int
    status: Status
    spends: bool
    after: timedelta | None
    reason: str
    outcome: str
    provider: str
    code: str
    detail: str
    reference: str
    waited_s: float
    started_at_monotonic: float
    finished_at_monotonic: float


class Recorded(msgspec.Struct, frozen=True):
    """What recording a result did to its row.

    `late` means that the row had moved on before; `status` is then None, unless the late result
    settled the row all the same. `age_s` is the time since the notification was accepted.
    """

    status: Status | None
    late: bool
    age_s: float


@dataclass(frozen=True, slots=True)
class GivenBack:
    """A row that was given back unspent: `queued`, or `expired` if its time was over."""

    queue: QueueKey
    status: Status
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The maximum of due rows of one queue and class that the relay may take.

    A class is either the first attempts or the retries.
    """

    queue: QueueKey
    is_retry: bool
    limit: int


class DuePointer(NamedTuple):
    """A pointer to a row that the relay has just taken, to be published."""

    pointer: Pointer
    is_retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The due rows of one queue: their number (counted to a ceiling) and the oldest one's wait."""

    due: int
    is_ceiling: bool
    oldest_wait: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A row in status `sending` whose worker is dead. `worker` made the claim `claim`.

    `deaths` counts the workers that died while they were sending this notification before.
    """

    id: NotificationId
    claim: int
    worker: WorkerId
    queue: QueueKey
    deaths: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanDecision:
    """What to do with an orphan: `status` is queued (due at once) or failed, with its `reason`."""

    orphan: Orphan
    provider: str
    status: Status
    reason: str


class SettledOrphan(NamedTuple):
    """An orphan whose decision was written, with the row's new status and its age."""

    decision: OrphanDecision
    status: Status
    age_s: float


class ExpiredRow(NamedTuple):
    """A row that the sweeper has just expired."""

    queue: QueueKey
    age_s: float


class AcceptStore(Protocol):
    """The part of the store that accept uses."""

    async def insert(
        self, items: Sequence[NewNotification], *, published: Collection[NotificationId] = ()
    ) -> Sequence[Pointer]:
        """Store all notifications, due at once or when their delay is over.

        The rows in `published` are stored as if a relay of this process had taken them already.
        Returns their pointers, which the caller must publish. When a call is repeated, its own
        `published` replaces that of the call before.
        """
        ...

    async def estimate_backlog(self) -> int:
        """Return about how many rows wait for the relay.

        Taken from the planner's statistics, which may be minutes old; nothing is counted.
        """
        ...


class AttemptStore(Protocol):
    """The part of the store that attempts use."""

    async def claim(self, requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
        """Claim for this worker each row that is still `queued` at the requested claim.

        Returns one reply for each request, in their order. Of several requests for one id the first
        with the highest claim wins; the others get NotClaimed.
        """
        ...

    async def claim_urgent(self, requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
        """Claim as `claim` does, on a connection of its own, beside a large claim."""
        ...

    async def record(self, results: Sequence[tuple[AttemptResult, float]]) -> Sequence[Recorded]:
        """Write the results of attempts, each with the seconds since it ended.

        A row that has moved on keeps its status, except for a late Accepted. Each result is written
        independently of the others, so repeating the call completes one that was interrupted.
        """
        ...

    async def give_back(self, requests: Sequence[ClaimRequest]) -> Sequence[GivenBack]:
        """Make rows due again without spending a try; returns the rows that changed.

        Of several requests for one id the one with the highest claim counts, and among those one
        that is not `is_buffered`.
        """
        ...

    async def fail_unclaimable(self, request: ClaimRequest, *, provider: str) -> NotClaimed:
        """Fail a row as `poison` whose claim alone raises StoreRejected.

        Only a row that is still `queued` at the requested claim. Returns what a claim that ends the
        row returns: NotClaimed with the status `failed` and the age, or without a status if the row
        had moved on. `provider` is the name recorded with the failure.
        """
        ...

    async def claimed_by_me(self) -> Sequence[ClaimRequest]:
        """Return the rows that this worker is sending according to Postgres.

        Each has the number of the claim before its present one: what `give_back` expects.
        """
        ...


class RelayStore(Protocol):
    """The part of the store that the relay uses."""

    async def take_due(self, quotas: Sequence[Quota], limit: int) -> Sequence[DuePointer]:
        """Mark due rows as published by this process, at most `limit`, the first quotas first.

        Returns their pointers in the order of the quotas, within each by the time they were due.
        """
        ...

    async def unpublish(self, pointers: Sequence[Pointer]) -> None:
        """Make rows due again whose pointers the broker did not confirm."""
        ...


class WaitingCounter(Protocol):
    """Counts the rows that wait."""

    async def waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        """Count the due rows of each queue, to a ceiling of 1,000. Empty queues are left out."""
        ...


class RecoveryStore(Protocol):
    """The part of the store that the recovery of lost messages and dead processes uses.

    A process in `dead` whose heartbeat counter has moved since is alive and left alone.
    """

    async def rescue(self, queue: QueueKey, published_before: float) -> int:
        """Make due again the rows published before that instant and not claimed; at most 500.

        The instant is Postgres's, in seconds since the epoch. Returns the number of rows.
        """
        ...

    async def rescue_from(
        self, dead: Sequence[DeadProcess], queues: Sequence[QueueKey]
    ) -> Mapping[QueueKey, int]:
        """Make due again the rows that dead processes took and may not have published.

        At most 500. Returns the number of rows in each queue.
        """
        ...

    async def claimed_by_dead(self, dead: Sequence[DeadProcess]) -> Sequence[Orphan]:
        """Return the rows that dead processes were sending, at most 500.

        Processes without a heartbeat row count as dead too; this process never does.
        """
        ...

    async def settle_orphans(
        self, decisions: Sequence[OrphanDecision], dead: Sequence[DeadProcess]
    ) -> Sequence[SettledOrphan]:
        """Write the decisions for orphans whose process is still dead; returns the rows changed.

        A row decided as queued becomes expired instead if its time would be over before it is sent.
        """
        ...

    async def database_now(self) -> float:
        """Return the time of Postgres's clock, in seconds since the epoch."""
        ...


class UpkeepStore(Protocol):
    """The part of the store that the sweeper and the pruner use."""

    async def sweep(self) -> Sequence[ExpiredRow]:
        """Expire waiting rows whose time is over.

        At most 5,000 of the due rows and 5,000 of the published ones.
        """
        ...

    async def ensure_days(self) -> int:
        """Create the partitions of the coming days; returns how many were created."""
        ...

    async def days(self) -> Sequence[str]:
        """Return the days that have a partition, oldest first, as YYYYMMDD."""
        ...

    async def drop_day(self, day: date) -> str:
        """Drop the partition of a day if all its rows are final.

        Returns 'dropped', 'kept' (some rows are not final) or 'absent'.
        """
        ...

    async def forget_processes(self) -> None:
        """Remove heartbeat rows that are two hours old; a crash loop leaves many of them."""
        ...

    async def database_now(self) -> float:
        """Return the time of Postgres's clock, in seconds since the epoch."""
        ...
