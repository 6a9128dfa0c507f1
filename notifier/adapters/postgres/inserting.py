"""The two statements that store accepted notifications, with and without idempotency keys."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from notifier.adapters.postgres.lookups import collapse_hash, count_hash, lookup_parts
from notifier.adapters.postgres.statements import Part, statement, statement_with
from notifier.domain.due import DueClass
from notifier.domain.errors import StoreConflict
from notifier.domain.fallbacks import FIRST_LOOK
from notifier.domain.notification import Status
from notifier.domain.recipient_caps import capped_recipient
from notifier.domain.turns import FIRST_TURN
from notifier.ports.broker import Pointer
from notifier.ports.store import KeyedInsert, KeyOwner

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.adapters.postgres.event_writing import EventWriting
    from notifier.adapters.postgres.lookups import LookupKey
    from notifier.domain.notification import (
        NewFallback,
        NewNotification,
        NotificationId,
        QueueKey,
    )

NO_DELAY: Final = timedelta(0)


class Places(NamedTuple):
    """Which notifications are stored in the class DIRECT, and the turns of those not in turn 0."""

    direct: Collection[NotificationId]
    turns: Mapping[NotificationId, int]


class NotedTurns:
    """The turns that this process has noted in the table `turns`. It never deletes any.

    It notes them again with each connection: Postgres may have lost them in a failover to a replica
    that was behind, and rows in a turn that is not noted would not be read.
    """

    def __init__(self) -> None:
        self._connection: Connection[Record] | None = None
        self._noted: set[tuple[QueueKey, int]] = set()

    async def note(
        self,
        connection: Connection[Record],
        items: Sequence[NewNotification],
        turns: Mapping[NotificationId, int],
    ) -> None:
        """Note the turns in which items will be stored, before they are."""
        if not turns:
            return
        if connection is not self._connection:
            self._connection, self._noted = connection, set()
        used = {(item.queue, turns[item.id]) for item in items if item.id in turns}
        new = used - self._noted
        if not new:
            return
        await connection.fetch(
            statement("turns_note"),
            [str(queue) for queue, _ in new],
            [turn for _, turn in new],
        )
        self._noted |= new


async def insert(
    connection: Connection[Record],
    items: Sequence[NewNotification],
    places: Places,
    key: LookupKey,
    events: EventWriting,
) -> Sequence[Pointer]:
    """Implements ports.store.AcceptStore.insert."""
    ordered = sorted(items, key=lambda item: item.id)
    parts = await _parts(connection, ordered, key, events)
    arrays = (*_arrays(ordered, places.direct), _turns(ordered, places))
    rows = await _fetch(connection, "insert", arrays, parts)
    return _pointers(items, places.direct, rows)


async def insert_waiting(
    connection: Connection[Record],
    items: Sequence[NewNotification],
    turns: Mapping[NotificationId, int],
    key: LookupKey,
) -> int:
    """Store notifications that a relay publishes, in a transaction of the caller.

    The turns must have been noted. Returns how many were not stored before.
    """
    ordered = sorted(items, key=lambda item: item.id)
    parts = await lookup_parts(connection, key, ordered)
    arrays = (*_arrays(ordered, ()), _turns(ordered, Places((), turns)))
    return len(await _fetch(connection, "insert", arrays, parts))


async def insert_keyed(
    connection: Connection[Record],
    items: Sequence[NewNotification],
    places: Places,
    key: LookupKey,
    events: EventWriting,
) -> KeyedInsert:
    """Implements ports.store.AcceptStore.insert_keyed."""
    ordered = sorted(items, key=lambda item: item.id)
    parts = await _parts(connection, ordered, key, events)
    arrays = (
        *_arrays(ordered, places.direct),
        [item.key and item.key.digest for item in ordered],
        [item.key and item.key.body for item in ordered],
        [item.status for item in ordered],
        _turns(ordered, places),
    )
    rows = await _fetch(connection, "insert_keyed", arrays, parts)
    stored = {row["id"] for row in rows}
    known = [item.key.digest for item in ordered if item.key and item.id not in stored]
    owners = await _owners(connection, known) if known else {}
    return KeyedInsert(_pointers(items, places.direct, rows), owners)


async def _parts(
    connection: Connection[Record],
    items: Sequence[NewNotification],
    key: LookupKey,
    events: EventWriting,
) -> Sequence[Part]:
    """Return the parts of the statement that these items need; mostly none."""
    parts = [*await lookup_parts(connection, key, items)]
    if suppressed := [item for item in items if item.suppressed is not None]:
        arrays = (
            [item.id for item in suppressed],
            [str(item.queue) for item in suppressed],
            [item.suppressed for item in suppressed],
        )
        parts += [Part("insert_suppressed", arrays), *events.parts("insert_suppressed")]
    if collapsing := [item for item in items if item.collapse_key and item.suppressed is None]:
        hasher = await key.hasher(connection)
        keys = [collapse_hash(hasher, item) for item in collapsing]
        parts.append(Part("insert_collapsing", ([item.id for item in collapsing], keys)))
    if counted := [item for item in items if item.is_counted]:
        hasher = await key.hasher(connection)
        hashes = [count_hash(hasher, capped_recipient(item)) for item in counted]
        parts.append(Part("insert_counted", ([item.id for item in counted], hashes)))
    if fallbacks := [(item, item.fallback) for item in items if item.fallback is not None]:
        parts.append(Part("insert_fallbacks", _fallback_arrays(fallbacks)))
    return parts


def _fallback_arrays(
    fallbacks: Sequence[tuple[NewNotification, NewFallback]],
) -> Sequence[object]:
    """Return the parameters $1 to $8 of insert_fallbacks.sql, in its order."""
    return (
        [item.id for item, _ in fallbacks],
        [fallback.channel for _, fallback in fallbacks],
        [fallback.submit for _, fallback in fallbacks],
        [" ".join(sorted(fallback.needs)) for _, fallback in fallbacks],
        [fallback.after for _, fallback in fallbacks],
        [item.delay or NO_DELAY for item, _ in fallbacks],
        [fallback.unless for _, fallback in fallbacks],
        FIRST_LOOK,
    )


async def _fetch(
    connection: Connection[Record],
    name: str,
    arrays: Sequence[Sequence[object]],
    parts: Sequence[Part],
) -> Sequence[Record]:
    values = [value for part in parts for value in part.values]
    return await connection.fetch(statement_with(name, len(arrays), parts), *arrays, *values)


async def key_owner(connection: Connection[Record], digest: UUID) -> KeyOwner | None:
    """Implements ports.store.AcceptStore.key_owner."""
    return (await _read_owners(connection, [digest])).get(digest)


async def _owners(connection: Connection[Record], keys: Sequence[UUID]) -> Mapping[UUID, KeyOwner]:
    owners = await _read_owners(connection, keys)
    if len(owners) < len(keys):
        msg = "the day of an idempotency key was dropped after its key was found"
        raise StoreConflict(msg)
    return owners


async def _read_owners(
    connection: Connection[Record], keys: Sequence[UUID]
) -> Mapping[UUID, KeyOwner]:
    rows = await connection.fetch(statement("key_owners"), keys)
    return {
        row["key"]: KeyOwner(row["id"], row["body"], Status(row["status"]), row["reason"])
        for row in rows
    }


def _arrays(
    ordered: Sequence[NewNotification], direct: Collection[NotificationId]
) -> Sequence[Sequence[object]]:
    """Return the arrays $1 to $14 of both statements, in their order."""
    tenants = [item.tenant for item in ordered]
    test_channels = [item.test_channel for item in ordered]
    tags, topics = [item.tag for item in ordered], [item.topic for item in ordered]
    return (
        [item.id for item in ordered],
        [str(item.queue) for item in ordered],
        [item.recipient for item in ordered],
        [item.content for item in ordered],
        [item.metadata for item in ordered],
        [item.max_tries for item in ordered],
        [item.delay or NO_DELAY for item in ordered],
        [item.ttl for item in ordered],
        [_class_of(item, direct) for item in ordered],
        [len(item.content) for item in ordered],
        # The driver needs long for each element, and most batches have none of these.
        *(names if any(names) else [] for names in (tenants, test_channels, tags, topics)),
    )


def _turns(ordered: Sequence[NewNotification], places: Places) -> Sequence[int]:
    """Return the last array of both statements."""
    return [places.turns.get(item.id, FIRST_TURN) for item in ordered] if places.turns else []


def _class_of(item: NewNotification, direct: Collection[NotificationId]) -> DueClass | None:
    """Return the class in which a notification waits; None if it may not be sent."""
    if item.suppressed is not None:
        return None
    return DueClass.DIRECT if item.id in direct else DueClass.FIRST


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
