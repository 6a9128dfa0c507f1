"""What the API and the command line read: notifications, queues, providers and processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from notifier.domain.controls import BreakerState, Pause, Scope
from notifier.domain.credentials import Mode
from notifier.domain.due import DueClass, Position
from notifier.domain.explanation.facts import ClassCount, Explanation, Subject, WaitingRow
from notifier.domain.notification import (
    NotificationId,
    NotificationView,
    WorkerId,
)
from notifier.domain.tenants import TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """One row of `GET /v1/queues`.

    `due` is a minimum unless `due_is_exact`. `oldest_wait_s` is how long the oldest notification
    that is due and not being sent has waited since it was first due, None without one.
    `limited_by_detail` says more, None if there is no more to say. `is_configured` is False for a
    queue that has rows and whose channel the settings do not have. `foreign` counts the pointers of
    other deployments that arrived in the last minute.
    """

    queue: str
    ready: int
    due: int
    due_is_exact: bool = True
    consumers: int
    busy: int
    rate_per_s: float
    oldest_wait_s: float | None
    limited_by: str
    limited_by_detail: str | None = None
    paused: bool
    is_configured: bool = True
    foreign: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState:
    """One row of `GET /v1/providers`.

    `channels` are the channels it sends on. `reason` is why the breaker opened, "" if it never did,
    and `code` the provider's code of the last failure. `since_at` is when the breaker last changed,
    None if it never did; `probe_at` is when it may be probed, None while it is closed. `calls` and
    `failures` are those of all workers in the last 10 s. `hanging` are the channels whose calls are
    not answered.
    """

    provider: str
    channels: tuple[str, ...]
    breaker: BreakerState
    reason: str
    code: str
    since_at: datetime | None
    probe_at: datetime | None
    paused: bool
    calls: int
    failures: int
    hanging: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One row of `GET /v1/workers`: a process that has sent a heartbeat in the last minute.

    `kind` is api, worker or dev. `version` is None of a process of an earlier version, and `lacks`
    are the features of this version that it does not understand. `consumers` is the number assigned
    to its queues; `busy` of these send.
    """

    id: WorkerId
    kind: str
    host: str
    pid: int
    version: str | None
    started_at: datetime
    beat_at: datetime
    consumers: int
    busy: int
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseState:
    """One row of `GET /v1/pauses`. `matches`: whether the settings have what it names."""

    pause: Pause
    matches: bool


@dataclass(frozen=True, slots=True)
class View:
    """Which notifications a reader may see. `tenant` None: those of all tenants."""

    tenant: TenantId | None = None
    mode: Mode = Mode.LIVE


ALL_LIVE: Final = View()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Selects notifications. A field with several values selects any of them, an empty one all.

    `tenant` and `mode` are what a caller asked for: the `view` follows them, and alone decides what
    is looked at.
    `recipient` has recipients in their normal form, `metadata` a key and its values. `q` is a
    recipient or a reference. `reason`, `provider` and `code` are those of the result.
    `created_from` and `created_to` are seconds since the epoch. `before` is the cursor: results are
    listed newest first, and only those older than this id are returned.
    """

    status: tuple[str, ...] = ()
    tenant: TenantId | None = None
    mode: Mode | None = None
    channel: tuple[str, ...] = ()
    priority: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    provider: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    recipient: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    q: str | None = None
    id: NotificationId | None = None
    created_from: float | None = None
    created_to: float | None = None
    before: NotificationId | None = None
    limit: int = 50
    view: View = ALL_LIVE

    @property
    def is_of_results(self) -> bool:
        """Whether it selects by how notifications ended: it then needs final values of `status`."""
        return bool(self.reason or self.provider or self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Notifications of a list, newest first; `next_before` is the cursor of the next page.

    It is None on the last page only: a page may be short or empty because the search for it took
    too long.
    """

    views: Sequence[NotificationView]
    next_before: NotificationId | None


class Reader(Protocol):
    """Reads notifications and processes. Raises StoreUnavailable while Postgres does not answer."""

    async def get(
        self,
        id: NotificationId,  # noqa: A002 the field's word
        *,
        view: View = ALL_LIVE,
        with_content: bool = False,
        with_receipts: bool = False,
    ) -> NotificationView | None:
        """Return a notification with its attempts; None if the view has none with this id."""
        ...

    async def templates_of(
        self, ids: Collection[NotificationId]
    ) -> Mapping[NotificationId, str | None]:
        """Return the template of each of these notifications that exists, as `name@3`."""
        ...

    async def notifications(self, selection: Filter) -> Page:
        """Return a page of at most `selection.limit` notifications without attempts and content."""
        ...

    async def workers(self) -> Sequence[WorkerState]:
        """Return the processes with a heartbeat of the last minute, the oldest first."""
        ...


class StatusReader(Protocol):
    """Reads the state of all queues, providers and pauses. Raises StoreUnavailable."""

    async def queues(self) -> Sequence[QueueState]:
        """Returns the state of every queue. Counts that the broker does not know are 0."""
        ...

    async def providers(self) -> Sequence[ProviderState]:
        """Returns the state of every provider, by name."""
        ...

    async def pauses(self) -> Sequence[PauseState]:
        """Returns the pauses that have not expired, by scope."""
        ...


class WaitingReader(Protocol):
    """Reads what an explanation needs of one notification. Raises StoreUnavailable."""

    async def subject(
        self,
        id: NotificationId,  # noqa: A002 the field's word
        view: View,
    ) -> Subject | None:
        """Return a notification, a WaitingRow if it waits; None if the view has none with this id.

        All of it is of one snapshot.
        """
        ...

    async def count_before(
        self, row: WaitingRow, until: Mapping[DueClass, Position]
    ) -> Mapping[DueClass, ClassCount]:
        """Count the rows of its queue that wait, of each class before a position, without the row.

        It stops at 10,000 rows of all classes together. A class without rows may be missing.
        """
        ...

    async def pause_authors(self, pauses: Collection[Pause]) -> Mapping[Scope, str]:
        """Return who began these pauses last, as far as the newest entries of the audit have it."""
        ...


class Explainer(Protocol):
    """Explains why a notification waits. Raises StoreUnavailable."""

    async def explain(
        self,
        id: NotificationId,  # noqa: A002 the field's word
        view: View,
    ) -> Explanation | None:
        """Return the explanation as the reader may see it; None if the view has no such id."""
        ...
