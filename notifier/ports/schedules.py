"""Schedules: where they are kept, and what a run of one submits. Stores raise StoreUnavailable."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from notifier.domain.notification import NotificationId
from notifier.domain.schedules import NewSchedule, Run, Schedule, ScheduleScope
from notifier.ports.keys import Author


class ScheduleRefusal(StrEnum):
    """Why a schedule was not stored."""

    UNKNOWN_TENANT = "unknown tenant"
    TOO_MANY = "too many schedules"
    UNKNOWN = "there is no such schedule"
    EXISTS = "another schedule is the same"


class AddedSchedule(NamedTuple):
    """A schedule that is stored now, and whether it is new."""

    schedule: Schedule
    is_new: bool


class ScheduleStore(Protocol):
    """Keeps schedules. Every change is stored with its entry of the audit."""

    async def create(
        self, scope: ScheduleScope, new: NewSchedule, author: Author
    ) -> AddedSchedule | ScheduleRefusal:
        """Store a schedule, unless one exists that submits the same at the same instants.

        A scope has at most MAX_SCHEDULES.
        """
        ...

    async def schedules(self, scope: ScheduleScope) -> Sequence[Schedule]:
        """Return all schedules of a scope, without their notifications, the oldest first."""
        ...

    async def schedule(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the field's word
    ) -> Schedule | None:
        """Return a schedule with its notification, None if the scope has none with this id."""
        ...

    async def replace(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the field's word
        new: NewSchedule,
        author: Author,
    ) -> Schedule | ScheduleRefusal:
        """Replace all that a person decides of a schedule. See Schedule.next_of."""
        ...

    async def delete(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the field's word
        author: Author,
    ) -> bool:
        """Delete a schedule; False if the scope has none with this id."""
        ...


class RunResult(NamedTuple):
    """What became of the instant `at` of a schedule, and where the schedule stands now.

    `next_at` is `at` again if the instant is to be tried again, after `wait_s`. `problem` is the
    encoded document of a refusal. `may_be_stored`: it is not known whether it was submitted.
    """

    schedule: UUID
    at: datetime
    next_at: datetime | None
    notification: NotificationId | None = None
    problem: bytes | None = None
    wait_s: float = 0.0
    may_be_stored: bool = False


class ScheduleRuns(Protocol):
    """Gives each instant to one process at a time."""

    async def take(self, count: int, hold_s: float) -> Sequence[Run]:
        """Take up to `count` schedules whose instant has come, the earliest first.

        No other process gets one of them for `hold_s` seconds, or until it is settled. Schedules
        whose notification has a field that this version does not know are left to others.
        """
        ...

    async def settle(self, results: Sequence[RunResult]) -> Sequence[UUID]:
        """Store results; returns the schedules that still stood at the instant.

        For the others nothing changes but the last notification. May be repeated.
        """
        ...


class Submitted(NamedTuple):
    """The notification of this instant, stored now or, as a replay, before."""

    id: NotificationId
    is_replay: bool


class Refused(NamedTuple):
    """It cannot be submitted. `problem` is an encoded problem document, `slug` its type."""

    problem: bytes
    slug: str


class Postponed(NamedTuple):
    """It cannot be submitted at present. `may_be_stored`: whether it was is not known."""

    problem: bytes
    slug: str
    may_be_stored: bool


class TooLate(NamedTuple):
    """Its notification would have expired by now."""


class RunSubmitter(Protocol):
    """Submits the notifications of runs; implemented by api/schedules/submitting.py."""

    async def submit(self, run: Run) -> Submitted | Refused | Postponed | TooLate:
        """Submit the notification of a run as its tenant would, once for each instant."""
        ...

    async def earlier(self, run: Run) -> NotificationId | None:
        """Return what was submitted for this instant before, None if nothing was.

        Raises StoreUnavailable.
        """
        ...
