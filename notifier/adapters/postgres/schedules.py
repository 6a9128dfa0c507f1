"""Schedules in Postgres. Every change of a person is one transaction with its audit entry.

All instants are by Postgres's clock.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from notifier.adapters.postgres.audit import add_action, row_action
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.blobs import digest_of
from notifier.domain.credentials import Mode
from notifier.domain.cron import Cron
from notifier.domain.idempotency import digest
from notifier.domain.schedules import MAX_SCHEDULES, Run, Schedule, ScheduleScope
from notifier.ports.schedules import AddedSchedule, ScheduleRefusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from datetime import datetime

    from asyncpg import Connection, Record

    from notifier.domain.schedules import NewSchedule
    from notifier.ports.keys import Author
    from notifier.ports.schedules import RunResult

CONNECTIONS: Final = 1
"""How many connections `open_schedules` opens."""


class PostgresSchedules:
    """Implements ports.schedules.ScheduleStore."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def create(
        self, scope: ScheduleScope, new: NewSchedule, author: Author
    ) -> AddedSchedule | ScheduleRefusal:
        async with self._connection.acquire() as connection, connection.transaction():
            now = await _lock(connection, scope)
            row = await connection.fetchrow(
                statement("schedule_create"),
                uuid7(),
                *scope,
                *_columns(new),
                None if new.is_paused else new.cron.next_after(now),
                MAX_SCHEDULES,
            )
            if row is None:
                names = await connection.fetch(statement("tenants_read"))
                is_known = scope.tenant in {"", *(each["name"] for each in names)}
                return ScheduleRefusal.TOO_MANY if is_known else ScheduleRefusal.UNKNOWN_TENANT
            if row["is_new"]:
                await add_action(
                    connection, row_action("schedule", "created", row, author, after=_shown(row))
                )
        return AddedSchedule(_schedule(row), row["is_new"])

    async def schedules(self, scope: ScheduleScope) -> Sequence[Schedule]:
        rows = await self._connection.fetch(statement("schedules_list"), *scope)
        return list(map(_schedule, rows))

    async def schedule(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the port's name
    ) -> Schedule | None:
        rows = await self._connection.fetch(statement("schedule_read"), id, *scope)
        return _schedule(rows[0]) if rows else None

    async def replace(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the port's name
        new: NewSchedule,
        author: Author,
    ) -> Schedule | ScheduleRefusal:
        async with self._connection.acquire() as connection, connection.transaction():
            now = await _lock(connection, scope)
            before = await connection.fetchrow(statement("schedule_read_locked"), id, *scope)
            if before is None:
                return ScheduleRefusal.UNKNOWN
            next_at = _schedule(before).next_of(new, now)
            row = await connection.fetchrow(
                statement("schedule_replace"), id, *_columns(new), next_at
            )
            if row is None:
                return ScheduleRefusal.EXISTS
            await add_action(
                connection,
                row_action(
                    "schedule", "changed", row, author, before=_shown(before), after=_shown(row)
                ),
            )
        return _schedule(row)

    async def delete(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the port's name
        author: Author,
    ) -> bool:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statement("schedule_delete"), id, *scope)
            if row is not None:
                await add_action(
                    connection, row_action("schedule", "deleted", row, author, before=_shown(row))
                )
        return row is not None


class PostgresScheduleRuns:
    """Implements ports.schedules.ScheduleRuns. `known` are the fields that this version knows."""

    def __init__(self, connection: PostgresConnection, known: Collection[str]) -> None:
        self._connection = connection
        self._known = sorted(known)

    async def take(self, count: int, hold_s: float) -> Sequence[Run]:
        rows = await self._connection.fetch(statement("schedules_take"), hold_s, self._known, count)
        return [
            Run(
                schedule=row["id"],
                scope=_scope(row),
                cron=Cron(row["cron"], row["time_zone"]),
                notification=row["notification"],
                at=row["next_at"],
                begun_at=row["begun_before"],
                now=row["now"],
            )
            for row in rows
        ]

    async def settle(self, results: Sequence[RunResult]) -> Sequence[UUID]:
        rows = await self._connection.fetch(
            statement("schedules_settle"),
            [each.schedule for each in results],
            [each.at for each in results],
            [each.next_at for each in results],
            [each.notification for each in results],
            [None if each.problem is None else each.problem.decode() for each in results],
            [each.wait_s for each in results],
            [each.may_be_stored for each in results],
        )
        return [row["id"] for row in rows]


async def _lock(connection: Connection[Record], scope: ScheduleScope) -> datetime:
    """Keep other transactions from storing a schedule of this scope; return the time of this."""
    now: datetime = await connection.fetchval(statement("schedules_lock"), *scope)
    return now


def _columns(new: NewSchedule) -> tuple[object, ...]:
    return (
        new.digest,
        new.cron.text,
        new.cron.time_zone,
        new.notification,
        sorted(new.needs),
        sorted(map(digest_of, new.blobs)),
        new.note,
        new.is_paused,
    )


def _scope(row: Record) -> ScheduleScope:
    return ScheduleScope(row["tenant"], Mode(row["mode"]))


def _schedule(row: Record) -> Schedule:
    problem = row["last_problem"]
    return Schedule(
        id=row["id"],
        scope=_scope(row),
        cron=Cron(row["cron"], row["time_zone"]),
        note=row["note"],
        is_paused=row["paused"],
        created_at=row["created_at"],
        next_at=row["next_at"],
        last_at=row["last_at"],
        last_notification=row["last_notification"],
        problem=None if problem is None else problem.encode(),
        notification=row["notification"],
    )


def _shown(row: Record) -> Mapping[str, object]:
    """What the audit keeps: no recipient, which could be erased nowhere else."""
    return {
        "cron": row["cron"],
        "time_zone": row["time_zone"],
        "paused": row["paused"],
        "note": row["note"],
        "notification_digest": str(digest(row["notification"])),
    }


@asynccontextmanager
async def open_schedules(
    settings: ConnectionSettings, known: Collection[str]
) -> AsyncIterator[tuple[PostgresSchedules, PostgresScheduleRuns]]:
    """Yield the schedules and their runs, on a connection of their own.

    `known` are the fields of notifications that this version knows.
    """
    async with open_connection(settings) as connection:
        yield PostgresSchedules(connection), PostgresScheduleRuns(connection, known)
