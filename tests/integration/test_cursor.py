"""The cursors of a queue and the proofs of their floors, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.delivery.cursor import QueueCursor
from notifier.domain.due import DueClass
from notifier.domain.notification import NewNotification
from notifier.lifecycle import uptime_s
from notifier.ports.leases import Progress
from tests.builders import EMAIL_HIGH, a_notification, due_ranges, worker_id

LIMITS = dict.fromkeys(DueClass, 100)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
def cursor() -> QueueCursor:
    return QueueCursor(EMAIL_HIGH, Progress(), uptime_s())


async def run_pass(store: PostgresStore, cursor: QueueCursor) -> list[UUID]:
    """Run a pass; returns the ids that it published."""
    read = await store.read_due(cursor.ranges(LIMITS, 100, uptime_s()))
    batch = cursor.read(read.rows, read, uptime_s())
    cursor.settle(batch)
    return [row.position.id for row in batch.rows]


async def stored_later(
    connection: asyncpg.Connection[asyncpg.Record], store: PostgresStore
) -> NewNotification:
    """Store a notification in the transaction of a connection, which is left open."""
    new = a_notification(EMAIL_HIGH)
    await connection.execute(
        "INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, max_tries, "
        "queue) SELECT $1, now, now, now, now + interval '1 hour', 10, 1, 0, $2 FROM "
        "(SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL) clock",
        new.id,
        str(EMAIL_HIGH),
    )
    return new


async def test_a_row_that_commits_after_later_ones_is_published(
    store: PostgresStore, cursor: QueueCursor, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    slow = await stored_later(connection, store)
    fast = a_notification(EMAIL_HIGH)
    await store.insert([fast])
    assert await run_pass(store, cursor) == [fast.id]
    await transaction.commit()
    assert await run_pass(store, cursor) == [slow.id]
    assert await run_pass(store, cursor) == []


async def test_a_row_of_the_newest_transaction_is_published_though_a_delayed_one_was_read_before(
    store: PostgresStore, cursor: QueueCursor, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A snapshot ends at the newest transaction that has ended, below those still open."""
    delayed = a_notification(EMAIL_HIGH, delay=timedelta(seconds=0.2))
    await store.insert([delayed])
    transaction = connection.transaction()
    await transaction.start()
    slow = await stored_later(connection, store)
    while not await run_pass(store, cursor):
        await asyncio.sleep(0.05)
    await run_pass(store, cursor)
    await transaction.commit()
    await asyncio.sleep(0.1)
    assert await run_pass(store, cursor) == [slow.id]


async def test_the_numbers_of_a_read_bound_every_transaction_that_had_begun(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await store.insert([a_notification(EMAIL_HIGH)])
    async with connection.transaction():
        number = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
        read = await store.read_due(due_ranges(EMAIL_HIGH))
        assert len(read.rows) == 1
        assert read.next_transaction > number
        later = await store.read_due(due_ranges(EMAIL_HIGH))
        assert later.oldest_running <= number
    after = await store.read_due(due_ranges(EMAIL_HIGH))
    assert after.oldest_running >= read.next_transaction


async def test_reads_that_find_nothing_write_nothing(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    first = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
    for _ in range(3):
        assert (await store.read_due(due_ranges(EMAIL_HIGH))).rows == []
    assert await connection.fetchval("SELECT pg_current_xact_id()::text::bigint") == first + 1
