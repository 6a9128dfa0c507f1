"""The grants of docs/deploy.md are enough: one role owns the tables, the processes use another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from harness.client import Client, orders
from harness.system import System, running_system, urls
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.embedded.postgres import PostgresServer
from tests.builders import EMAIL_HIGH, a_notification, quotas, worker_id
from tests.conftest import execute
from tests.granted import granted_by_the_deploy_guide

OWNER: Final = "owner"
DATABASE: Final = "granted"
NUMBER: Final = 90


@pytest.fixture
def owner_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database as the role sees it that will own its tables, and is no superuser."""
    execute(postgres_server, f"CREATE ROLE {OWNER} LOGIN")
    execute(postgres_server, f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template0")
    yield as_role(OWNER, postgres_server.url(DATABASE))
    execute(postgres_server, f"DROP DATABASE {DATABASE} WITH (FORCE)")
    execute(postgres_server, f"DROP ROLE {OWNER}")


@pytest.fixture
async def app_url(owner_url: str, app_role: str, postgres_server: PostgresServer) -> str:
    """The database as the processes' role sees it, once the owner has migrated and granted."""
    await asyncio.to_thread(migrate, owner_url)
    connection = await asyncpg.connect(owner_url)
    await connection.execute(granted_by_the_deploy_guide())
    await connection.close()
    return as_role(app_role, postgres_server.url(DATABASE))


def as_role(role: str, url: str) -> str:
    return url.replace("postgres@", f"{role}@")


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


async def test_days_are_made_and_dropped_and_what_was_lost_is_rescued(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    assert await store.drop_day(yesterday) == "dropped"
    assert await store.ensure_days() == 1
    await store.insert([a_notification()])
    assert len(await store.take_due(quotas(), 1)) == 1
    await connection.execute(
        "UPDATE notifications SET published_at = published_at - interval '1 minute'"
    )
    assert await store.rescue(EMAIL_HIGH, await store.database_now()) == 1
    await store.forget_processes()


async def test_the_role_has_every_table_of_ours_and_may_make_or_drop_none(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    lacking = await connection.fetch("""
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND NOT has_table_privilege(oid, 'SELECT')
    """)
    assert [row["relname"] for row in lacking] == []
    for statement in ("CREATE TABLE mine ()", "DROP TABLE pauses", "TRUNCATE failures"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
