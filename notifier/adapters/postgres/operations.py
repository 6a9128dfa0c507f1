"""Operations in Postgres, as people make, read and stop them, and changes of one notification."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from notifier.adapters.postgres import changing
from notifier.adapters.postgres.audit import add_action
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connections,
)
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.finding import SEARCH_SETTINGS
from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.lookups import LookupKey
from notifier.adapters.postgres.statements import statement
from notifier.domain.audit import Action
from notifier.domain.credentials import Mode
from notifier.domain.events import EventType
from notifier.domain.operations import Operation, OperationKind, OperationStatus
from notifier.ports.operations import (
    Counted,
    OperationPage,
    OperationRefusal,
    Replay,
    Retried,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Connection, Record

    from notifier.domain.idempotency import IdempotencyKey
    from notifier.domain.notification import NotificationView
    from notifier.ports.keys import Author
    from notifier.ports.operations import NewOperation, OperationFilter
    from notifier.ports.queries import View
    from notifier.ports.store import ExpiredRow

CONNECTIONS: Final = 2
"""How many connections `open_operations` opens at most: one changes, one only reads."""
SELECTION_VERSION: Final = 1
"""To be raised with what a selection may have: processes of before would select more without it."""
MAX_CANDIDATES: Final = 2000
"""Operations that are read for a page, whatever of them matches."""
MAX_RUNNING: Final = 5
"""Operations of one tenant, and of the deployment."""
MAX_COUNTED: Final = 2000
MAX_SAMPLE: Final = 10
# A later version may have others.
_KINDS: Final = list(OperationKind)
_STATUSES: Final = list(OperationStatus)


class PostgresOperations:
    """Implements ports.operations.NotificationControl and OperationStore."""

    def __init__(
        self,
        connection: PostgresConnection,
        reading: PostgresConnection,
        *,
        keep_keys_s: float,
        events: EventWriting = WRITE_EVENTS,
    ) -> None:
        self._connection = connection
        self._events = events
        self._reading = reading
        self._keep_keys_s = keep_keys_s
        self._key = LookupKey()

    async def cancel(
        self, notification: NotificationView, note: str, author: Author
    ) -> ExpiredRow | None:
        async with self._connection.acquire() as connection, connection.transaction():
            ended = await changing.cancel(connection, [notification.id], events=self._events)
            if not ended:
                return None
            await add_action(connection, _of_one("cancelled", notification, note, author))
        return ended[0]

    async def retry(self, notification: NotificationView, note: str, author: Author) -> Retried:
        async with self._connection.acquire() as connection, connection.transaction():
            await changing.expire(connection, [notification.id], self._events)
            ended = await changing.read_ended(connection, [notification.id])
            if not ended:
                return Retried.WRONG_STATUS
            if not await changing.without_suppressed(connection, self._key, ended):
                return Retried.SUPPRESSED
            if not await changing.retry(connection, [notification.id]):
                return Retried.WRONG_STATUS
            await add_action(connection, _of_one("retried", notification, note, author))
        return Retried.DONE

    async def create(
        self, new: NewOperation, author: Author
    ) -> Operation | Replay | OperationRefusal:
        view = new.selection.view
        async with self._connection.acquire() as connection, connection.transaction():
            # One at a time of a tenant: the next one then sees its key, and that it runs.
            await connection.execute(statement("operation_lock"), view.tenant, view.mode)
            if new.key is not None and (earlier := await self._earlier(connection, new.key)):
                return earlier
            row = await connection.fetchrow(
                statement("operation_create"),
                uuid7(),
                view.tenant,
                view.mode,
                new.kind,
                msgspec.json.encode(new.shown).decode(),
                msgspec.json.encode(new.selection).decode(),
                SELECTION_VERSION,
                sorted(new.ids, reverse=True),
                new.rate_per_s,
                new.note,
                author.actor,
                new.key and new.key.digest,
                new.key and new.key.body,
                MAX_RUNNING,
            )
            if row is None:
                return OperationRefusal.TOO_MANY
            operation = operation_of(row)
            await add_action(connection, _of_operation("created", operation, new.note, author))
        return operation

    async def _earlier(
        self, connection: Connection[Record], key: IdempotencyKey
    ) -> Replay | OperationRefusal | None:
        row = await connection.fetchrow(
            statement("operation_earlier"), key.digest, self._keep_keys_s
        )
        if row is None:
            return None
        if row["body"] != key.body:
            return OperationRefusal.KEY_REUSED
        return Replay(operation_of(row))

    async def count(self, new: NewOperation) -> Counted:
        selection = replace(new.selection, limit=MAX_COUNTED)
        async with (
            self._reading.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            page = await changing.find_page(
                connection, self._key, selection, sorted(new.ids, reverse=True)
            )
        return Counted(len(page.ids), page.before is None, page.ids[:MAX_SAMPLE])

    async def operation(
        self,
        id: UUID,  # noqa: A002 the port's name
        view: View,
    ) -> Operation | None:
        rows = await self._reading.fetch(
            statement("operation_read"), id, view.tenant, view.mode, _KINDS, _STATUSES
        )
        return operation_of(rows[0]) if rows else None

    async def operations(self, selection: OperationFilter) -> OperationPage:
        limit = selection.limit
        _, greatest = id_bounds(None, None, selection.before)
        rows = await self._reading.fetch(
            statement("operations_list"),
            selection.view.tenant,
            selection.view.mode,
            list(selection.kind) or _KINDS,
            list(selection.status) or _STATUSES,
            greatest,
            limit + 1,
            MAX_CANDIDATES,
        )
        found = [operation_of(row) for row in rows if row["id"] is not None]
        page = found[:limit]
        if len(found) > limit:
            return OperationPage(operations=page, next_before=page[-1].id)
        is_last = rows[0]["candidates"] < MAX_CANDIDATES
        return OperationPage(operations=page, next_before=None if is_last else rows[0]["last"])

    async def stop(
        self,
        id: UUID,  # noqa: A002 the port's name
        view: View,
        note: str,
        author: Author,
    ) -> Operation | None:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statement("operation_stop"), id, view.tenant, view.mode)
            if row is not None:
                stopped = operation_of(row)
                await add_action(connection, _of_operation("stopped", stopped, note, author))
                await add_finished(self._events, connection, stopped)
                return stopped
        return await self.operation(id, view)


def operation_of(row: Record) -> Operation:
    """Return the operation of a row of the table. Raises ValueError for one of a later version."""
    return Operation(
        id=row["id"],
        tenant=row["tenant"],
        mode=Mode(row["mode"]),
        kind=OperationKind(row["kind"]),
        filter=msgspec.json.decode(row["filter"], type=dict[str, object]),
        rate_per_s=row["rate_per_s"],
        note=row["note"],
        actor=row["actor"],
        status=OperationStatus(row["status"]),
        matched=row["matched"],
        done=row["done"],
        skipped=row["skipped"],
        failed=row["failed"],
        sample=row["sample"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
    )


def _of_one(verb: str, notification: NotificationView, note: str, author: Author) -> Action:
    return Action(
        actor=author.actor,
        name=f"notification.{verb}",
        target=f"notification:{notification.id}",
        tenant=notification.tenant,
        before={"status": notification.status},
        note=note,
        request_id=author.request_id,
    )


def _of_operation(verb: str, operation: Operation, note: str, author: Author) -> Action:
    """What the audit keeps of an operation. Its filter may name a recipient: it is not kept."""
    return Action(
        actor=author.actor,
        name=f"operation.{verb}",
        target=f"operation:{operation.id}",
        tenant=operation.tenant,
        after={"kind": operation.kind, "filter": sorted(operation.filter), "done": operation.done},
        note=note,
        request_id=author.request_id,
    )


async def add_finished(
    events: EventWriting, connection: Connection[Record], operation: Operation
) -> None:
    """Write the event of an operation that has ended, in the transaction that ends it."""
    names = ("id", "kind", "status", "matched", "done", "skipped", "failed", "note", "finished_at")
    await events.add(
        connection,
        EventType.OPERATION_FINISHED,
        {operation.id: {name: getattr(operation, name) for name in names}},
        tenant=operation.tenant,
        mode=operation.mode,
    )


@asynccontextmanager
async def open_operations(
    settings: ConnectionSettings, *, keep_keys_s: float, events: EventWriting = WRITE_EVENTS
) -> AsyncIterator[PostgresOperations]:
    """Operations on connections of their own."""
    async with open_connections(settings, [SEARCH_SETTINGS] * CONNECTIONS) as connections:
        yield PostgresOperations(*connections, keep_keys_s=keep_keys_s, events=events)
