"""Fallbacks: one more notification, if the first one is not sent, or not delivered, in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from notifier.domain.credentials import Mode
from notifier.domain.idempotency import IdempotencyKey, digest, key_digest
from notifier.domain.notification import EndReason, NotificationId, Status, Unless
from notifier.domain.schedules import KEY_KEPT
from notifier.domain.tenants import TenantId

MIN_AFTER_S: Final = 5.0
FIRST_LOOK: Final = timedelta(seconds=2)
"""How long after the first notification is due it is looked at for the first time."""
MAX_LOOK_INTERVAL: Final = timedelta(minutes=1)
"""Of a notification that is not sent. A receipt that settles a sent one wakes its fallback."""
_WISHES: Final = frozenset[str]({EndReason.UNSUBSCRIBE, EndReason.COMPLAINT, EndReason.ERASED})
"""Reasons of a suppression that are the wish of a person, on every channel."""


class Decision(StrEnum):
    """What to do about a fallback now. WAIT: look at the first notification again later."""

    WAIT = "wait"
    SUBMIT = "submit"
    DROP = "drop"


class FallbackOutcome(StrEnum):
    """What became of a fallback.

    REPLAYED: an earlier try had submitted it. REFUSED: it cannot be submitted. POSTPONED: it is
    tried again. DROPPED: it is not needed. SKIPPED: it may have been submitted, nobody knows.
    """

    SUBMITTED = "submitted"
    REPLAYED = "replayed"
    REFUSED = "refused"
    POSTPONED = "postponed"
    DROPPED = "dropped"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class DueFallback:
    """A fallback whose first notification is looked at now; this process holds it for a while.

    `id` is the first notification, with its `status`, None if it is not stored any more, and the
    `reason` of its result. `since` is when that was due first, `at` when the fallback is submitted
    unless it is sent, or delivered. `begun_at` is when a process began to submit it and left no
    result, None if none did. `held_until` identifies this hold. All instants are of Postgres's
    clock, which showed `now`.
    """

    id: NotificationId
    status: Status | None
    reason: str | None
    tenant: TenantId
    mode: Mode
    submit: bytes
    unless: Unless
    since: datetime
    at: datetime
    begun_at: datetime | None
    held_until: datetime
    now: datetime

    @property
    def decision(self) -> Decision:
        """What to do about it now."""
        return decide(self.status, self.reason, self.unless, is_due=self.now >= self.at)

    @property
    def next_look_at(self) -> datetime:
        """When to look at the first notification again.

        It has waited at most twice as long then as now, so that a few looks are enough, and, if it
        is not sent, at most a minute longer.
        """
        wait = max(self.now - self.since, FIRST_LOOK)
        if self.status is not Status.SENT:
            wait = min(wait, MAX_LOOK_INTERVAL)
        return min(self.at, self.now + wait)

    @property
    def key(self) -> IdempotencyKey:
        """The idempotency key of the second notification. No caller's key has a NUL."""
        text = f"\0fallback/{self.id}"
        return IdempotencyKey(key_digest(self.tenant, self.mode, text), digest(text.encode()))

    @property
    def may_have_lost_its_key(self) -> bool:
        """Whether it may have been submitted so long ago that its key is not stored any more."""
        return self.begun_at is not None and self.now - self.begun_at > KEY_KEPT


def decide(status: Status | None, reason: str | None, unless: Unless, *, is_due: bool) -> Decision:
    """Say whether the fallback of a notification with this status is needed.

    `reason` is that of its result, `is_due` whether the time for what makes the fallback needless
    is over. A notification that cannot be sent any more needs its fallback at once, one that a
    person ended needs none. This is the only place that knows which statuses count as success.
    """
    match status:
        case None | Status.DELIVERED | Status.CANCELLED:
            return Decision.DROP
        case Status.SENT if unless is Unless.SENT:
            return Decision.DROP
        case Status.SUPPRESSED if reason in _WISHES:
            return Decision.DROP
        case Status.FAILED | Status.EXPIRED | Status.SUPPRESSED | Status.UNDELIVERED:
            return Decision.SUBMIT
        case (
            Status.SCHEDULED
            | Status.QUEUED
            | Status.SENDING
            | Status.RETRYING
            | Status.LOST
            | Status.SENT
        ):
            return Decision.SUBMIT if is_due else Decision.WAIT
        case _:
            assert_never(status)
