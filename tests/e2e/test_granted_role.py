"""The grants of docs/deploy.md are enough: one role owns the tables, the processes use another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from harness.client import Client, orders
from harness.system import System, running_system, urls
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.notification import NotificationId, Status
from notifier.ports.store import Orphan, OrphanDecision
from tests.builders import a_key, a_notification, claim_request, due_ranges, row_pointer, worker_id

NUMBER: Final = 90


@pytest.fixture
async def system(system_folder: Path, app_url: str, vhost_url: str) -> AsyncIterator[System]:
    with running_system(system_folder, urls(app_url, vhost_url)) as system:
        yield system


@pytest.fixture
async def connection(app_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(app_url)
    yield connection
    await connection.close()


@pytest.fixture
async def store(app_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=app_url), worker_id()) as store:
        yield store


async def test_all_is_sent_and_held_back_and_doctor_misses_nothing(
    system: System, client: Client
) -> None:
    system.start_all()
    ids = await client.submit(orders(NUMBER))
    assert await client.all_final(ids) == {"sent": NUMBER}
    await client.hold("pause", "queue", "email.low")
    await client.hold("resume", "queue", "email.low")
    said = system.run("doctor", "--json")
    assert (said.returncode, said.stderr) == (0, "")
    assert [row for row in json.loads(said.stdout) if row["status"] != "ok"] == []


async def test_days_are_made_and_dropped_and_what_a_dead_worker_had_claimed_is_due_again(
    store: PostgresStore,
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    assert await store.drop_day(yesterday) == "dropped"
    assert await store.ensure_days() == 1
    await store.insert([a_notification()])
    (row,) = (await store.look(due_ranges())).rows
    await store.claim([claim_request(row_pointer(row))])
    orphan = Orphan(
        id=NotificationId(row.position.id),
        claim=row.claim + 1,
        worker=store.worker,
        queue=row.queue,
        deaths=0,
    )
    decision = OrphanDecision(orphan=orphan, provider="smtp", status=Status.QUEUED, reason="")
    assert len(await store.settle_orphans([decision], [])) == 1
    await store.forget_processes()
    await store.prune_audit(timedelta(days=365))
    for _ in range(2):
        await store.insert_keyed([a_notification(key=a_key())])
    assert await store.drop_keys(1) == 0
    assert await store.drop_events(1) == 0
    await store.note_lost([])


async def test_the_role_has_every_table_of_ours_and_may_make_or_drop_none(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    lacking = await connection.fetch("""
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND NOT has_table_privilege(oid, 'SELECT')
    """)
    assert [row["relname"] for row in lacking] == []
    for statement in ("CREATE TABLE mine ()", "DROP TABLE pauses", "TRUNCATE ends"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
