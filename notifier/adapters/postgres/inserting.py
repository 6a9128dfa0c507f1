"""The two statements that store accepted notifications, with and without idempotency keys."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.statements import statement
from notifier.domain.due import DueClass
from notifier.domain.errors import StoreConflict
from notifier.domain.notification import Status
from notifier.ports.broker import Pointer
from notifier.ports.store import KeyedInsert, KeyOwner

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.notification import NewNotification, NotificationId

NO_DELAY: Final = timedelta(0)


async def insert(
    connection: Connection[Record],
    items: Sequence[NewNotification],
    direct: Collection[NotificationId],
) -> Sequence[Pointer]:
    """Implements ports.store.AcceptStore.insert."""
    ordered = sorted(items, key=lambda item: item.id)
    rows = await connection.fetch(statement("insert"), *_arrays(ordered, direct))
    return _pointers(items, direct, rows)


async def insert_keyed(
    connection: Connection[Record],
    items: Sequence[NewNotification],
    direct: Collection[NotificationId],
) -> KeyedInsert:
    """Implements ports.store.AcceptStore.insert_keyed."""
    ordered = sorted(items, key=lambda item: item.id)
    rows = await connection.fetch(
        statement("insert_keyed"),
        *_arrays(ordered, direct),
        [item.key and item.key.digest for item in ordered],
        [item.key and item.key.body for item in ordered],
        [item.status for item in ordered],
    )
    stored = {row["id"] for row in rows}
    known = [item.key.digest for item in ordered if item.key and item.id not in stored]
    owners = await _owners(connection, known) if known else {}
    return KeyedInsert(_pointers(items, direct, rows), owners)


async def _owners(connection: Connection[Record], keys: Sequence[UUID]) -> Mapping[UUID, KeyOwner]:
    rows = await connection.fetch(statement("key_owners"), keys)
    if len(rows) < len(keys):
        msg = "the day of an idempotency key was dropped after its key was found"
        raise StoreConflict(msg)
    return {row["key"]: KeyOwner(row["id"], row["body"], Status(row["status"])) for row in rows}


def _arrays(
    ordered: Sequence[NewNotification], direct: Collection[NotificationId]
) -> Sequence[Sequence[object]]:
    """Return the arrays $1 to $12 of both statements, in their order."""
    tenants = [item.tenant for item in ordered]
    test_channels = [item.test_channel for item in ordered]
    return (
        [item.id for item in ordered],
        [str(item.queue) for item in ordered],
        [item.recipient for item in ordered],
        [item.content for item in ordered],
        [item.metadata for item in ordered],
        [item.max_tries for item in ordered],
        [item.delay or NO_DELAY for item in ordered],
        [item.ttl for item in ordered],
        [DueClass.DIRECT if item.id in direct else DueClass.FIRST for item in ordered],
        [len(item.content) for item in ordered],
        # The driver needs long for each element, and most batches have neither.
        *(names if any(names) else [] for names in (tenants, test_channels)),
    )


def _pointers(
    items: Sequence[NewNotification], direct: Collection[NotificationId], rows: Sequence[Record]
) -> Sequence[Pointer]:
    """Return the pointers of the items in `direct` that a statement stored."""
    stored_at = {row["id"]: row["now"] for row in rows}
    return [
        Pointer(
            queue=item.queue,
            id=item.id,
            claim=0,
            published_at=stored_at[item.id],
            size=len(item.content),
        )
        for item in items
        if item.id in direct and item.id in stored_at
    ]
