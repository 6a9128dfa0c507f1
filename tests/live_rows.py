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

CANCEL: Final = """
    WITH found AS MATERIALIZED (
        SELECT id FROM live WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE
    ), ended AS (
        DELETE FROM live
        WHERE id = ANY (ARRAY(SELECT id FROM found))
          AND claimed_by = '00000000-0000-0000-0000-000000000000'
        RETURNING id, claim, queue, tries, created_at
    )
    INSERT INTO ends (id, claim, status, queue, tries, first_at, at)
    SELECT id, claim, 'cancelled', queue, tries, created_at, now() FROM ended
    RETURNING id
"""
"""Cancels the notifications of $1 that wait; returns the ids of those."""
RETRY: Final = """
    WITH clock AS MATERIALIZED (
        SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
    ), ended AS (
        DELETE FROM ends WHERE id = ANY ($1::uuid[]) RETURNING id, claim
    )
    INSERT INTO live (id, created_at, due_at, ready_at, expires_at, claim, size, class, max_tries,
                      queue)
    SELECT e.id, n.created_at, (SELECT now FROM clock), (SELECT now FROM clock),
           now() + interval '1 hour', e.claim + 1, octet_length(n.content), 2,
           coalesce(n.max_tries, 0), n.queue
    FROM ended e JOIN notifications n ON n.id = e.id
    RETURNING id
"""
"""Sends the notifications of $1 again that have ended; returns the ids of those."""
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
