"""What a caller asked for, the states it passes through, and which passage is legal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, NewType
from uuid import UUID

import msgspec

NotificationId = NewType("NotificationId", UUID)
WorkerId = NewType("WorkerId", UUID)
Channel = NewType("Channel", str)


class Priority(StrEnum):
    """How soon it matters: login codes, receipts, newsletters. The most urgent stands first."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    __hash__ = str.__hash__  # an Enum's own is a call of Python, and these are keys everywhere

    @property
    def rank(self) -> int:
        """0 for the most urgent. As strings they sort otherwise."""
        return tuple(Priority).index(self)


class Status(StrEnum):
    """Where a notification stands. The same names as the Postgres type `notification_status`."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENDING = "sending"
    RETRYING = "retrying"
    SENT = "sent"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"

    __hash__ = str.__hash__  # as above


WAITING: Final = frozenset({Status.SCHEDULED, Status.QUEUED, Status.RETRYING})
FINAL: Final = frozenset(Status) - WAITING - {Status.SENDING}

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.SCHEDULED: frozenset(
        {Status.QUEUED, Status.EXPIRED, Status.CANCELLED, Status.SUPPRESSED}
    ),
    Status.QUEUED: frozenset(
        {
            Status.SENDING,
            Status.EXPIRED,
            Status.CANCELLED,
            Status.SUPPRESSED,
            Status.SENT,  # a late Accepted for the row's present claim
            Status.DELIVERED,
        }
    ),
    Status.SENDING: frozenset(
        {Status.SENT, Status.RETRYING, Status.QUEUED, Status.FAILED, Status.EXPIRED}
    ),
    Status.RETRYING: frozenset(
        {
            Status.QUEUED,
            Status.EXPIRED,
            Status.CANCELLED,
            Status.SUPPRESSED,
            Status.SENT,
            Status.DELIVERED,
        }
    ),
    Status.SENT: frozenset({Status.DELIVERED, Status.UNDELIVERED}),
    Status.FAILED: frozenset({Status.QUEUED, Status.SENT, Status.DELIVERED}),
    Status.EXPIRED: frozenset({Status.SENT, Status.DELIVERED}),
    Status.CANCELLED: frozenset({Status.SENT, Status.DELIVERED}),
    Status.SUPPRESSED: frozenset(),
    Status.DELIVERED: frozenset(),
    Status.UNDELIVERED: frozenset({Status.DELIVERED}),
}
"""The life of a notification, as data; docs/design.md tells it in words."""


def is_legal(before: Status, after: Status) -> bool:
    """Whether a notification may pass from one status to the other."""
    return after in TRANSITIONS[before]


class QueueKey(msgspec.Struct, frozen=True, order=True):
    """One queue: a channel at a priority. `str()` gives its name, `email.high`."""

    channel: Channel
    priority: Priority

    def __str__(self) -> str:
        return f"{self.channel}.{self.priority}"

    @staticmethod
    def parse(name: str) -> QueueKey:
        """Read `email.high`. Raises ValueError for anything else."""
        return _parsed(name)


@lru_cache
def _parsed(name: str) -> QueueKey:
    channel, _, priority = name.rpartition(".")
    return QueueKey(Channel(channel), Priority(priority))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNotification:
    """A validated submit, ready to be stored.

    `content` and `metadata` are JSON documents, encoded once. `delay` is None for "now"; a span
    from the database's now otherwise. `ttl` is the span after which it expires, from acceptance.
    """

    id: NotificationId
    queue: QueueKey
    recipient: str
    content: bytes
    metadata: bytes
    delay: timedelta | None
    ttl: timedelta
    max_tries: int | None
    tenant: str = ""

    @property
    def status(self) -> Status:
        """The first it has."""
        return Status.SCHEDULED if self.delay and self.delay > timedelta(0) else Status.QUEUED


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A notification this worker may send now, once: the answer to a claim.

    `claim` is the number of this claim (the fence). `tries` counts what was spent before it.
    `waited_s` is how long it was ready before it was claimed.
    `content` is the JSON document of the submit.
    """

    id: NotificationId
    claim: int
    queue: QueueKey
    recipient: str
    content: bytes
    tries: int
    max_tries: int | None
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One attempt as a reader sees it."""

    claim: int
    provider: str
    outcome: str
    code: str
    detail: str
    queue_wait_s: float
    started_at: datetime
    finished_at: datetime
    next_at: datetime | None
    repeats: int
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationView:
    """A notification as a reader sees it, with its attempts in the order of their claims."""

    id: NotificationId
    tenant: str
    status: Status
    queue: QueueKey
    recipient: str
    content: bytes
    metadata: bytes
    tries: int
    max_tries: int | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    expires_at: datetime
    attempts: tuple[AttemptView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureView:
    """One row of the log of failures."""

    id: NotificationId
    queue: QueueKey
    provider: str
    reason: str
    code: str
    detail: str
    tries: int
    first_at: datetime
    last_at: datetime
