"""Carries operations out in steps of one transaction each.

A step finds a few hundred notifications, the newest first, changes them, and notes how far it came.
An operation makes passes over what its filter finds until one leaves nothing: a notification that
was being sent may wait again, and a queue that had enough retries may have room for more.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from notifier.adapters.postgres import changing
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.errors import translated
from notifier.adapters.postgres.finding import SEARCH_SETTINGS
from notifier.adapters.postgres.lookups import LookupKey
from notifier.adapters.postgres.operations import MAX_SAMPLE, operation_of
from notifier.adapters.postgres.statements import statement
from notifier.delivery.batch_write import write_batch
from notifier.domain.errors import StoreRejected, StoreUnavailable
from notifier.domain.notification import WAITING, NotificationId, Status
from notifier.domain.operations import OperationKind, OperationStatus
from notifier.ports.operations import Step
from notifier.ports.queries import Filter
from notifier.ports.store import ExpiredRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.operations import Operation

CONNECTIONS: Final = 1
"""How many connections `open_operation_steps` opens."""
MAX_CHANGED: Final = 500
"""Notifications of one step."""
MAX_DUE_RETRIES: Final = 500
"""A queue with so many retries that are due gets no more: they would stand before its own."""
STEP_S: Final = 0.5
"""A step changes at most what the rate allows for so long, but one at least."""
PASS_PAUSE_S: Final = 1.0
MAX_PASSES: Final = 600
"""After so many an operation ends although some notifications are still being sent."""
CLOCKS_APART: Final = timedelta(minutes=10)
"""How far the clock of a process, from which ids are made, may be ahead of Postgres's."""


class _Changed(NamedTuple):
    """What one step did. `left` are those that a later pass has to look at again."""

    found: int = 0
    ended: Sequence[ExpiredRow] = ()
    retried: Sequence[NotificationId] = ()
    failed: int = 0
    left: int = 0

    @property
    def ids(self) -> Sequence[NotificationId]:
        return [*(row.id for row in self.ended), *self.retried]


class PostgresOperationSteps:
    """Implements ports.operations.OperationSteps."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self._key = LookupKey()

    async def step(self) -> Step | None:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statement("operation_take"))
            if row is None:
                return None
            operation = operation_of(row)
            selection = _selection_of(row, operation)
            page = await changing.find_page(connection, self._key, selection, row["ids"])
            changed = await self._change(connection, operation, page.ids)
            (moved,) = await connection.fetch(
                statement("operation_moved"), *_moved(row, operation, changed, page.before)
            )
        return Step(operation_of(moved), changed.ended, len(changed.retried))

    async def _change(
        self, connection: Connection[Record], operation: Operation, ids: Sequence[NotificationId]
    ) -> _Changed:
        if not ids:
            return _Changed()
        if operation.kind is OperationKind.CANCEL:
            return await self._cancel(connection, operation, ids)
        return await self._retry(connection, operation, ids)

    async def _cancel(
        self, connection: Connection[Record], operation: Operation, ids: Sequence[NotificationId]
    ) -> _Changed:
        async def write(some: Sequence[NotificationId]) -> Sequence[ExpiredRow | None]:
            rows = await changing.cancel(connection, some, accepted_by=operation.created_at)
            by_id = {row.id: row for row in rows}
            return [by_id.get(id_) for id_ in some]

        replies = await _written(connection, "cancel", ids, write)
        ended = [reply for reply in replies if isinstance(reply, ExpiredRow)]
        failed = sum(isinstance(reply, StoreRejected) for reply in replies)
        rest = [id_ for id_, reply in zip(ids, replies, strict=True) if reply is None]
        left = await changing.count_left(connection, rest, operation.created_at) if rest else 0
        return _Changed(found=len(ids), ended=ended, failed=failed, left=left)

    async def _retry(
        self, connection: Connection[Record], operation: Operation, ids: Sequence[NotificationId]
    ) -> _Changed:
        ended = await changing.read_ended(connection, ids, ended_by=operation.created_at)
        allowed = await changing.without_suppressed(connection, self._key, ended)
        fitting = await _with_room(connection, allowed)

        async def write(some: Sequence[NotificationId]) -> Sequence[NotificationId | None]:
            retried = set(
                await changing.retry(
                    connection, some, ended_by=operation.created_at, operation=operation.id
                )
            )
            return [id_ if id_ in retried else None for id_ in some]

        replies = await _written(connection, "retry", fitting, write) if fitting else []
        retried = [id_ for id_, reply in zip(fitting, replies, strict=True) if reply == id_]
        failed = sum(isinstance(reply, StoreRejected) for reply in replies)
        left = len(allowed) - len(fitting)
        return _Changed(found=len(ids), retried=retried, failed=failed, left=left)


async def _with_room(
    connection: Connection[Record], ended: Sequence[changing.Ended]
) -> Sequence[NotificationId]:
    """Return those whose queues have room for more retries, as many as there is room for."""
    queues = sorted({each.queue for each in ended})
    rows = await connection.fetch(statement("retries_due"), queues, MAX_DUE_RETRIES)
    room = Counter({row["queue"]: MAX_DUE_RETRIES - row["count"] for row in rows})
    fitting: list[NotificationId] = []
    for each in ended:
        if room[each.queue] > 0:
            room[each.queue] -= 1
            fitting.append(each.id)
    return fitting


async def _written(
    connection: Connection[Record],
    name: str,
    ids: Sequence[NotificationId],
    write: Callable[[Sequence[NotificationId]], Awaitable[Sequence[object]]],
) -> Sequence[object]:
    """Write a part of a step; rows that Postgres rejects fail alone. Raises StoreUnavailable."""

    async def write_some(some: Sequence[NotificationId]) -> Sequence[object]:
        with translated():
            async with connection.transaction():  # a savepoint
                return await write(some)

    replies = await write_batch(name, ids, write_some)
    for reply in replies:
        if isinstance(reply, StoreUnavailable):
            raise reply
    return replies


def _selection_of(row: Record, operation: Operation) -> Filter:
    """Return the filter of the next step.

    What is being sent is found, too, if all that waits is to be cancelled: it may wait again.
    """
    selection = msgspec.json.decode(row["selection"], type=Filter)
    statuses = set(selection.status)
    if operation.kind is OperationKind.CANCEL and statuses == WAITING:
        statuses.add(Status.SENDING)
    until = (operation.created_at + CLOCKS_APART).timestamp()
    created_to = until if selection.created_to is None else min(selection.created_to, until)
    return replace(
        selection,
        status=tuple(sorted(statuses)),
        created_to=created_to,
        before=row["before"],
        limit=_step_size(operation.rate_per_s),
    )


def _step_size(rate_per_s: float | None) -> int:
    if rate_per_s is None:
        return MAX_CHANGED
    return max(1, min(MAX_CHANGED, int(rate_per_s * STEP_S)))


def _moved(
    row: Record, operation: Operation, changed: _Changed, before: UUID | None
) -> Sequence[object]:
    """Return the parameters of operation_moved.sql."""
    left, is_first = row["left_over"] + changed.left, not row["pass"]
    is_over = before is None and (not left or row["pass"] + 1 >= MAX_PASSES)
    done = len(changed.ids)
    wait_s = done / operation.rate_per_s if operation.rate_per_s else 0.0
    if before is None or (changed.left and not done):
        wait_s = max(wait_s, PASS_PAUSE_S)
    return (
        row["id"],
        OperationStatus.FINISHED if is_over else OperationStatus.RUNNING,
        row["matched"] + (changed.found if is_first else 0),
        row["done"] + done,
        row["failed"] + (changed.failed if is_first else 0),
        row["pass"] + (before is None),
        0 if before is None else left,
        before,
        changed.ids,
        wait_s,
        MAX_SAMPLE,
    )


@asynccontextmanager
async def open_operation_steps(
    settings: ConnectionSettings,
) -> AsyncIterator[PostgresOperationSteps]:
    """Steps of operations on a connection of their own."""
    async with open_connection(settings, SEARCH_SETTINGS) as connection:
        yield PostgresOperationSteps(connection)
