"""Migration 0005 moves the rows of a stopped deployment.

The rows are written by hand into the schema of revision 0004.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.errors import ConfigError
from notifier.domain.notification import Claimed, NotificationId, Status
from notifier.ports.queries import Filter
from notifier.ports.store import LiveRow, Orphan, OrphanDecision
from tests.builders import (
    EMAIL_HIGH,
    a_result,
    claim_request,
    due_ranges,
    new_id,
    row_pointer,
    worker_id,
)
from tests.live_rows import sweep
from tests.revisions import open_at_revision

NOW: Final = datetime.now(UTC)
AGO, AHEAD = NOW - timedelta(minutes=5), NOW + timedelta(hours=6)
"""The suite may reach these tests many minutes after they were collected."""
DEAD: Final = worker_id()
CONTENT: Final = b'{"subject":"Hello","body":"World"}'


@pytest.fixture
async def old(empty_database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to a database at revision 0004."""
    async with open_at_revision(empty_database_url, "0004") as connection:
        yield connection


@pytest.fixture
async def store(empty_database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=empty_database_url), worker_id()) as store:
        yield store


@pytest.fixture
async def reader(empty_database_url: str) -> AsyncIterator[PostgresReader]:
    async with open_reader(ConnectionSettings(url=empty_database_url)) as reader:
        yield reader


async def a_row(
    connection: asyncpg.Connection[asyncpg.Record], status: str, **columns: object
) -> NotificationId:
    """Insert a row of revision 0004 that was accepted and ready five minutes ago."""
    id_ = new_id()
    row = {
        "id": id_,
        "created_at": AGO,
        "updated_at": AGO,
        "ready_at": AGO,
        "expires_at": AHEAD,
        "status": status,
        "queue": str(EMAIL_HIGH),
        "recipient": "ok@example.com",
        "content": CONTENT,
        "metadata": b"{}",
        **columns,
    }
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await connection.execute(
        f"INSERT INTO notifications ({', '.join(row)}) VALUES ({places})",
        *row.values(),
    )
    return id_


async def an_attempt(
    connection: asyncpg.Connection[asyncpg.Record], id_: NotificationId, claim: int, outcome: str
) -> None:
    await connection.execute(
        """INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s,
                                 provider, outcome, code, detail, reference)
           VALUES ($1, $2, $3, $4, $4, 0, 'smtp', $5, '', '', '')""",
        id_,
        claim,
        DEAD,
        AGO,
        outcome,
    )


async def a_failed_row(connection: asyncpg.Connection[asyncpg.Record]) -> NotificationId:
    id_ = await a_row(connection, "failed", claim=2, tries=2, last_error="exhausted: 451")
    await an_attempt(connection, id_, 1, "unavailable")
    await an_attempt(connection, id_, 2, "unavailable")
    await connection.execute(
        """INSERT INTO failures (id, queue, provider, reason, code, detail, tries, first_at,
                                 last_at)
           VALUES ($1, $2, 'smtp', 'exhausted', '451', 'try again', 2, $3, $4)""",
        id_,
        str(EMAIL_HIGH),
        AGO,
        NOW,
    )
    return id_


async def every_waiting_row(
    connection: asyncpg.Connection[asyncpg.Record],
) -> dict[str, NotificationId]:
    """Return by name one row for each way in which a row may wait or be sent."""
    return {
        "due": await a_row(connection, "queued", due_at=AGO),
        "published": await a_row(connection, "queued", published_at=NOW, published_by=DEAD),
        "given back": await a_row(connection, "queued", due_at=AGO, claim=4),
        "scheduled": await a_row(connection, "scheduled", ready_at=AHEAD, due_at=AHEAD),
        "retrying": await a_row(
            connection, "retrying", ready_at=AHEAD, due_at=AHEAD, claim=1, tries=1, is_retry=True
        ),
        "retry published": await a_row(
            connection, "queued", published_at=NOW, claim=1, tries=1, is_retry=True
        ),
        "sending": await a_row(
            connection, "sending", claimed_by=DEAD, claim=3, tries=1, deaths=1, max_tries=7
        ),
    }


async def upgrade(url: str) -> None:
    await asyncio.to_thread(migrate, url)


async def due(store: PostgresStore) -> dict[NotificationId, LiveRow]:
    read = await store.read_due(due_ranges(EMAIL_HIGH))
    return {NotificationId(row.position.id): row for row in read.rows}


async def test_it_refuses_while_a_process_runs_and_changes_nothing(
    old: asyncpg.Connection[asyncpg.Record], empty_database_url: str
) -> None:
    await old.execute(
        """INSERT INTO workers (id, kind, host, pid, beat, figures)
           VALUES ($1, 'api', '', 1, 1, '{}')""",
        DEAD,
    )
    which = await a_row(old, "queued", due_at=AGO)
    with pytest.raises(ConfigError):
        await upgrade(empty_database_url)
    assert await old.fetchval("SELECT version_num FROM alembic_version") == "0004"
    assert await old.fetchval("SELECT status::text FROM notifications WHERE id = $1", which)
    await old.execute("UPDATE workers SET beat_at = now() - interval '11 s'")
    await upgrade(empty_database_url)
    assert await old.fetchval("SELECT count(*) FROM live WHERE id = $1", which) == 1


async def test_what_waits_keeps_its_status_and_its_tries(
    old: asyncpg.Connection[asyncpg.Record], empty_database_url: str, reader: PostgresReader
) -> None:
    rows = await every_waiting_row(old)
    await upgrade(empty_database_url)
    found = {name: await reader.get(id_) for name, id_ in rows.items()}
    seen = {name: (view.status, view.tries) for name, view in found.items() if view}
    assert seen == {
        "due": (Status.QUEUED, 0),
        "published": (Status.QUEUED, 0),
        "given back": (Status.QUEUED, 0),
        "scheduled": (Status.SCHEDULED, 0),
        "retrying": (Status.RETRYING, 1),
        "retry published": (Status.QUEUED, 1),
        "sending": (Status.SENDING, 1),
    }
    sending = found["sending"]
    assert sending is not None
    assert sending.max_tries == 7


async def test_all_that_waits_is_due_at_its_claim_or_belongs_to_its_dead_worker(
    old: asyncpg.Connection[asyncpg.Record], empty_database_url: str, store: PostgresStore
) -> None:
    rows = await every_waiting_row(old)
    await upgrade(empty_database_url)
    found = await due(store)
    claims = {name: found[id_].claim for name, id_ in rows.items() if id_ in found}
    assert claims == {
        "due": 0,
        "published": 0,
        "given back": 4,
        "retry published": 1,
        "sending": 3,
    }
    claimed = {name: found[id_].claimed_by for name, id_ in rows.items() if id_ in found}
    assert {name for name, worker in claimed.items() if worker} == {"sending"}
    assert claimed["sending"] == DEAD
    assert found[rows["sending"]].deaths == 1
    assert found[rows["due"]].size == len(CONTENT)


async def test_all_that_waits_is_sent_once(
    old: asyncpg.Connection[asyncpg.Record],
    empty_database_url: str,
    store: PostgresStore,
    reader: PostgresReader,
) -> None:
    rows = await every_waiting_row(old)
    await upgrade(empty_database_url)
    await old.execute("UPDATE live SET due_at = now() WHERE due_at > now()")
    orphan = Orphan(id=rows["sending"], claim=3, worker=DEAD, queue=EMAIL_HIGH, deaths=1)
    decision = OrphanDecision(orphan=orphan, provider="smtp", status=Status.QUEUED, reason="")
    assert len(await store.settle_orphans([decision], [])) == 1
    found = await due(store)
    assert set(found) == set(rows.values())
    for _ in range(2):  # a second copy of each pointer claims nothing
        replies = await store.claim([claim_request(row_pointer(row)) for row in found.values()])
        claimed = [reply for reply in replies if isinstance(reply, Claimed)]
        if claimed:
            await store.record([a_result(row) for row in claimed])
    views = [await reader.get(id_) for id_ in rows.values()]
    assert [view.status for view in views if view] == [Status.SENT] * len(rows)
    accepted = "SELECT count(*) FROM attempts WHERE outcome = 'accepted'"
    assert await old.fetchval(accepted) == len(rows)
    assert await old.fetchval("SELECT count(*) FROM live") == 0


async def test_what_is_final_reads_as_before(
    old: asyncpg.Connection[asyncpg.Record],
    empty_database_url: str,
    store: PostgresStore,
    reader: PostgresReader,
) -> None:
    sent = await a_row(old, "sent", claim=1, tries=1)
    await an_attempt(old, sent, 1, "accepted")
    failed = await a_failed_row(old)
    expired = await a_row(old, "expired", claim=2)
    cancelled = await a_row(old, "cancelled")
    await upgrade(empty_database_url)
    views = [await reader.get(id_) for id_ in (sent, failed, expired, cancelled)]
    assert [(view.status, view.tries, len(view.attempts)) for view in views if view] == [
        (Status.SENT, 1, 1),
        (Status.FAILED, 2, 2),
        (Status.EXPIRED, 0, 0),
        (Status.CANCELLED, 0, 0),
    ]
    (view,) = (await reader.notifications(Filter(status=(Status.FAILED,)))).views
    assert (view.id, view.tries) == (failed, 2)
    assert view.result is not None
    assert (view.result.reason, view.result.code, view.result.at) == ("exhausted", "451", NOW)
    assert await due(store) == {}


async def test_what_waited_too_long_is_expired_and_is_not_sent(
    old: asyncpg.Connection[asyncpg.Record],
    empty_database_url: str,
    store: PostgresStore,
    reader: PostgresReader,
) -> None:
    which = await a_row(old, "queued", due_at=AGO, expires_at=NOW)
    await upgrade(empty_database_url)
    view = await reader.get(which)
    assert view is not None
    assert view.status is Status.EXPIRED
    (row,) = (await due(store)).values()
    assert row.is_expired
    assert len(await sweep(store)) == 1
    assert await old.fetchval("SELECT status::text FROM ends WHERE id = $1", which) == "expired"


async def test_a_late_result_of_before_settles_a_failure(
    old: asyncpg.Connection[asyncpg.Record],
    empty_database_url: str,
    store: PostgresStore,
    reader: PostgresReader,
) -> None:
    failed = await a_failed_row(old)
    await old.execute("DELETE FROM attempts WHERE claim = 2")
    await upgrade(empty_database_url)
    late = Claimed(
        id=failed,
        claim=2,
        queue=EMAIL_HIGH,
        recipient="ok@example.com",
        content=CONTENT,
        tries=1,
        max_tries=None,
        waited_s=0.0,
    )
    await store.record([a_result(late)])
    view = await reader.get(failed)
    assert view is not None
    assert view.status is Status.SENT


async def test_every_day_of_notifications_has_one_of_ends(
    old: asyncpg.Connection[asyncpg.Record], empty_database_url: str, store: PostgresStore
) -> None:
    await upgrade(empty_database_url)
    days = """SELECT right(relname, 8) FROM pg_inherits JOIN pg_class ON oid = inhrelid
              WHERE inhparent = $1::text::regclass ORDER BY 1"""
    notifications = await old.fetch(days, "notifications")
    assert notifications == await old.fetch(days, "ends") == await old.fetch(days, "attempts")
    assert await store.ensure_days() == 0
    yesterday = (NOW - timedelta(days=1)).date()
    assert await store.drop_day(yesterday) == "dropped"
