"""A notification: what the caller submitted, its status, its queue, and how readers see it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, NewType
from uuid import UUID

import msgspec

from notifier.domain.blobs import BlobUse
from notifier.domain.credentials import Mode
from notifier.domain.features import NO_FEATURES
from notifier.domain.idempotency import IdempotencyKey
from notifier.domain.lookups import Lookup, LookupScope
from notifier.domain.tenants import DEFAULT_TENANT, TenantId

TEST_CHANNEL: Final = "test"
"""The channel of what test keys submit, whatever channel they ask for."""
SANDBOX: Final = "sandbox"
"""The type that the provider of this channel has: it delivers nothing."""
WEBHOOK_CHANNEL: Final = "webhook"
"""The channel of the calls of webhooks, which no settings name. See domain/webhooks.py."""

NotificationId = NewType("NotificationId", UUID)
WorkerId = NewType("WorkerId", UUID)
Channel = NewType("Channel", str)
MAX_PARSED: Final = 10_000
"""How many queue names are parsed only once: those of a deployment with many channels."""


class Priority(StrEnum):
    """How urgent a notification is (a login code, a receipt, a newsletter); most urgent first."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    # Enum.__hash__ is a Python function; str.__hash__ is faster, and these are keys everywhere.
    __hash__ = str.__hash__

    @property
    def rank(self) -> int:
        """The position by urgency, 0 for the most urgent. The names sort differently."""
        return tuple(Priority).index(self)


def priorities_of(channel: str) -> tuple[Priority, ...]:
    """Return the priorities of a channel, each of which is a queue."""
    return (Priority.MEDIUM,) if channel == WEBHOOK_CHANNEL else tuple(Priority)


class Status(StrEnum):
    """The status of a notification, named as in the Postgres type `notification_status`.

    LOST is not in the type: it is what readers see if the rows of a notification are missing.
    """

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
    LOST = "lost"

    __hash__ = str.__hash__  # as in Priority


WAITING: Final = frozenset({Status.SCHEDULED, Status.QUEUED, Status.RETRYING})
FINAL: Final = frozenset(
    {
        Status.SENT,
        Status.FAILED,
        Status.EXPIRED,
        Status.CANCELLED,
        Status.SUPPRESSED,
        Status.DELIVERED,
        Status.UNDELIVERED,
    }
)


class EndReason(StrEnum):
    """Why a notification ended other than by being sent. Later versions may have more reasons."""

    REFUSED = "refused"
    EXHAUSTED = "exhausted"
    AMBIGUOUS = "ambiguous"
    POISON = "poison"
    RENDER = "render"
    TTL = "ttl"
    REQUEST = "request"
    COLLAPSED = "collapsed"
    RECIPIENT_CAP = "recipient_cap"
    MANUAL = "manual"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    GONE = "gone"
    ERASED = "erased"
    BOUNCED = "bounced"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


class QueueKey(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """A queue: one channel at one priority. `str()` returns its name, such as `email.high`."""

    channel: Channel
    priority: Priority

    def __str__(self) -> str:
        return self.channel + "." + self.priority  # a third of the time of an f-string

    @staticmethod
    @lru_cache(MAX_PARSED)
    def parse(name: str) -> QueueKey:
        """Parse a name such as `email.high`; raises ValueError for anything else."""
        channel, _, priority = name.rpartition(".")
        return QueueKey(Channel(channel), Priority(priority))


class Unless(StrEnum):
    """What makes a fallback needless: a provider's acceptance, or a receipt of the delivery."""

    SENT = "sent"
    DELIVERED = "delivered"


class NewFallback(msgspec.Struct, frozen=True):
    """The fallback of a submit.

    `after` counts from `send_at`, or from the acceptance. `channel` is the one that was asked for,
    also by a test key. `submit` is the JSON document of the second notification's submit, without a
    tenant, and `needs` names its fields, and those of the fallback that a process must know. See
    domain/fallbacks.py.
    """

    after: timedelta
    channel: str
    submit: bytes
    needs: Collection[str]
    unless: Unless = Unless.SENT


class NewNotification(msgspec.Struct, frozen=True, kw_only=True):
    """A validated submit, ready to be stored.

    `content` and `metadata` are encoded JSON documents. `delay` counts from the database's present
    time; None means none. `test_channel` is the channel that a test key asked for. `ttl` is the
    time from the acceptance until the notification expires. `segments` is that of a text message,
    `features` are those that a worker must understand to send it (domain/features.py), and
    `template` is the version that the content names, such as `order-shipped@3`; none of them is
    stored. `blobs` are those that the content refers to; they are stored before the notification.
    By `lookups` it can be found. `has_copies`: its content names recipients of copies.
    `suppressed` says why it may not be sent. `collapse_key`: it replaces what waits with the same
    key. `is_counted`: for its recipient, see domain/recipient_caps.py. `fallback` is what is
    submitted if it is not sent.
    """

    id: NotificationId
    queue: QueueKey
    recipient: str
    content: bytes
    metadata: bytes
    delay: timedelta | None
    ttl: timedelta
    max_tries: int | None
    segments: int | None = None
    template: str | None = None
    key: IdempotencyKey | None = None
    features: frozenset[str] = NO_FEATURES
    tenant: TenantId = DEFAULT_TENANT
    test_channel: str = ""
    blobs: Sequence[BlobUse] = ()
    tag: str | None = None
    topic: str | None = None
    lookups: tuple[Lookup, ...] = ()
    has_copies: bool = False
    suppressed: str | None = None
    collapse_key: str | None = None
    is_counted: bool = False
    fallback: NewFallback | None = None

    @property
    def mode(self) -> Mode:
        """Whether it is really delivered."""
        return Mode.TEST if self.test_channel else Mode.LIVE

    @property
    def scope(self) -> LookupScope:
        """Whose notification it is, for hashes."""
        return LookupScope(self.tenant, self.mode)

    @property
    def channel(self) -> str:
        """The channel that the caller asked for."""
        return self.test_channel or self.queue.channel

    @property
    def status(self) -> Status:
        """Its first status."""
        if self.suppressed is not None:
            return Status.SUPPRESSED
        return Status.SCHEDULED if self.delay and self.delay > timedelta(0) else Status.QUEUED


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that this worker has claimed and may send once.

    `claim` is the number of this claim, a fencing token. `tries` counts the tries spent before it.
    `deferrals` and `ambiguous` count the attempts with these outcomes, `unspent` all others that
    spent no try.
    `waited_s` is how long the row had been due. `content` is the JSON document of the submit.
    `tenant` is only known if there were holds when it was claimed.
    """

    id: NotificationId
    claim: int
    queue: QueueKey
    recipient: str
    content: bytes
    tries: int
    deferrals: int = 0
    unspent: int = 0
    ambiguous: int = 0
    max_tries: int | None
    waited_s: float
    tenant: TenantId = DEFAULT_TENANT


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One attempt, as readers see it: `number` is its claim. Texts are empty if there are none."""

    number: int
    provider: str
    outcome: str
    code: str
    http_status: int | None = None
    detail: str
    reference: str = ""
    queue_wait_s: float
    started_at: datetime
    finished_at: datetime
    next_at: datetime | None
    repeats: int
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptView:
    """A receipt, as readers see it. `event` is a text: a later version may have others."""

    provider: str
    event: str
    code: str
    detail: str
    provider_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultView:
    """How a notification ended. None of a text that there is not: `reason` of a sent one."""

    reason: str | None
    provider: str | None
    code: str | None
    detail: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackView:
    """The fallback of a notification, as readers see it.

    `at` is when it is submitted unless the notification is sent or delivered, as `unless` says;
    `notification` is what was submitted, None if nothing was.
    """

    after_s: float
    channel: str
    at: datetime
    unless: Unless
    notification: NotificationId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationView:
    """A notification as readers see it, with its attempts in their order.

    `content` is None if it was not asked for, and empty once it was removed. `recipient` is empty
    once it was erased. `result` is None until the status is final.
    `template` is the version that it is rendered from, and `locale` that of the texts. `retried_by`
    is the operation that let it wait again after it had ended. `fallback_of` is the notification
    whose fallback it is. `sent_at` is None unless a provider accepted it, and nothing else ended
    it. `receipts` is None if they were not asked for.
    """

    id: NotificationId
    status: Status
    queue: QueueKey
    recipient: str
    content: bytes | None = None
    template: str | None = None
    locale: str | None = None
    metadata: bytes
    provider: str | None = None
    reference: str | None = None
    tries: int
    max_tries: int | None
    last_error: str | None
    result: ResultView | None = None
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    expires_at: datetime
    tag: str | None = None
    topic: str | None = None
    replaced_by: NotificationId | None = None
    retried_by: UUID | None = None
    fallback: FallbackView | None = None
    fallback_of: NotificationId | None = None
    attempts: tuple[AttemptView, ...] = ()
    sent_at: datetime | None = None
    receipts: tuple[ReceiptView, ...] | None = None
    tenant: TenantId = DEFAULT_TENANT
    test_channel: str = ""
