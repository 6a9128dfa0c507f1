"""Reads and changes the rows of a notification by plain SQL, as another process would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.statements import statement
from notifier.domain.notification import Claimed
from notifier.ports.store import ClaimRequest, Orphan, OrphanDecision
from tests.builders import claim_request, due_ranges, row_pointer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    import asyncpg

    from notifier.adapters.postgres.store import PostgresStore
    from notifier.domain.notification import NewNotification, Status, WorkerId
    from notifier.ports.broker import Pointer
    from notifier.ports.store import ExpiredRow

    Connection = asyncpg.Connection[asyncpg.Record]

DAYS: Final = """
    SELECT array_agg(right(c.relname, 8) ORDER BY c.relname)
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = $1::text::regclass
"""
"""The days that the table $1 has a partition for, the oldest first."""
SESSIONS_THAT_WAIT_FOR_A_LOCK: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def cancel_by(connection: Connection, *ids: UUID) -> Sequence[UUID]:
    """Cancel what waits; return the ids of what was cancelled."""
    return [row["id"] for row in await connection.fetch(statement("cancel"), ids, None)]


async def retry_by(connection: Connection, *ids: UUID) -> Sequence[UUID]:
    """Have notifications that ended sent again; return the ids of those."""
    rows = await connection.fetch(statement("retry"), ids, min(ids), max(ids), None, None)
    return [row["id"] for row in rows]


async def published(store: PostgresStore, *items: NewNotification) -> Sequence[Pointer]:
    """Store notifications; return the pointers of those that are due, in the order of the queue."""
    await store.insert(items)
    return await due(store)


async def due(store: PostgresStore) -> Sequence[Pointer]:
    """Return the pointers of all rows that are due and unclaimed."""
    read = await store.read_due(due_ranges())
    return [row_pointer(row) for row in read.rows if row.claimed_by is None]


async def claimed(store: PostgresStore, *items: NewNotification) -> Sequence[Claimed]:
    """Store notifications and claim what is due."""
    return await claim_all(store, await published(store, *items))


async def claim_all(store: PostgresStore, pointers: Sequence[Pointer]) -> Sequence[Claimed]:
    """Claim rows; return those that were claimed."""
    if not pointers:
        return []
    replies = await store.claim([claim_request(pointer) for pointer in pointers])
    return [reply for reply in replies if isinstance(reply, Claimed)]


async def claim_new(store: PostgresStore, item: NewNotification) -> Claimed:
    """Claim a notification for the first time."""
    (claimed,) = await store.claim([ClaimRequest(id=item.id, claim=0)])
    assert isinstance(claimed, Claimed)
    return claimed


def decision(
    row: Claimed, worker: WorkerId, status: Status, reason: str = "", *, deaths: int = 0
) -> OrphanDecision:
    """Return a decision for a row that a dead worker has claimed."""
    orphan = Orphan(id=row.id, claim=row.claim, worker=worker, queue=row.queue, deaths=deaths)
    return OrphanDecision(orphan=orphan, provider="smtp", status=status, reason=reason)


async def live_row(connection: Connection, id_: UUID) -> asyncpg.Record | None:
    return await connection.fetchrow("SELECT * FROM live WHERE id = $1", id_)


async def end_of(connection: Connection, id_: UUID) -> asyncpg.Record | None:
    return await connection.fetchrow("SELECT * FROM ends WHERE id = $1", id_)


async def attempts_of(connection: Connection, id_: UUID) -> Sequence[tuple[int, str, bool]]:
    """Return claim, outcome and whether it was late, of each attempt."""
    rows = await connection.fetch(
        "SELECT claim, outcome, late FROM attempts WHERE id = $1 ORDER BY claim", id_
    )
    return [(row["claim"], row["outcome"], row["late"]) for row in rows]


async def sweep(store: PostgresStore) -> Sequence[ExpiredRow]:
    """Expire the rows whose time is over, as the sweeper does."""
    return await store.sweep(await store.find_expired())


async def sweep_by(connection: Connection) -> int:
    """Run the sweeper's statements on this connection; return how many rows they ended."""
    found = await connection.fetch(statement("find_expired"), 5000)
    return len(await connection.fetch(statement("sweep"), [row["id"] for row in found]))
