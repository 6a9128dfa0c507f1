"""The steps of an erasure.

The first pass begins when all transactions have ended that ran when the erasure was made, and then
sees everything that it concerns. What is being sent meanwhile is noted, and erased by later passes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from notifier.adapters.postgres import erasing
from notifier.adapters.postgres.erasing import Erased, FoundRows, Scope
from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.operations import MAX_SAMPLE, add_finished, operation_of
from notifier.adapters.postgres.statements import statement
from notifier.domain.erasure import Erasure
from notifier.domain.operations import OperationStatus
from notifier.ports.operations import Step
from notifier.ports.queries import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Connection, Record

    from notifier.adapters.postgres.event_writing import EventWriting
    from notifier.adapters.postgres.lookups import LookupKey
    from notifier.domain.lookups import LookupHasher
    from notifier.domain.notification import NotificationId
    from notifier.domain.operations import Operation

LONGEST_TRANSACTION_S: Final = 20.0
CLOCKS_APART: Final = timedelta(minutes=10)
"""How far the clock of a process, from which ids are made, may be ahead of Postgres's."""
REVISIT_S: Final = 1.0
"""How long an erasure waits for what is being sent, and for transactions."""
_NONE: Final = Erased((), (), ())


class _Found(NamedTuple):
    """What a step concerns. `left`: what the pass noted before and does not look at in this step.

    `is_begun` is false while transactions run whose notifications would be missed.
    """

    rows: FoundRows
    left: Sequence[NotificationId]
    is_begun: bool = True


class _Progress(NamedTuple):
    """What a step did. `is_left`: something is left for a later pass."""

    found: _Found
    erased: Erased
    is_scanning: bool
    is_left: bool


async def has_settled(connection: Connection[Record], row: Record) -> bool:
    """Return whether every transaction has ended that ran when an operation was stored."""
    settled: bool = await connection.fetchval(
        statement("operation_settled"), str(row["xid"]), row["created_at"], LONGEST_TRANSACTION_S
    )
    return settled


async def erase_step(
    connection: Connection[Record],
    key: LookupKey,
    row: Record,
    operation: Operation,
    events: EventWriting,
) -> Step | None:
    """Take a step of an erasure that this process has taken; None if it lost it."""
    erasure = msgspec.json.decode(row["selection"], type=Erasure)
    scope = Scope(erasure, View(operation.tenant, operation.mode))
    hasher = await key.hasher(connection)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await _find(connection, hasher, scope, row)
    async with connection.transaction():
        held = await connection.fetch(statement("operation_hold"), operation.id, row["next_at"])
        if not held:  # it was stopped, or this process was slow and another one took it
            return None
        erased = _NONE
        if found.is_begun:
            if _is_first(row):
                await erasing.erase_elsewhere(connection, hasher, scope, operation)
            erased = await erasing.erase(connection, hasher, found.rows.ids, operation, events)
        left = [*found.left, *erased.left]
        await connection.execute(statement("erase_left"), operation.id, left)
        is_scanning = not found.is_begun or found.rows.before is not None
        has_blobs = not is_scanning and await erasing.remove_blobs(connection, operation)
        progress = _Progress(
            found, erased, is_scanning=is_scanning, is_left=bool(left) or has_blobs
        )
        (moved,) = await connection.fetch(statement("operation_moved"), *_moved(row, progress))
        step = Step(operation_of(moved), erased.ended, 0)
        if step.operation.status is not OperationStatus.RUNNING:
            await add_finished(events, connection, step.operation)
    return step


def _is_first(row: Record) -> bool:
    return not row["pass"] and row["before"] is None


async def _find(
    connection: Connection[Record], hasher: LookupHasher, scope: Scope, row: Record
) -> _Found:
    if row["pass"]:
        ids, left = row["ids"][: erasing.MAX_ERASED], row["ids"][erasing.MAX_ERASED :]
        return _Found(FoundRows(ids, None), left)
    if _is_first(row) and not await has_settled(connection, row):
        return _Found(FoundRows((), None), row["ids"], is_begun=False)
    until = (row["created_at"] + CLOCKS_APART).timestamp()
    _, greatest = id_bounds(None, until, row["before"])
    found = await erasing.find_of_recipient(connection, hasher, scope, greatest)
    return _Found(found, row["ids"])


def _moved(row: Record, progress: _Progress) -> Sequence[object]:
    """Return the parameters of operation_moved.sql."""
    found, erased = progress.found, progress.erased
    is_over = not progress.is_scanning and not progress.is_left
    done = row["done"] + len(erased.ids)
    matched = row["matched"] + (0 if row["pass"] else len(erased.ids) + len(erased.left))
    waits = not is_over and not (progress.is_scanning and found.is_begun)
    return (
        row["id"],
        OperationStatus.FINISHED if is_over else OperationStatus.RUNNING,
        max(matched, done),
        done,
        0,
        row["pass"] if progress.is_scanning else row["pass"] + 1,
        0,
        found.rows.before if progress.is_scanning else None,
        erased.ids,
        REVISIT_S if waits else 0.0,
        MAX_SAMPLE,
    )
