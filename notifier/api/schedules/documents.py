"""Documents of schedules. The command line decodes them, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from notifier.api.requests import Instant, JsonObject, Note
from notifier.api.responses import Problem
from notifier.domain import schedules
from notifier.domain.credentials import Mode
from notifier.domain.cron import MAX_CRON_LENGTH
from notifier.domain.notification import NotificationId
from notifier.domain.tenants import tenant_name

CronText = Annotated[
    str,
    Meta(
        max_length=MAX_CRON_LENGTH,
        examples=["30 9 * * MON-FRI"],
        description=(
            "Minute, hour, day of month, month and day of week, with names, lists, ranges and "
            "steps. L is the last day of a month, 5L its last Friday, MON#2 its second Monday."
        ),
    ),
]
_SUBMIT: Final = {"$ref": "#/components/schemas/Submit"}


class ScheduleRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A notification that is submitted at each instant of a cron expression.

    The notification is as in a submit, but for send_at, expires_at and idempotency_key; a file is a
    blob. A template is filled at each instant, with its newest version then.
    """

    cron: CronText
    time_zone: Annotated[
        str,
        Meta(
            max_length=64,
            examples=["Europe/Berlin"],
            description="The IANA time zone by whose clocks the expression counts.",
        ),
    ]
    notification: Annotated[msgspec.Raw, Meta(extra_json_schema=_SUBMIT)]
    note: Annotated[Note, Meta(description="One line, without control characters.")] = ""
    paused: Annotated[bool, Meta(description="Nothing is submitted while it is true.")] = False


class RunProblem(msgspec.Struct):
    """Why the run at this instant was refused, or is tried again."""

    at: Instant
    problem: Problem


class Schedule(msgspec.Struct, kw_only=True):
    """A schedule.

    `next_at` is null while it is paused, and after its last instant. `last_at` is the instant of
    its last notification, `last_notification`. `last_problem` is null if the last run was not
    refused. `notification` is absent unless `include` asks for it.
    """

    id: UUID
    tenant: str
    mode: Mode
    cron: str
    time_zone: str
    next_at: Instant | None
    last_at: Instant | None
    last_notification: NotificationId | None
    last_problem: RunProblem | None
    paused: bool
    note: str | None
    created_at: Instant
    notification: JsonObject | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, stored: schedules.Schedule, *, with_notification: bool = False) -> Schedule:
        """Builds the document of a schedule."""
        document = stored.notification if with_notification else None
        return cls(
            id=stored.id,
            tenant=tenant_name(stored.scope.tenant),
            mode=stored.scope.mode,
            cron=stored.cron.text,
            time_zone=stored.cron.time_zone,
            next_at=stored.next_at,
            last_at=stored.last_at,
            last_notification=stored.last_notification,
            last_problem=_run_problem(stored.problem),
            paused=stored.is_paused,
            note=stored.note or None,
            created_at=stored.created_at,
            notification=msgspec.UNSET if document is None else msgspec.Raw(document),
        )


class SchedulePage(msgspec.Struct):
    """Schedules, the oldest first. `next_cursor` is null on the last page."""

    items: Sequence[Schedule]
    next_cursor: str | None


def _run_problem(stored: bytes | None) -> RunProblem | None:
    """Returns a stored problem; None also for one that this version cannot read."""
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored, type=RunProblem)
    except msgspec.MsgspecError:
        return None
