"""Builds values for tests; each argument that a test does not care about has a default."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from uuid_utils.compat import uuid7

from notifier.domain.controls import Breaker, BreakerState, Pause, Scope, ScopeKind
from notifier.domain.due import BEGINNING, DueClass
from notifier.domain.features import NO_FEATURES
from notifier.domain.idempotency import IdempotencyKey, digest, key_digest
from notifier.domain.lookups import Lookup
from notifier.domain.notification import (
    Channel,
    Claimed,
    NewNotification,
    NotificationId,
    Priority,
    QueueKey,
    Status,
    WorkerId,
)
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.broker import Pointer
from notifier.ports.store import AttemptResult, ClaimRequest, DueRange, LiveRow

EMAIL_HIGH = QueueKey(Channel("email"), Priority.HIGH)
EMAIL_LOW = QueueKey(Channel("email"), Priority.LOW)
SMS_HIGH = QueueKey(Channel("sms"), Priority.HIGH)
QUEUES = tuple(
    QueueKey(Channel(channel), priority)
    for channel in ("email", "sms", "push")
    for priority in Priority
)


def new_id() -> NotificationId:
    """Return a new notification id."""
    return NotificationId(uuid7())


def worker_id() -> WorkerId:
    """Return a new worker id."""
    return WorkerId(uuid7())


def a_pause(kind: ScopeKind, name: str, expires_in_s: float | None = None) -> Pause:
    """A pause that is one second old."""
    now = datetime.now(UTC)
    return Pause(
        scope=Scope(kind, name),
        note="why",
        age_s=1.0,
        paused_at=now - timedelta(seconds=1),
        expires_at=None if expires_in_s is None else now + timedelta(seconds=expires_in_s),
        expires_in_s=expires_in_s,
    )


def a_breaker(
    provider: str = "smtp",
    state: BreakerState = BreakerState.OPEN,
    *,
    is_mine: bool = False,
    probe_in_s: float = 5.0,
) -> Breaker:
    """A breaker that has been in its state for one second."""
    return Breaker(
        provider=provider,
        state=state,
        reason="errors",
        age_s=1.0,
        probe_in_s=probe_in_s,
        is_mine=is_mine,
        since_at=datetime.now(UTC) - timedelta(seconds=1),
        probe_at=datetime.now(UTC) + timedelta(seconds=probe_in_s),
    )


def a_notification(
    queue: QueueKey = EMAIL_HIGH,
    *,
    id_: NotificationId | None = None,
    recipient: str = "ok@example.com",
    content: bytes = b'{"subject":"Hello","body":"World"}',
    delay: timedelta | None = None,
    ttl: timedelta = timedelta(hours=1),
    max_tries: int | None = None,
    key: IdempotencyKey | None = None,
    features: frozenset[str] = NO_FEATURES,
    tenant: TenantId = DEFAULT_TENANT,
    test_channel: str = "",
    lookups: tuple[Lookup, ...] = (),
    collapse_key: str | None = None,
    tag: str | None = None,
    topic: str | None = None,
) -> NewNotification:
    """Return a validated submit."""
    return NewNotification(
        id=id_ or new_id(),
        queue=queue,
        recipient=recipient,
        content=content,
        metadata=b"{}",
        delay=delay,
        ttl=ttl,
        max_tries=max_tries,
        key=key,
        features=features,
        tenant=tenant,
        test_channel=test_channel,
        lookups=lookups,
        collapse_key=collapse_key,
        tag=tag,
        topic=topic,
    )


def a_key(key: str = "order-1", body: bytes = b"{}") -> IdempotencyKey:
    """Return an idempotency key of the default tenant."""
    return IdempotencyKey(key_digest("", "live", key), digest(body))


def due_ranges(*queues: QueueKey, limit: int = 500) -> list[DueRange]:
    """Return ranges that read `limit` rows of each class of each queue (default: all queues)."""
    return [
        DueRange(queue, due_class, BEGINNING, limit)
        for queue in queues or QUEUES
        for due_class in DueClass
    ]


def row_pointer(row: LiveRow) -> Pointer:
    """Return the pointer by which a row is published now."""
    return Pointer(
        queue=row.queue,
        id=NotificationId(row.position.id),
        claim=row.claim,
        published_at=time.time(),
        size=row.size,
        deaths=row.deaths,
    )


def claim_request(pointer: Pointer) -> ClaimRequest:
    """Return the request for the claim that a pointer points to."""
    return ClaimRequest(id=pointer.id, claim=pointer.claim)


def a_result(
    claimed: Claimed,
    status: Status = Status.SENT,
    *,
    outcome: str = "accepted",
    spends: bool = True,
    after: timedelta | None = None,
    reason: str = "",
    code: str = "250",
    http_status: int | None = None,
) -> tuple[AttemptResult, float]:
    """Return the result of an attempt that took 10 ms and ended just now, and its age of 0 s."""
    now = time.monotonic()
    result = AttemptResult(
        id=claimed.id,
        claim=claimed.claim,
        status=status,
        spends=spends,
        after=after,
        reason=reason,
        outcome=outcome,
        provider="smtp",
        code=code,
        detail="",
        reference="",
        http_status=http_status,
        waited_s=claimed.waited_s,
        started_at_monotonic=now - 0.01,
        finished_at_monotonic=now,
    )
    return result, 0.0
