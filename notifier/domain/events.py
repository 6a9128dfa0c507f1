"""Events: what became of notifications, and what changed in the deployment, as callers read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec

from notifier.domain.credentials import Mode
from notifier.domain.notification import WEBHOOK_CHANNEL, NotificationId
from notifier.domain.tenants import TenantId

UNANNOUNCED_CHANNELS: Final = (WEBHOOK_CHANNEL, "inbox")
"""Channels whose notifications have no events: an event could otherwise cause another one."""
_UUID_VERSION: Final = 7
_VARIANT: Final = 0b10
_HASH_BYTES: Final = 16


class EventType(StrEnum):
    """What happened. Later versions may have more types."""

    SENT = "notification.sent"
    DELIVERED = "notification.delivered"
    UNDELIVERED = "notification.undelivered"
    COMPLAINED = "notification.complained"
    FAILED = "notification.failed"
    EXPIRED = "notification.expired"
    CANCELLED = "notification.cancelled"
    SUPPRESSED = "notification.suppressed"
    RETRYING = "notification.retrying"
    SUPPRESSION_CREATED = "suppression.created"
    SUPPRESSION_DELETED = "suppression.deleted"
    OPERATION_FINISHED = "operation.finished"
    BREAKER_OPENED = "breaker.opened"
    BREAKER_CLOSED = "breaker.closed"
    PAUSE_CREATED = "pause.created"
    PAUSE_DELETED = "pause.deleted"
    WORKER_LOST = "worker.lost"
    WEBHOOK_TEST = "webhook.test"
    WEBHOOK_DISABLED = "webhook.disabled"

    __hash__ = str.__hash__  # as in Priority


NOTIFICATION_PREFIX: Final = "notification."
"""What the types of events of notifications begin with; the rest is a status, or `complained`."""


class EventResult(msgspec.Struct, frozen=True, gc=False):
    """What the attempt, or the end, of a notification was. `reason` None: it was an attempt."""

    reason: str | None
    provider: str | None
    code: str | None
    detail: str | None
    at: datetime


class NotificationState(msgspec.Struct, frozen=True, gc=False):
    """A notification as an event shows it. `tries` and `result` are those at the event.

    `metadata` is the encoded JSON object. `recipient` is what is stored when the event is read.
    """

    id: NotificationId
    mode: Mode
    status: str
    channel: str
    priority: str
    recipient: str
    tag: str | None
    topic: str | None
    tries: int
    reference: str | None
    metadata: bytes
    result: EventResult | None


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event. The same event has the same id whenever and wherever it is read.

    `tenant` None: it concerns the deployment, and only deployment keys see it. `mode` None: it
    concerns live and test notifications. `notification` is set for the types of notifications;
    else `document` is the encoded JSON of `data`.
    """

    id: UUID
    type: str
    at: datetime
    tenant: TenantId | None
    mode: Mode | None
    notification: NotificationState | None = None
    document: bytes = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events a reader gets. An empty field selects all.

    `tenant` None: those of all tenants and of the deployment. `mode` is always given: a key reads
    the events of its mode, and those of no mode.
    """

    mode: Mode
    tenant: TenantId | None = None
    types: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    priorities: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    notifications: frozenset[NotificationId] = frozenset()

    @property
    def selects_notifications(self) -> bool:
        """Whether only events of notifications can match."""
        return bool(self.channels or self.priorities or self.tags or self.notifications)

    def matches(self, event: Event) -> bool:
        """Whether a reader with this filter gets an event."""
        if event.mode is not None and event.mode is not self.mode:
            return False
        if self.tenant is not None and event.tenant != self.tenant:
            return False
        if self.types and event.type not in self.types:
            return False
        return not self.selects_notifications or self._selects(event.notification)

    def _selects(self, notification: NotificationState | None) -> bool:
        return notification is not None and (
            (not self.tags or notification.tag in self.tags)
            and (not self.channels or notification.channel in self.channels)
            and (not self.priorities or notification.priority in self.priorities)
            and (not self.notifications or notification.id in self.notifications)
        )


def event_id(type_: str, notification: NotificationId, claim: int, at: datetime) -> UUID:
    """Return the id of an event of a notification: a UUIDv7 of its time, the rest a hash.

    A notification has at most one event of each type for each of its claims.
    """
    text = b"%b/%b/%d" % (type_.encode(), notification.bytes, claim)
    return uuid7_of(at, int.from_bytes(sha256(text).digest()[:_HASH_BYTES]))


def uuid7_of(at: datetime, entropy: int) -> UUID:
    """Return the UUIDv7 of a time, with the low bits of a number of 128 random bits."""
    milliseconds = int(at.timestamp() * 1000) & (1 << 48) - 1
    high = milliseconds << 16 | _UUID_VERSION << 12 | (entropy >> 64) & 0xFFF
    low = _VARIANT << 62 | entropy & (1 << 62) - 1
    return UUID(int=high << 64 | low)
