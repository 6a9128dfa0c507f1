"""The documents that calls return.

Fields and values that a later version of the API adds are accepted: unknown fields are ignored, and
enumerations are plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

FINAL_STATUSES: Final = frozenset(
    {"sent", "delivered", "undelivered", "failed", "expired", "cancelled", "suppressed"}
)
"""After these no attempt follows. A receipt may still turn `sent` into one of the next two."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A notification that is stored.

    `status` is queued, scheduled or suppressed; `reason` says why it is suppressed. `template` is
    the version that was taken, `segments` is into how many parts a text message is divided.
    `is_replay` is true if an earlier submit with the `idempotency_key` had stored it.
    """

    id: str
    status: str
    queue: str
    template: str | None = None
    segments: int | None = None
    reason: str | None = None
    is_replay: bool = False
    idempotency_key: str = ""


@dataclass(frozen=True, kw_only=True)
class Blob:
    """An uploaded file: `id` is what an attachment names as `blob`, and content as `mime`."""

    id: str
    size_bytes: int
    content_type: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a notification ended. `code` and `detail` are the provider's."""

    at: datetime
    reason: str | None = None
    provider: str | None = None
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt to send a notification."""

    number: int
    provider: str
    outcome: str
    started_at: datetime
    finished_at: datetime
    code: str | None = None
    http_status: int | None = None
    detail: str | None = None
    reference: str | None = None
    queue_wait_s: float | None = None
    next_at: datetime | None = None
    repeats: int = 0
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a provider reported after it had accepted the message."""

    provider: str
    event: str
    provider_at: datetime
    received_at: datetime
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class FallbackState:
    """The fallback of a notification. `notification` is null if nothing was submitted."""

    channel: str
    after_s: float
    at: datetime
    unless: str = "sent"
    notification: str | None = None


@dataclass(frozen=True, kw_only=True)
class Notification:
    """A notification as it is now.

    `find` returns it without `attempts`. `content` and `receipts` are there if `include` of `get`
    asks for them; `content` is null, too, once it was removed.
    """

    id: str
    status: str
    channel: str
    priority: str
    queue: str
    created_at: datetime
    updated_at: datetime | None = None
    due_at: datetime | None = None
    expires_at: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    tenant: str | None = None
    mode: str | None = None
    recipient: str | None = None
    tag: str | None = None
    topic: str | None = None
    template: str | None = None
    locale: str | None = None
    metadata: Mapping[str, Any] | None = None
    provider: str | None = None
    reference: str | None = None
    tries: int = 0
    max_tries: int | None = None
    last_error: str | None = None
    result: Result | None = None
    replaced_by: str | None = None
    retried_by: str | None = None
    fallback: FallbackState | None = None
    fallback_of: str | None = None
    attempts: tuple[Attempt, ...] = ()
    content: Mapping[str, Any] | None = None
    receipts: tuple[Receipt, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether no attempt follows. An unknown status is not final."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True, kw_only=True)
class Blocker:
    """One thing that holds a notification: `kind` is pause, rate, breaker, scheduled and others."""

    kind: str
    name: str | None = None
    until_at: datetime | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """How many notifications stand before it; a minimum unless `is_exact`."""

    count: int
    is_exact: bool


@dataclass(frozen=True, kw_only=True)
class Expected:
    """When it is expected to be sent. `latest_at` is null if that is not known."""

    earliest_at: datetime
    latest_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a notification waits. The most decisive of the `blockers` comes first."""

    id: str
    status: str
    queue: str
    as_of_at: datetime
    expires_at: datetime | None = None
    blockers: tuple[Blocker, ...] = ()
    ahead: Ahead | None = None
    expected: Expected | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of a list. `next_cursor` is null on the last one."""

    items: tuple[Notification, ...]
    next_cursor: str | None = None
