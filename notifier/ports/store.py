"""The store: what the core writes to Postgres about notifications, one Protocol for each user.

A notification has a row in `live` while it waits or is being sent; that is the row meant here.
Every write is compare-and-set on its claim and claimer, so each method may be repeated.
All methods raise StoreUnavailable (StoreConflict if the work was undone) and StoreRejected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import msgspec

from notifier.domain.due import DueClass, Position
from notifier.domain.holds import PauseParking
from notifier.domain.notification import (
    Claimed,
    NewNotification,
    NotificationId,
    QueueKey,
    Status,
    WorkerId,
)
from notifier.domain.recipient_caps import CappedRecipient
from notifier.domain.turns import FIRST_TURN
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import DeadProcess

NO_TURNS: Final[Mapping[NotificationId, int]] = MappingProxyType({})


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Asks for the row `id` if it is still unclaimed at this `claim`.

    `is_buffered` marks a pointer that was only buffered and never claimed: giving it back leaves a
    row that is being sent alone.
    """

    id: NotificationId
    claim: int
    is_buffered: bool = False


class NotClaimed(msgspec.Struct, frozen=True):
    """The row could not be claimed.

    `status` is None if the row had moved on (claimed by another worker, expired, final). If this
    very claim ended the row, `status` is failed, and `age_s` its age.
    """

    status: Status | None = None
    age_s: float = 0.0


class Parked(msgspec.Struct, frozen=True):
    """A pause holds the row: the claim has parked it, and the pointer is of no use any more."""


ClaimReply = Claimed | NotClaimed | Parked


class ParkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Parks the row `id`, which this worker has claimed as `claim`, for `after_s` seconds."""

    id: NotificationId
    claim: int
    after_s: float


class Woken(NamedTuple):
    """How many rows `found` were parked by a pause that has ended, and how many are now due."""

    found: int
    woken: int


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
    http_status: int | None = None
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


class DueRange(NamedTuple):
    """Which rows of one queue, turn and class to read, in their order.

    Those after the position `after` that have been due for `due_for_s` and whose `due_at` is at
    most `until` (None: any), at most `limit`.
    """

    queue: QueueKey
    due_class: DueClass
    after: Position
    limit: int
    until: datetime | None = None
    due_for_s: float = 0.0
    turn: int = FIRST_TURN


class QueueTurn(NamedTuple):
    """A turn of a queue."""

    queue: QueueKey
    turn: int


class DueQueues(NamedTuple):
    """The queues that have a due row, and when Postgres looked for them, by its clock."""

    queues: Collection[QueueKey]
    now: datetime


class LiveRow(msgspec.Struct, frozen=True):
    """A row that waits or is being sent. `claimed_by` is None while it waits.

    `is_expired` says that its `expires_at` has passed. `size` is the content's length in bytes.
    """

    queue: QueueKey
    due_class: DueClass
    position: Position
    claim: int
    claimed_by: WorkerId | None
    is_expired: bool
    size: int
    deaths: int
    turn: int = FIRST_TURN


class DueRead(NamedTuple):
    """The rows of some ranges, in their order, and when Postgres read them.

    `now` is Postgres's clock. Every transaction with a number below `oldest_running` had ended
    before the read, and none from `next_transaction` on had begun.
    """

    rows: Sequence[LiveRow]
    now: datetime
    oldest_running: int
    next_transaction: int

    def by_queue(self) -> defaultdict[QueueKey, list[LiveRow]]:
        """Return the rows of each queue, in their order; an empty list where there are none."""
        rows = defaultdict[QueueKey, list[LiveRow]](list)
        for row in self.rows:
            rows[row.queue].append(row)
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The rows of one queue that wait to be published: their number, counted to a ceiling.

    `oldest_wait` is the longest wait, also of rows that are published and not claimed.
    """

    due: int
    is_ceiling: bool
    oldest_wait: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A row that a dead worker was sending. `worker` made the claim `claim`.

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
    """A row that was ended while it waited; `queue` is None if its name is no queue's."""

    id: NotificationId
    queue: QueueKey | None
    age_s: float


class LostFound(NamedTuple):
    """How many of the newest notifications were `checked`, how many of them are `lost`.

    `newest` is the newest lost one, None if there is none.
    """

    checked: int
    lost: int
    newest: NotificationId | None


class KeyOwner(NamedTuple):
    """The notification that an idempotency key belongs to: its id, its body, its first status.

    `reason` is that of a suppressed one.
    """

    id: NotificationId
    body: UUID
    status: Status
    reason: str | None = None


class KeyedInsert(NamedTuple):
    """What an insert stored: the pointers, and the owners of the keys that it did not store."""

    pointers: Sequence[Pointer]
    owners: Mapping[UUID, KeyOwner]


class AcceptStore(Protocol):
    """The part of the store that accept uses."""

    async def insert(
        self,
        items: Sequence[NewNotification],
        *,
        direct: Collection[NotificationId] = (),
        turns: Mapping[NotificationId, int] = NO_TURNS,
    ) -> Sequence[Pointer]:
        """Store all notifications, due at once or when their delay is over.

        `turns` has the turns of those that are not stored in turn 0.
        Returns the pointers of those in `direct` that this call stored, in the order of `items`:
        the caller must publish them. Ids that were stored before are left as they are.
        """
        ...

    async def insert_keyed(
        self,
        items: Sequence[NewNotification],
        *,
        direct: Collection[NotificationId] = (),
        turns: Mapping[NotificationId, int] = NO_TURNS,
    ) -> KeyedInsert:
        """Store as `insert` does, except for items whose idempotency key was stored before.

        No two of the items may have the same key. The owner of a key may be one of the items: then
        an earlier call stored it.
        """
        ...

    async def collapse(self, newer: Collection[NotificationId]) -> Sequence[ExpiredRow]:
        """End what waits and was replaced by these newer notifications; returns it."""
        ...

    async def key_owner(self, digest: UUID) -> KeyOwner | None:
        """Return the owner of an idempotency key, None if the key was not stored."""
        ...

    async def estimate_backlog(self) -> int:
        """Return about how many rows wait or are being sent.

        Taken from the planner's statistics, which may be minutes old; nothing is counted.
        """
        ...


class AttemptStore(Protocol):
    """The part of the store that attempts use."""

    async def claim(
        self, requests: Sequence[ClaimRequest], *, pauses: Sequence[PauseParking] | None = None
    ) -> Sequence[ClaimReply]:
        """Claim for this worker each row that is still unclaimed at the requested claim.

        An expired row is not claimed. Returns one reply for each request, in their order. Of
        several requests for one id one with the highest claim wins; the others get
        NotClaimed. `pauses` are given while there are holds: rows that one of these holds are
        parked, unclaimed at the next claim, for the longest span; of the others the tenant is read.
        """
        ...

    async def claim_urgent(
        self, requests: Sequence[ClaimRequest], *, pauses: Sequence[PauseParking] | None = None
    ) -> Sequence[ClaimReply]:
        """Claim as `claim` does, on a connection of its own, beside a large claim."""
        ...

    async def record(self, results: Sequence[tuple[AttemptResult, float]]) -> Sequence[Recorded]:
        """Write the results of attempts, each with the seconds since it ended.

        A row that has moved on keeps its status, except for a late Accepted. Each result is written
        independently of the others, so repeating the call completes one that was interrupted.
        """
        ...

    async def give_back(self, requests: Sequence[ClaimRequest]) -> Sequence[QueueKey]:
        """Give rows back without spending a try; returns the queue of each row that changed.

        Each row then waits in the class BACK, unclaimed at the claim after the requested one, so
        that no older pointer and no older claim of it succeeds. Of several requests for one id the
        one with the highest claim counts, and among those one that is not `is_buffered`.
        """
        ...

    async def park(self, requests: Sequence[ParkRequest]) -> Sequence[QueueKey]:
        """Park rows that this worker has claimed; returns the queue of each row that changed.

        Each then waits unclaimed in the class FIRST, due after its span. No try is spent.
        """
        ...

    async def fail_unclaimable(self, request: ClaimRequest, *, provider: str) -> NotClaimed:
        """Fail a row as `poison` whose claim alone raises StoreRejected.

        Only a row that is still unclaimed at the requested claim. Returns what a claim that ends
        the row returns: NotClaimed with the status `failed` and the age, or without a status if the
        row had moved on. `provider` is the name recorded with the failure.
        """
        ...


class ParkedStore(Protocol):
    """The part of the store that makes parked rows due."""

    async def wake(self) -> Woken:
        """Make rows due that are parked by a pause that has ended, at most 1,000 at once."""
        ...


class RecipientCounts(Protocol):
    """The part of the store that counts what recipients get."""

    async def recipient_counts(
        self, recipients: Collection[CappedRecipient]
    ) -> Mapping[CappedRecipient, int]:
        """Return how many notifications each has had on this day, without those that had none."""
        ...


class CollapseStore(Protocol):
    """The part of the store that ends replaced notifications later."""

    async def collapse(self) -> Sequence[ExpiredRow]:
        """End what waits and was replaced by a newer notification, at most 1,000; returns it."""
        ...


class LookStore(Protocol):
    """Reads the rows of queues again, for the recovery."""

    async def look(self, ranges: Sequence[DueRange]) -> DueRead:
        """Read as RelayStore.read_due does, on a connection of its own, beside those reads."""
        ...


class RelayStore(Protocol):
    """Reads due rows, for the relay."""

    async def read_due(self, ranges: Sequence[DueRange]) -> DueRead:
        """Read the rows of these ranges in one snapshot, claimed and expired ones included."""
        ...

    async def find_due(self, floor_times: Mapping[QueueTurn, Sequence[float]]) -> DueQueues:
        """Find the queues that have a due row of some class of a turn at or after a time.

        A turn has a time for each class, in the order of DueClass, in seconds since the epoch.
        Claimed and expired rows count too. It costs a fraction of a read.
        """
        ...


class WaitingCounter(Protocol):
    """Counts the rows that wait."""

    async def waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        """Count the rows of each queue that wait to be published, to a ceiling of 1,000.

        Queues where nothing waits are left out.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UnconfiguredQueue:
    """A queue with rows whose channel the settings do not have.

    `waiting` and `sending` are minimums unless `is_exact`. `age_s` is the age of the oldest row
    counted, in seconds.
    """

    queue: str
    waiting: int
    sending: int
    is_exact: bool
    age_s: float


class UnconfiguredReader(Protocol):
    """Finds the rows that no channel of the settings has."""

    async def unconfigured(self, queues: Sequence[QueueKey]) -> Sequence[UnconfiguredQueue]:
        """Return the queues with rows that are none of `queues`; 1,000 rows of each are counted."""
        ...


class StatusStore(UnconfiguredReader, Protocol):
    """The part of the store that the status of the queues is read from."""

    async def count_waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        """Count the rows of each queue that wait to be published, to a ceiling of 10,000.

        `oldest_wait` is since a row was first due, also that of a row that is retried.
        """
        ...


class ConfigurationStore(UnconfiguredReader, Protocol):
    """The part of the store that the configuration check uses."""

    async def deployment_id(self) -> str:
        """Return the id of this deployment, "" if the role may not read it. See ADR 40."""
        ...


class RecoveryStore(LookStore, Protocol):
    """The part of the store that the recovery of lost messages and dead processes uses."""

    async def settle_orphans(
        self, decisions: Sequence[OrphanDecision], dead: Sequence[DeadProcess]
    ) -> Sequence[SettledOrphan]:
        """Write the decisions for orphans whose process is still dead; returns the rows changed.

        A process without a heartbeat row is dead; one in `dead` whose counter has moved since is
        alive, and its rows are left alone. A row decided as queued becomes expired instead if its
        time is over.
        """
        ...


class TurnStore(Protocol):
    """The part of the store that moves rows back to turn 0."""

    async def return_turns(self) -> Mapping[str, int]:
        """Move rows of other turns to turn 0, at most 5,000; returns how many of each queue."""
        ...


class UpkeepStore(Protocol):
    """The part of the store that the sweeper, the pruner and the loss check use."""

    async def find_expired(self) -> Sequence[NotificationId]:
        """Return unclaimed rows whose time is over, at most 5,000, the longest expired first."""
        ...

    async def sweep(self, ids: Sequence[NotificationId]) -> Sequence[ExpiredRow]:
        """End those of these rows as expired that are unclaimed and whose time is over."""
        ...

    async def find_lost(self) -> LostFound:
        """Look for lost notifications among the newest 10,000 of the last 24 hours."""
        ...

    async def ensure_days(self) -> int:
        """Create the partitions of the coming days; returns how many were created."""
        ...

    async def days(self) -> Sequence[str]:
        """Return the days that have a partition, oldest first, as YYYYMMDD."""
        ...

    async def drop_day(self, day: date) -> str:
        """Drop the partitions of a day if all its notifications are final.

        Returns 'dropped', 'kept' (some are not final) or 'absent'.
        """
        ...

    async def forget_processes(self) -> None:
        """Remove heartbeat rows that are two hours old; a crash loop leaves many of them."""
        ...

    async def prune_audit(self, retention: timedelta) -> None:
        """Remove entries of the audit that are older than `retention`, at most 5,000."""
        ...

    async def prune_blobs(self, oldest: date) -> int:
        """Remove blobs that no notification of the day `oldest` or of a later one refers to.

        At most 500, and about 64 MiB. Returns how many.
        """
        ...

    async def prune_tenants(self, oldest: date) -> None:
        """Remove what is left of tenants that were deleted before the day `oldest`, in steps.

        At most 10,000 templates, suppressions and entries of inboxes. Where nothing is left the
        name is free again.
        """
        ...

    async def prune_operations(self, oldest: date) -> None:
        """Remove operations that ended and are older than the day `oldest`, at most 100,000.

        And which notifications of earlier days were sent again.
        """
        ...

    async def prune_keys(self) -> None:
        """Remove keys that expired more than 30 days ago."""
        ...

    async def prune_recipient_counts(self) -> None:
        """Remove counts of past days, at most 100,000."""
        ...

    async def prune_collapse_keys(self, retention: timedelta) -> None:
        """Remove the collapse keys of notifications that are older, at most 100,000."""
        ...

    async def prune_fallbacks(self, retention: timedelta) -> None:
        """Remove the fallbacks of notifications that are older, at most 100,000."""
        ...

    async def prune_suppressions(self, retention: timedelta) -> None:
        """Remove suppressions that expired longer than `retention` ago, at most 100,000."""
        ...

    async def note_lost(self, dead: Sequence[DeadProcess]) -> Sequence[WorkerId]:
        """Note workers as dead, with an event for each; returns those that were not noted before.

        One that comes back and dies again is noted again.
        """
        ...

    async def prune_inbox(self) -> int:
        """Remove entries of inboxes that have expired, at most 5000. Returns how many."""
        ...

    async def drop_events(self, keep_days: int) -> int:
        """Drop the events of the days before the last `keep_days` full ones and one more.

        Returns how many days were dropped.
        """
        ...

    async def drop_keys(self, keep_days: int) -> int:
        """Drop the idempotency keys of all days before the last `keep_days` full days.

        Returns how many days were dropped.
        """
        ...

    async def database_now(self) -> float:
        """Return the time of Postgres's clock, in seconds since the epoch."""
        ...
