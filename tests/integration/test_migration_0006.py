"""Migration 0006 runs beside the version before, also while that is under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.notification import Claimed, Status
from tests.builders import (
    a_notification,
    a_result,
    claim_request,
    due_ranges,
    new_id,
    row_pointer,
    worker_id,
)
from tests.revisions import all_from, open_at_revision

OLD_INSERT: Final = """
    WITH stored AS (
        INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata)
        VALUES ($1, now(), now() + interval '1 day', 'email.high', 'a@example.com', '{}', '{}')
        RETURNING *
    )
    INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, queue)
    SELECT id, created_at, created_at, created_at, expires_at, 2, 1, queue FROM stored"""
OLD_CLAIM: Final = """
    UPDATE live l SET claim = l.claim + 1, claimed_by = $1, claimed_at = now()
    WHERE claimed_by = '00000000-0000-0000-0000-000000000000'
    RETURNING l.id, l.claim, l.queue, l.tries, l.max_tries, l.ready_at"""
OLD_RETRY: Final = """
    UPDATE live l SET claimed_by = '00000000-0000-0000-0000-000000000000', class = 2,
        due_at = now(), ready_at = now(), tries = least(l.tries::integer + 1, 32767)
    RETURNING l.id, l.claim, l.tries"""


@pytest.fixture
async def old(empty_database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to a database at revision 0005."""
    async with open_at_revision(empty_database_url, "0005") as connection:
        yield connection


@pytest.fixture
async def store(empty_database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=empty_database_url), worker_id()) as store:
        yield store


async def test_the_statements_of_the_version_before_work_before_and_after(
    old: asyncpg.Connection[asyncpg.Record], store: PostgresStore, empty_database_url: str
) -> None:
    await old.execute(OLD_INSERT, new_id())
    claim, retry = await old.prepare(OLD_CLAIM), await old.prepare(OLD_RETRY)
    await claim.fetch(worker_id())
    await retry.fetch()
    assert await asyncio.to_thread(migrate, empty_database_url) == all_from("0006")
    assert len(await claim.fetch(worker_id())) == 1
    [row] = await retry.fetch()
    assert row["tries"] == 2
    await store.insert([a_notification()])
    counts = await old.fetch("SELECT deferrals, unspent, ambiguous FROM live")
    assert [tuple(row) for row in counts] == [(0, 0, 0), (0, 0, 0)]


async def test_it_waits_for_a_long_statement_without_stopping_the_others(
    old: asyncpg.Connection[asyncpg.Record], empty_database_url: str
) -> None:
    other = await asyncpg.connect(empty_database_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("LOCK TABLE live IN ROW EXCLUSIVE MODE")
    async with asyncio.TaskGroup() as group:
        migrating = group.create_task(
            asyncio.to_thread(migrate, empty_database_url), name="migrating"
        )
        await is_waited_for(old)
        await old.execute("SET statement_timeout = '2s'")
        for _ in range(3):
            await old.execute(OLD_INSERT, new_id())
            await old.fetch(OLD_CLAIM, worker_id())
        assert not migrating.done()
        await transaction.commit()
    assert migrating.result() == all_from("0006")
    await other.close()


async def test_each_attempt_without_a_try_is_counted_by_its_kind(
    old: asyncpg.Connection[asyncpg.Record], store: PostgresStore, empty_database_url: str
) -> None:
    await asyncio.to_thread(migrate, empty_database_url)
    await store.insert([a_notification()])
    outcomes = ["deferred", "throttled", "misconfigured", "unavailable", "deferred", "ambiguous"]
    for outcome in outcomes:
        read = await store.read_due(due_ranges())
        [row] = await store.claim([claim_request(row_pointer(row)) for row in read.rows])
        assert isinstance(row, Claimed)
        spends = outcome == "ambiguous"
        await store.record([a_result(row, Status.RETRYING, outcome=outcome, spends=spends)])
    [counts] = await old.fetch("SELECT tries, deferrals, unspent, ambiguous FROM live")
    assert tuple(counts) == (1, 2, 3, 1)


async def is_waited_for(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Return when the migration waits for a lock of `live`."""
    waiting = """SELECT EXISTS (SELECT FROM pg_locks
                 WHERE relation = 'live'::regclass AND mode = 'AccessExclusiveLock'
                   AND NOT granted)"""
    while not await connection.fetchval(waiting):
        await asyncio.sleep(0.01)
