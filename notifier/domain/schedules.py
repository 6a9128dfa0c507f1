"""Schedules: a notification that is submitted again and again, at the instants of an expression."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from notifier.domain.blobs import BlobId
from notifier.domain.credentials import Mode
from notifier.domain.cron import Cron
from notifier.domain.idempotency import IdempotencyKey, digest, key_digest
from notifier.domain.notification import NotificationId
from notifier.domain.tenants import TenantId

MAX_SCHEDULES: Final = 1000
"""Of one tenant and mode."""
KEY_KEPT: Final = timedelta(days=1)
"""An idempotency key is kept for at least this long, whatever the settings are."""


class RunOutcome(StrEnum):
    """What became of a run.

    REPLAYED: an earlier try had submitted it. REFUSED: it cannot be submitted. POSTPONED: it is
    tried again. SKIPPED: instants were missed, and are not submitted any more.
    """

    SUBMITTED = "submitted"
    REPLAYED = "replayed"
    REFUSED = "refused"
    POSTPONED = "postponed"
    SKIPPED = "skipped"


class ScheduleScope(NamedTuple):
    """Whose schedules: those of one tenant, of live or of test notifications."""

    tenant: TenantId
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """What a person decides of a schedule.

    `notification` is the JSON document of a submit, in one spelling and without a tenant; `needs`
    names its fields, and `blobs` its files. `digest` is the same for schedules that would submit
    the same at the same instants.
    """

    cron: Cron
    notification: bytes
    needs: Collection[str]
    blobs: Collection[BlobId]
    note: str
    is_paused: bool

    @property
    def digest(self) -> UUID:
        """128 bits of a hash of expression, time zone and notification."""
        return digest(
            b"\0".join((self.cron.text.encode(), self.cron.time_zone.encode(), self.notification))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A stored schedule.

    `next_at` is the next instant, or the earliest one that is not done; None while it is paused,
    and after the last one. `last_at` is the instant of the last notification, `last_notification`.
    `problem` is the encoded document of why the last run was refused; None if it was not.
    `notification` is None if it was not asked for.
    """

    id: UUID
    scope: ScheduleScope
    cron: Cron
    note: str
    is_paused: bool
    created_at: datetime
    next_at: datetime | None
    last_at: datetime | None
    last_notification: NotificationId | None
    problem: bytes | None
    notification: bytes | None = None

    def next_of(self, new: NewSchedule, now: datetime) -> datetime | None:
        """Return the next instant of what replaces this schedule.

        An instant that has come and is not done yet stays, unless other instants are asked for.
        """
        if new.is_paused:
            return None
        if self.is_paused or self.cron != new.cron:
            return new.cron.next_after(now)
        return self.next_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One instant of a schedule, held by this process for a while.

    `at` is the schedule's `next_at`. `begun_at` is when a process took this instant before and
    left no result, None if none did. All instants are of Postgres's clock, which showed `now` when
    the run was taken.
    """

    schedule: UUID
    scope: ScheduleScope
    cron: Cron
    notification: bytes
    at: datetime
    begun_at: datetime | None
    now: datetime

    @property
    def lateness(self) -> timedelta:
        """The time since the instant."""
        return self.now - self.at

    @property
    def key(self) -> IdempotencyKey:
        """The idempotency key of this instant.

        It stands for any notification: a schedule or template that was changed between two tries
        submits nothing twice.
        """
        text = f"schedule/{self.schedule}/{instant_text(self.at)}"
        return IdempotencyKey(key_digest(*self.scope, text), digest(text.encode()))

    @property
    def may_have_lost_its_key(self) -> bool:
        """Whether it may have been submitted so long ago that its key is not stored any more."""
        return self.begun_at is not None and self.now - self.begun_at > KEY_KEPT


def instant_text(instant: datetime) -> str:
    """Return an instant of a whole minute, such as 2026-10-25T01:00:00Z."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
