"""What the API and the command line read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from notifier.domain.notification import (
    FailureView,
    NotificationId,
    NotificationView,
    QueueKey,
    Status,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """One row of `GET /v1/queues`."""

    queue: QueueKey
    ready: int
    due: int
    consumers: int
    busy: int
    rate_per_s: float
    oldest_wait_s: float
    limited_by: str
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState:
    """One row of `GET /v1/providers`.

    `channels` are those it may send on. `breaker` is a BreakerState, `reason` why it opened, "" if
    it never did; `probe_in_s` when it may be probed, 0 unless it is open or half-open. `calls` and
    `failures` are those of the last 10 s, all workers together.
    """

    provider: str
    channels: tuple[str, ...]
    breaker: str
    reason: str
    probe_in_s: float
    paused: bool
    calls: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which notifications or failures a reader wants; newest first, `before` is the cursor."""

    status: Status | None = None
    channel: str | None = None
    priority: str | None = None
    reason: str | None = None
    created_from: float | None = None
    created_to: float | None = None
    before: NotificationId | None = None
    limit: int = 50


class Reader(Protocol):
    """What the API and the command line read. Raises StoreUnavailable when Postgres is away."""

    async def get(self, id: NotificationId) -> NotificationView | None:  # noqa: A002 the field's word
        """One notification with its attempts."""
        ...

    async def notifications(self, which: Filter) -> Sequence[NotificationView]:
        """At most `which.limit`, newest first, without attempts."""
        ...

    async def failures(self, which: Filter) -> Sequence[FailureView]:
        """At most `which.limit`, newest first."""
        ...
