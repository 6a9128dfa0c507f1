"""The store: what the core writes to Postgres about notifications."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

import msgspec

from notifier.domain.errors import StoreRejected
from notifier.domain.notification import (
    Claimed,
    NewNotification,
    NotificationId,
    QueueKey,
    Status,
    WorkerId,
)
from notifier.ports.broker import Pointer


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A pointer's wish to be claimed: only the row still `queued` at `claim` answers.

    One that `is_buffered` was never asked for: given back, it moves no row that is being sent.
    """

    id: NotificationId
    claim: int
    is_buffered: bool = False


class NotClaimed(msgspec.Struct, frozen=True):
    """The row moved on (claimed by another, cancelled, final) or ended in this claim.

    In the latter case `status` is what it ended as (expired) and `age_s` how old it was.
    """

    status: Status | None = None
    age_s: float = 0.0


ClaimAnswer = Claimed | NotClaimed


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attempt, to be recorded.

    `status` is sent, retrying or failed; `after` the span until it is due again (retrying only).
    `reason` is the failure's reason (failed only). Start and finish of the provider call are
    instants of the monotonic clock.
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
    """What the row became.

    `late` if it had moved on before: then `status` is None unless the result settled it all the
    same. `age_s` is the time since it was accepted.
    """

    status: Status | None
    late: bool
    age_s: float


@dataclass(frozen=True, slots=True)
class GivenBack:
    """A row that went back unspent: `queued`, or `expired` if it is past its time by now."""

    queue: QueueKey
    status: Status
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many due rows of one queue and class (first attempts or retries) the relay may take."""

    queue: QueueKey
    is_retry: bool
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Due rows of one queue: how many (counted to a ceiling) and how long the oldest waits."""

    due: int
    is_ceiling: bool
    oldest_wait: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A row that says `sending` by a process that is dead: `worker` at `claim`."""

    id: NotificationId
    claim: int
    worker: WorkerId
    queue: QueueKey
    tries: int
    max_tries: int | None
    deaths: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanDecision:
    """What follows for an orphan: `status` is queued (due at once) or failed, with its `reason`."""

    orphan: Orphan
    provider: str
    status: Status
    reason: str


class Store(Protocol):
    """What the core writes; see adapters/postgres/store.py for each method's contract.

    Everything may be repeated. Raises StoreUnavailable (StoreConflict), StoreRejected.
    """

    async def insert(
        self, items: Sequence[NewNotification], *, taken: Collection[NotificationId] = ()
    ) -> Sequence[Pointer]: ...
    async def claim(self, asks: Sequence[ClaimRequest]) -> Sequence[ClaimAnswer]: ...
    async def record(self, results: Sequence[tuple[Result, float]]) -> Sequence[Recorded]: ...
    async def give_back(self, asks: Sequence[ClaimRequest]) -> Sequence[GivenBack]: ...
    async def claimed_by_me(self) -> Sequence[ClaimRequest]: ...
    async def take_due(
        self, quotas: Sequence[Quota], most: int
    ) -> Sequence[tuple[Pointer, bool]]: ...
    async def unpublish(self, pointers: Sequence[Pointer]) -> None: ...
    async def waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]: ...
    async def rescue(self, queue: QueueKey, published_before: float) -> int: ...
    async def rescue_from(
        self, silent: Sequence[tuple[WorkerId, int]], queues: Sequence[QueueKey]
    ) -> Mapping[QueueKey, int]: ...
    async def claimed_by_dead(self, silent: Sequence[tuple[WorkerId, int]]) -> Sequence[Orphan]: ...
    async def settle_orphans(
        self, deaths: Sequence[OrphanDecision], silent: Sequence[tuple[WorkerId, int]]
    ) -> Sequence[tuple[OrphanDecision, Status, float]]: ...
    async def database_now(self) -> float: ...
    async def sweep(self) -> Sequence[tuple[QueueKey, float]]: ...
    async def ensure_days(self) -> int: ...
    async def days(self) -> Sequence[str]: ...
    async def drop_day(self, day: date) -> str: ...
    async def forget_processes(self) -> None: ...
    async def estimate_backlog(self) -> int: ...


class Acceptor(Protocol):
    """Where a submit goes: see delivery/accept.py."""

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Status | StoreRejected]:
        """Store all; for each its status, or why Postgres refused that one.

        Returns after the commit. Raises StoreUnavailable when the deadline passes first (some may
        exist then) and Overloaded when the process or the deployment holds too much.
        """
        ...
