"""Migration 0021 runs beside the version before, whose statements are counted from then on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from harness.client import until
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.stats import open_stats
from tests.builders import new_id, worker_id
from tests.granted import ROLE
from tests.live_rows import SESSIONS_THAT_WAIT_FOR_A_LOCK
from tests.revisions import open_at_revision

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.live_rows import Connection

OLD_INSERT: Final = """
    WITH stored AS (
        INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata)
        VALUES ($1, now(), now() + interval '1 day', 'email.high', 'a@example.com', '{}', '{}')
        RETURNING *
    )
    INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, queue)
    SELECT id, created_at, created_at, created_at, expires_at, 2, 1, queue FROM stored"""
OLD_RECORD: Final = """
    WITH moved AS (DELETE FROM live WHERE id = $1 RETURNING id, claim)
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, provider,
                          outcome, code, detail, reference, tries)
    SELECT id, claim, $2, now() - interval '1 s', now(), 0.5, 'smtp', 'accepted', '', '', '', 1
    FROM moved"""
OLD_END: Final = """
    WITH ended AS (DELETE FROM live WHERE id = $1 RETURNING *)
    INSERT INTO ends (id, claim, status, queue, tries, first_at, at)
    SELECT id, claim, 'cancelled', queue, tries, created_at, clock_timestamp() FROM ended"""
OLD_RIGHTS: Final = f"""
    GRANT SELECT, INSERT, UPDATE, DELETE ON notifications, live, attempts, ends TO {ROLE};
    SET ROLE {ROLE}"""
SAID: Final = """
    SELECT sum(accepted) AS accepted, sum(sent) AS sent, sum(cancelled) AS cancelled
    FROM stats WHERE step = 'day'"""


@pytest.fixture
async def old(empty_database_url: str, app_role: str) -> AsyncIterator[Connection]:
    """A process of the version before: its role has rights on the tables of that time."""
    assert app_role == ROLE
    async with open_at_revision(empty_database_url, "0018") as connection:
        await connection.execute(OLD_RIGHTS)
        yield connection
        await connection.execute(f"RESET ROLE; DROP OWNED BY {ROLE}")


async def test_what_the_version_before_accepts_and_ends_is_counted_from_then_on(
    old: Connection, empty_database_url: str
) -> None:
    before, sent, cancelled = new_id(), new_id(), new_id()
    insert, record, end = [await old.prepare(sql) for sql in (OLD_INSERT, OLD_RECORD, OLD_END)]
    for id_ in (before, sent):
        await insert.fetch(id_)
    assert "0021" in await asyncio.to_thread(migrate, empty_database_url)
    await insert.fetch(cancelled)
    for id_ in (before, sent):
        await record.fetch(id_, worker_id())
    await end.fetch(cancelled)
    async with open_stats(ConnectionSettings(url=empty_database_url), {}) as (stats, _):
        assert (await stats.step(100)).changes == 4
    await old.execute("RESET ROLE")
    row = await old.fetchrow(SAID)
    assert row is not None
    assert tuple(row) == (1, 2, 1)


async def test_it_waits_for_a_long_statement_without_stopping_the_others(
    old: Connection, empty_database_url: str
) -> None:
    other, watcher = [await asyncpg.connect(empty_database_url) for _ in range(2)]
    transaction = other.transaction()
    await transaction.start()
    await other.execute("LOCK TABLE ends IN ROW EXCLUSIVE MODE")
    async with asyncio.TaskGroup() as group:
        migrating = group.create_task(
            asyncio.to_thread(migrate, empty_database_url), name="migrating"
        )
        await until(lambda: watcher.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK), bool)
        await old.execute("SET statement_timeout = '2s'")
        for _ in range(3):
            id_ = new_id()
            await old.execute(OLD_INSERT, id_)
            await old.execute(OLD_END, id_)
        assert not migrating.done()
        await transaction.commit()
    assert "0021" in migrating.result()
    for connection in (other, watcher):
        await connection.close()
