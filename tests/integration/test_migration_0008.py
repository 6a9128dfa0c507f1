"""Migration 0008 runs beside the version before, also while that is under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.reader import open_reader
from tests.builders import new_id, worker_id
from tests.revisions import all_from, open_at_revision

OLD_NOTIFICATION: Final = """
    INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata)
    VALUES ($1, now(), now() + interval '1 day', 'email.high', 'ada@example.com', '{}', '{}')"""
OLD_ATTEMPT: Final = """
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, provider,
                          outcome, code, detail, reference, tries)
    VALUES ($1, 1, $2, now(), now(), 0, 'twilio', 'refused', '400 21211', '', '', 1)"""
FILES: Final = "SELECT pg_relation_filenode(inhrelid) FROM pg_inherits ORDER BY inhrelid"


@pytest.fixture
async def old(empty_database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to a database at revision 0007."""
    async with open_at_revision(empty_database_url, "0007") as connection:
        yield connection


async def test_the_version_before_records_before_and_after_and_no_row_is_rewritten(
    old: asyncpg.Connection[asyncpg.Record], empty_database_url: str
) -> None:
    notification = await old.prepare(OLD_NOTIFICATION)
    attempt = await old.prepare(OLD_ATTEMPT)
    ids = [new_id(), new_id()]
    await notification.fetch(ids[0])
    await attempt.fetch(ids[0], worker_id())
    files = await old.fetch(FILES)
    assert await asyncio.to_thread(migrate, empty_database_url) == all_from("0008")
    assert (await old.fetch(FILES))[: len(files)] == files
    await notification.fetch(ids[1])
    await attempt.fetch(ids[1], worker_id())
    async with open_reader(ConnectionSettings(url=empty_database_url)) as reader:
        for id_ in ids:
            view = await reader.get(id_)
            assert view is not None
            assert [(each.code, each.http_status) for each in view.attempts] == [
                ("400 21211", None)
            ]


async def test_it_waits_for_a_long_statement_without_stopping_the_others(
    old: asyncpg.Connection[asyncpg.Record], empty_database_url: str
) -> None:
    other = await asyncpg.connect(empty_database_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("LOCK TABLE attempts IN ROW EXCLUSIVE MODE")
    async with asyncio.TaskGroup() as group:
        migrating = group.create_task(
            asyncio.to_thread(migrate, empty_database_url), name="migrating"
        )
        await is_waited_for(old)
        await old.execute("SET statement_timeout = '2s'")
        for _ in range(3):
            await old.fetch(OLD_ATTEMPT, new_id(), worker_id())
        assert not migrating.done()
        await transaction.commit()
    assert migrating.result() == all_from("0008")
    await other.close()


async def is_waited_for(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Return when the migration waits for a lock of `attempts`."""
    waiting = """SELECT EXISTS (SELECT FROM pg_locks
                 WHERE relation = 'attempts'::regclass AND mode = 'AccessExclusiveLock'
                   AND NOT granted)"""
    while not await connection.fetchval(waiting):
        await asyncio.sleep(0.01)
