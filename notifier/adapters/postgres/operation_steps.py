"""Carries operations out in steps.

A step takes an operation for a while, finds a few hundred notifications in one snapshot, the newest
first, and in one transaction changes them and notes how far it came. An operation makes passes over
what its filter finds, until one finds nothing that it concerns: a notification that was being sent
may wait again, a queue that had enough retries may have room for more, and what was being stored
when the operation was made can be seen later.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from notifier.adapters.postgres import changing
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.erase_steps import CLOCKS_APART, erase_step, has_settled
from notifier.adapters.postgres.errors import translated
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.finding import SEARCH_SETTINGS
from notifier.adapters.postgres.lookups import LookupKey
from notifier.adapters.postgres.operations import (
    MAX_SAMPLE,
    SELECTION_VERSION,
    add_finished,
    operation_of,
)
from notifier.adapters.postgres.scrubbing import PostgresScrubbing
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
MAX_CHANGED: Final = 250
"""Notifications of one step."""
MAX_DUE_RETRIES: Final = 500
"""A queue with so many retries that are due gets no more: they would stand before its own."""
STEP_S: Final = 0.5
"""A step changes at most what the rate allows for so long, but one at least."""
PASS_PAUSE_S: Final = 1.0
MAX_PASSES: Final = 600
"""After so many a cancel ends although some notifications are still being sent."""
TAKEN_S: Final = 10.0
"""For how long a process has an operation to itself: longer than a step takes."""
MAX_STEPS: Final = 30
"""An operation fails when so many steps in a row were not stored."""
# A process that freezes within a step holds up claims of the rows that it has locked.
_SESSION: Final = {**SEARCH_SETTINGS, "idle_in_transaction_session_timeout": "1000"}


class _Page(NamedTuple):
    """What a search found, the newest first, and whether it saw all the operation may concern."""

    ids: Sequence[NotificationId]
    before: UUID | None
    is_settled: bool


class _Changed(NamedTuple):
    """What one step did. It concerns those that it changed, and `left` that it could not.

    `before` is where the next step begins; None: the pass is over.
    """

    before: UUID | None
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

    def __init__(self, connection: PostgresConnection, events: EventWriting = WRITE_EVENTS) -> None:
        self._connection = connection
        self._events = events
        self._key = LookupKey()
        self.contents = PostgresScrubbing(connection)
        """Removes the contents of what has been final for long enough."""

    async def step(self) -> Step | None:
        async with self._connection.acquire() as connection:
            row = await connection.fetchrow(
                statement("operation_take"), TAKEN_S, SELECTION_VERSION, list(OperationKind)
            )
            if row is None:
                return None
            if row["steps"] > MAX_STEPS:
                return await self._fail(connection, row)
            operation = operation_of(row)
            if operation.kind is OperationKind.ERASE:
                return await erase_step(connection, self._key, row, operation, self._events)
            page = await self._search(connection, row, operation)
            return await self._store(connection, row, operation, page)

    async def _fail(self, connection: Connection[Record], row: Record) -> Step | None:
        async with connection.transaction():
            failed = await connection.fetchrow(
                statement("operation_failed"), row["id"], OperationStatus.FAILED
            )
            if failed is None:
                return None
            step = Step(operation_of(failed), (), 0)
            await add_finished(self._events, connection, step.operation)
        return step

    async def _search(
        self, connection: Connection[Record], row: Record, operation: Operation
    ) -> _Page:
        selection = _selection_of(row, operation)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            is_settled = await has_settled(connection, row)
            page = await changing.find_page(connection, self._key, selection, row["ids"])
        return _Page(page.ids, page.before, is_settled)

    async def _store(
        self, connection: Connection[Record], row: Record, operation: Operation, page: _Page
    ) -> Step | None:
        async with connection.transaction():
            held = await connection.fetch(statement("operation_hold"), operation.id, row["next_at"])
            if not held:  # it was stopped, or this process was slow and another one took it
                return None
            changed = await self._change(connection, operation, page)
            (moved,) = await connection.fetch(
                statement("operation_moved"),
                *_moved(row, operation, changed, is_settled=page.is_settled),
            )
            step = Step(operation_of(moved), changed.ended, len(changed.retried))
            if step.operation.status is not OperationStatus.RUNNING:
                await add_finished(self._events, connection, step.operation)
        return step

    async def _change(
        self, connection: Connection[Record], operation: Operation, page: _Page
    ) -> _Changed:
        if not page.ids:
            return _Changed(page.before)
        if operation.kind is OperationKind.CANCEL:
            return await self._cancel(connection, operation, page)
        return await self._retry(connection, operation, page)

    async def _cancel(
        self, connection: Connection[Record], operation: Operation, page: _Page
    ) -> _Changed:
        async def write(some: Sequence[NotificationId]) -> Sequence[ExpiredRow | None]:
            rows = await changing.cancel(
                connection, some, accepted_by=operation.created_at, events=self._events
            )
            by_id = {row.id: row for row in rows}
            return [by_id.get(id_) for id_ in some]

        size = _step_size(operation.rate_per_s)
        ids, has_more = sorted(page.ids[:size]), len(page.ids) > size
        replies = await _written(connection, "cancel", ids, write)
        ended = [reply for reply in replies if isinstance(reply, ExpiredRow)]
        failed = sum(isinstance(reply, StoreRejected) for reply in replies)
        remaining = [id_ for id_, reply in zip(ids, replies, strict=True) if reply is None]
        left = 0
        if remaining:
            left = await changing.count_left(connection, remaining, operation.created_at)
        return _Changed(
            ids[0] if has_more else page.before,
            found=len(ended) + left + failed,
            ended=ended,
            failed=failed,
            left=left,
        )

    async def _retry(
        self, connection: Connection[Record], operation: Operation, page: _Page
    ) -> _Changed:
        await changing.expire(connection, page.ids, self._events)
        ended = await changing.read_ended(connection, page.ids, ended_by=operation.created_at)
        stored = [each for each in ended if each.has_content]
        allowed = await changing.without_suppressed(connection, self._key, stored)
        size = _step_size(operation.rate_per_s)
        fitting, examined = await _with_room(connection, allowed, size)

        async def write(some: Sequence[NotificationId]) -> Sequence[NotificationId | None]:
            retried = set(
                await changing.retry(
                    connection, some, ended_by=operation.created_at, operation=operation.id
                )
            )
            return [id_ if id_ in retried else None for id_ in some]

        fitting = sorted(fitting)
        replies = await _written(connection, "retry", fitting, write) if fitting else []
        retried = [id_ for id_, reply in zip(fitting, replies, strict=True) if reply == id_]
        failed = sum(isinstance(reply, StoreRejected) for reply in replies)
        cut_at = allowed[examined - 1].id if examined < len(allowed) else None
        return _Changed(
            cut_at or page.before,
            found=sum(cut_at is None or each.id >= cut_at for each in ended),
            retried=retried,
            failed=failed,
            left=examined - len(fitting),
        )


async def _with_room(
    connection: Connection[Record], ended: Sequence[changing.Ended], size: int
) -> tuple[Sequence[NotificationId], int]:
    """Return up to `size` of those whose queues have room for more retries.

    And how many of `ended`, which are the newest first, were looked at for it.
    """
    queues = sorted({each.queue for each in ended})
    rows = await connection.fetch(statement("retries_due"), queues, MAX_DUE_RETRIES)
    room = Counter({row["queue"]: MAX_DUE_RETRIES - row["count"] for row in rows})
    fitting: list[NotificationId] = []
    for examined, each in enumerate(ended):
        if len(fitting) == size:
            return fitting, examined
        if room[each.queue] > 0:
            room[each.queue] -= 1
            fitting.append(each.id)
    return fitting, len(ended)


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
        limit=MAX_CHANGED,
    )


def _step_size(rate_per_s: float | None) -> int:
    if rate_per_s is None:
        return MAX_CHANGED
    return max(1, min(MAX_CHANGED, int(rate_per_s * STEP_S)))


def _moved(
    row: Record, operation: Operation, changed: _Changed, *, is_settled: bool
) -> Sequence[object]:
    """Return the parameters of operation_moved.sql."""
    done, is_pass_over = len(changed.ids), changed.before is None
    concerned = row["found"] + done + changed.left
    is_over = is_pass_over and is_settled and not concerned
    if operation.kind is OperationKind.CANCEL and row["pass"] >= MAX_PASSES:
        is_over = True
    wait_s = done / operation.rate_per_s if operation.rate_per_s else 0.0
    if is_pass_over and not is_over:
        wait_s = max(wait_s, PASS_PAUSE_S)
    is_first, total = not row["pass"], row["done"] + done
    failed = row["failed"] + (changed.failed if is_first else 0)
    return (
        row["id"],
        OperationStatus.FINISHED if is_over else OperationStatus.RUNNING,
        max(row["matched"] + (changed.found if is_first else 0), total + failed),
        total,
        failed,
        row["pass"] + is_pass_over,
        0 if is_pass_over else concerned,
        changed.before,
        changed.ids,
        wait_s,
        MAX_SAMPLE,
    )


@asynccontextmanager
async def open_operation_steps(
    settings: ConnectionSettings, *, events: EventWriting = WRITE_EVENTS
) -> AsyncIterator[PostgresOperationSteps]:
    """Steps of operations on a connection of their own."""
    async with open_connection(settings, _SESSION) as connection:
        yield PostgresOperationSteps(connection, events)
