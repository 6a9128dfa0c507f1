"""Migration 0007 runs beside the version before, also while that is under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.store import PostgresStore, open_store
from tests.builders import a_notification, new_id, worker_id
from tests.revisions import all_from, open_at_revision

OLD_INSERT: Final = """
    INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata)
    VALUES ($1, now(), now() + interval '1 day', 'email.high', 'ada@example.com', '{}', '{}')"""
FIRST_FILES: Final = "SELECT pg_relation_filenode(inhrelid) FROM pg_inherits ORDER BY inhrelid"


@pytest.fixture
async def old(empty_database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to a database at revision 0006."""
    async with open_at_revision(empty_database_url, "0006") as connection:
        yield connection


@pytest.fixture
async def store(empty_database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=empty_database_url), worker_id()) as store:
        yield store


async def test_the_version_before_stores_before_and_after_and_no_row_is_rewritten(
    old: asyncpg.Connection[asyncpg.Record], store: PostgresStore, empty_database_url: str
) -> None:
    insert = await old.prepare(OLD_INSERT)
    await insert.fetch(new_id())
    files = await old.fetch(FIRST_FILES)
    assert await asyncio.to_thread(migrate, empty_database_url) == all_from("0007")
    assert (await old.fetch(FIRST_FILES))[: len(files)] == files
    await insert.fetch(new_id())
    await store.insert([a_notification()])
    rows = await old.fetch("SELECT tenant, test_channel FROM notifications")
    assert [tuple(row) for row in rows] == [("", "")] * 3


async def test_it_waits_for_a_long_statement_without_stopping_the_others(
    old: asyncpg.Connection[asyncpg.Record], empty_database_url: str
) -> None:
    other = await asyncpg.connect(empty_database_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("LOCK TABLE notifications IN ROW EXCLUSIVE MODE")
    async with asyncio.TaskGroup() as group:
        migrating = group.create_task(
            asyncio.to_thread(migrate, empty_database_url), name="migrating"
        )
        await is_waited_for(old)
        await old.execute("SET statement_timeout = '2s'")
        for _ in range(3):
            await old.fetch(OLD_INSERT, new_id())
        assert not migrating.done()
        await transaction.commit()
    assert migrating.result() == all_from("0007")
    await other.close()


async def is_waited_for(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Return when the migration waits for a lock of `notifications`."""
    waiting = """SELECT EXISTS (SELECT FROM pg_locks
                 WHERE relation = 'notifications'::regclass AND mode = 'AccessExclusiveLock'
                   AND NOT granted)"""
    while not await connection.fetchval(waiting):
        await asyncio.sleep(0.01)
