"""Reads what the explanation of one notification needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.controls import KINDS
from notifier.adapters.postgres.statements import statement
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.due import DueClass
from notifier.domain.explanation.facts import ClassCount, LastAttempt, Subject, WaitingRow
from notifier.domain.notification import WAITING, QueueKey, Status
from notifier.domain.tenants import TenantId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asyncpg import Connection, Record

    from notifier.domain.controls import Pause
    from notifier.domain.due import Position

MAX_COUNTED_AHEAD: Final = 10_000
"""How many rows are read to count those that stand before a notification: some 10 ms."""
MAX_AUDIT_ENTRIES: Final = 10_000


async def read_subject(connection: Connection[Record], row: Record) -> Subject:
    """Return the notification of a row of read_notifications.sql, in its snapshot."""
    (found,) = await connection.fetch(statement("explain_waiting"), row["id"])
    status, queue = Status(row["status"]), QueueKey.parse(row["queue"])
    if status not in WAITING:
        return Subject(
            id=row["id"],
            status=status,
            queue=queue,
            as_of_at=found["now"],
            expires_at=row["expires_at"],
        )
    return WaitingRow(
        id=row["id"],
        status=status,
        queue=queue,
        as_of_at=found["now"],
        expires_at=row["expires_at"],
        tenant=TenantId(row["tenant"]),
        tag=row["tag"],
        due_class=DueClass(found["class"]),
        turn=found["turn"],
        claim=found["claim"],
        due_at=found["due_at"],
        content=found["content"] or b"",
        parked_by=_parked_by(found),
        last_attempt=_last_attempt(found),
    )


async def count_before(
    connection: Connection[Record], row: WaitingRow, until: Mapping[DueClass, Position]
) -> Mapping[DueClass, ClassCount]:
    """Count the rows of each class that wait before a position."""
    rows = await connection.fetch(
        statement("explain_ahead"),
        str(row.queue),
        [due_class.value for due_class in until],
        [position.due_at for position in until.values()],
        [position.id for position in until.values()],
        row.id,
        MAX_COUNTED_AHEAD,
        row.turn,
    )
    return {
        DueClass(each["class"]): ClassCount(
            each["count"], is_exact=each["read"] < MAX_COUNTED_AHEAD
        )
        for each in rows
    }


async def pause_authors(
    connection: Connection[Record], pauses: Collection[Pause]
) -> Mapping[Scope, str]:
    """Return who began these pauses last."""
    by_target = {f"pause:{pause.scope}": pause.scope for pause in pauses}
    rows = await connection.fetch(
        statement("pause_authors"),
        list(by_target),
        min(pause.paused_at for pause in pauses),
        MAX_AUDIT_ENTRIES,
    )
    return {by_target[row["target"]]: row["actor"] for row in rows}


def _parked_by(row: Record) -> Scope | None:
    """Return the pause that parked a row, None also for one that this version does not know."""
    kind = row["parked_kind"]
    return Scope(ScopeKind(kind), row["parked_name"]) if kind in KINDS else None


def _last_attempt(row: Record) -> LastAttempt | None:
    if row["number"] is None:
        return None
    return LastAttempt(row["number"], row["provider"], row["outcome"], row["code"])
