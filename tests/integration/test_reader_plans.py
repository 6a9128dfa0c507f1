"""Readers read few rows, however many rows wait, were sent or have ended beside them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from harness.client import until
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.explaining import MAX_COUNTED_AHEAD
from notifier.adapters.postgres.finding import SEARCH_SETTINGS
from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.keys import open_keys
from notifier.adapters.postgres.leases import encode_progress
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import MAX_COUNTED_DUE, open_store
from notifier.domain.due import DueClass, Position
from notifier.domain.explanation.ahead import rows_before
from notifier.domain.explanation.facts import ClassCount, WaitingRow
from notifier.domain.failures import begin_of
from notifier.domain.notification import Status
from notifier.domain.tenants import TenantId
from notifier.ports.leases import Progress
from notifier.ports.queries import Filter, View
from tests.builders import EMAIL_LOW, QUEUES, worker_id
from tests.integration.test_api_auth import ADA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from notifier.adapters.postgres.reader import PostgresReader

SURGE: Final = 20_000
FAILED: Final = 4_000
WAITING: Final = 50_000
FEW: Final = 20
PAGE: Final = 50
OUTDATED: Final = "statistics of empty tables"
ROWS_READ: Final = """
    SELECT (SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables)::integer
         + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)::integer"""
SESSIONS: Final = """SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'notifier'"""

# Each statement makes notifications that are newer than those before, with rows of one kind.
NEW: Final = """
    WITH new AS MATERIALIZED (
        SELECT n, (left(uuid_at(clock_timestamp())::text, 14) || '7000-8000-'
                   || lpad(to_hex(n), 12, '0'))::uuid AS id
        FROM (SELECT pg_sleep(0.002)) AS next_millisecond, generate_series(1, {count}) AS n
    ), stored AS (
        INSERT INTO notifications (id, expires_at, queue, recipient, content, metadata)
        SELECT id, now() + interval '1 hour', '{queue}', 'a@example.com', '{{}}', '{{}}' FROM new
    ) {rows}"""
LIVE: Final = """
    INSERT INTO live (id, claimed_by, created_at, due_at, ready_at, expires_at, size, class, queue)
    SELECT id, '{claimed_by}', now(), now() + interval '{due_in}' + n * interval '1 us', now(),
           now() + interval '{expires_in}', 2, {due_class}, '{queue}' FROM new"""
ENDS: Final = """
    INSERT INTO ends (id, claim, status, queue, tries, first_at, at)
    SELECT id, 1, '{status}', '{queue}', 1, now(), now() FROM new"""
ATTEMPTS: Final = """
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, provider,
                          outcome, code, detail, reference, tries)
    SELECT id, 1, gen_random_uuid(), now(), now(), 0, 'smtp', 'accepted', '250', '', '', 1
    FROM new"""


def live(
    queue: str,
    *,
    due_in: str = "-1 minute",
    due_class: DueClass = DueClass.FIRST,
    claimed_by: str = "00000000-0000-0000-0000-000000000000",
    expires_in: str = "1 hour",
) -> str:
    return LIVE.format(
        queue=queue,
        due_in=due_in,
        due_class=due_class.value,
        claimed_by=claimed_by,
        expires_in=expires_in,
    )


FEW_ROWS: Final = {
    Status.SCHEDULED: live("email.high", due_in="1 hour"),
    Status.QUEUED: live("email.high"),
    Status.RETRYING: live("email.high", due_in="1 hour", due_class=DueClass.RETRY),
    Status.SENDING: live("email.low", due_in="-1 hour", claimed_by=str(worker_id())),
    Status.SENT: ATTEMPTS,
    Status.FAILED: ENDS.format(status="failed", queue="email.high"),
    Status.EXPIRED: live("email.high", expires_in="-1 second"),
    Status.CANCELLED: ENDS.format(status="cancelled", queue="email.high"),
}
WAITING_SURGES: Final = {
    Status.QUEUED: live("email.low"),
    Status.SCHEDULED: live("email.low", due_in="1 hour"),
}
ENDED: Final = ENDS.format(status="suppressed", queue="email.low")


async def add(
    connection: asyncpg.Connection[asyncpg.Record], queue: str, count: int, rows: str
) -> None:
    await connection.execute(NEW.format(queue=queue, count=count, rows=rows))


async def fill(connection: asyncpg.Connection[asyncpg.Record], waiting: Status) -> None:
    """Write a few rows in each status, and more recent surges of waiting, sent and ended rows."""
    for rows in FEW_ROWS.values():
        await add(connection, "email.high", FEW, rows)
    for rows in (ATTEMPTS, ENDED):
        await add(connection, "email.low", SURGE, rows)
    await add(connection, "email.low", WAITING, WAITING_SURGES[waiting])


async def rows_read(
    url: str,
    connection: asyncpg.Connection[asyncpg.Record],
    work: Callable[[PostgresReader], Awaitable[object]],
) -> int:
    """Return how many rows and index entries this work reads. A session reports them at its end."""
    await connection.execute("SELECT pg_stat_force_next_flush()")  # of what the test read before
    before = int(await connection.fetchval(ROWS_READ))
    async with open_reader(ConnectionSettings(url=url)) as reader:
        await work(reader)
    await until(lambda: connection.fetchval(SESSIONS), lambda count: count == 0)
    return int(await connection.fetchval(ROWS_READ)) - before


@pytest.mark.parametrize("waiting", WAITING_SURGES)
@pytest.mark.parametrize("statistics", [OUTDATED, "present statistics"])
async def test_a_page_of_any_status_reads_few_rows_of_other_statuses(
    database_url: str,
    connection: asyncpg.Connection[asyncpg.Record],
    waiting: Status,
    statistics: str,
) -> None:
    await connection.execute("VACUUM ANALYZE")
    await fill(connection, waiting)
    if statistics != OUTDATED:
        await connection.execute("VACUUM ANALYZE")
    for status in [None, *FEW_ROWS, Status.SUPPRESSED]:

        async def read_page(reader: PostgresReader, status: Status | None = status) -> None:
            page = await reader.notifications(
                Filter(status=(status,) if status else (), limit=PAGE)
            )
            statuses = {view.status for view in page.views}
            is_surge = status in {None, waiting, Status.SENT, Status.SUPPRESSED}
            assert len(page.views) == (PAGE if is_surge else FEW)
            assert statuses == {status or waiting}

        # What is sending is looked for in the first 20,000 rows that are due, too.
        most = WAITING if status is Status.SENDING else SURGE
        assert 0 < await rows_read(database_url, connection, read_page) < most, status


async def test_failures_and_one_notification_read_few_rows(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("VACUUM ANALYZE")
    await fill(connection, Status.QUEUED)

    async def read(reader: PostgresReader) -> None:
        page = await reader.notifications(Filter(status=(Status.FAILED,), limit=PAGE))
        assert len(page.views) == FEW
        assert await reader.get(page.views[0].id) is not None

    assert 0 < await rows_read(database_url, connection, read) < PAGE * FEW


@pytest.mark.parametrize("statistics", [OUTDATED, "present statistics"])
async def test_groups_of_failures_read_each_failure_once_and_no_other_rows(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], statistics: str
) -> None:
    await connection.execute("VACUUM ANALYZE")
    await fill(connection, Status.QUEUED)
    failed = ENDS.format(status="failed", queue="email.high")
    await add(connection, "email.high", FAILED, failed)
    await add(connection, "email.low", SURGE, ENDED)
    if statistics != OUTDATED:
        await connection.execute("VACUUM ANALYZE")

    async def group(reader: PostgresReader) -> None:
        found = await reader.failure_groups(begin_of(datetime.now(UTC)), (), View())
        assert [group.count for group in found.groups] == [FEW + FAILED]

    # The failure and its notification, each through its entry in the index.
    assert 0 < await rows_read(database_url, connection, group) < 5 * FAILED


@pytest.mark.parametrize("statistics", [OUTDATED, "present statistics"])
async def test_no_table_is_scanned_for_groups_of_failures(
    connection: asyncpg.Connection[asyncpg.Record], statistics: str
) -> None:
    await connection.execute("VACUUM ANALYZE")
    await add(connection, "email.low", SURGE, ENDED)
    await add(connection, "email.high", FAILED, ENDS.format(status="failed", queue="email.high"))
    if statistics != OUTDATED:
        await connection.execute("VACUUM ANALYZE")
    for name, value in {**SEARCH_SETTINGS, "enable_nestloop": "off"}.items():
        await connection.execute(f"SET {name} = {value}")
    types = "uuid, uuid, integer, timestamptz, text, boolean, text[], text[], integer"
    await connection.execute(f"PREPARE groups ({types}) AS {statement('failure_groups')}")
    ids = "'{}', '{}'".format(*id_bounds(None, None, None))
    arguments = f"{ids}, 50000, now() - interval '1 day', NULL, false, NULL, '{{webhook}}', 100"
    plan = await connection.fetch(f"EXPLAIN (ANALYZE) EXECUTE groups ({arguments})")
    lines = [row[0] for row in plan if "never executed" not in row[0]]
    assert [line for line in lines if "Seq Scan" in line] == []
    assert any("Index Scan Backward using ends_" in line for line in lines)
    assert any("Hash Cond: (recent.id = seen.id)" in line for line in lines)


async def test_a_count_of_what_waits_reads_few_of_the_rows_that_wait(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("VACUUM ANALYZE")
    await fill(connection, Status.QUEUED)
    row = await connection.fetchrow(
        "SELECT due_at, id FROM live WHERE queue = 'email.low' AND class = 1 AND turn >= 0"
        " ORDER BY due_at, id OFFSET $1 LIMIT 1",
        WAITING // 2,
    )
    assert row is not None
    position = Position(row["due_at"], row["id"])
    progress = Progress(floors={DueClass.FIRST: position}, marks={DueClass.FIRST: position})
    await connection.execute(
        "INSERT INTO leases (queue, progress) VALUES ($1, $2::text::jsonb)",
        str(EMAIL_LOW),
        encode_progress(progress),
    )

    async def count(_: PostgresReader) -> None:
        async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
            waiting = await store.waiting(QUEUES)
        assert waiting[EMAIL_LOW].due == MAX_COUNTED_DUE
        assert waiting[EMAIL_LOW].is_ceiling

    assert 0 < await rows_read(database_url, connection, count) < 3 * MAX_COUNTED_DUE


@pytest.mark.parametrize("statistics", [OUTDATED, "present statistics"])
async def test_an_explanation_reads_few_of_the_rows_that_wait(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], statistics: str
) -> None:
    await connection.execute("VACUUM ANALYZE")
    await fill(connection, Status.QUEUED)
    if statistics != OUTDATED:
        await connection.execute("VACUUM ANALYZE")
    last = await connection.fetchval(
        "SELECT id FROM live WHERE queue = 'email.low' AND class = 1 AND turn >= 0"
        " ORDER BY due_at DESC, id DESC LIMIT 1"
    )

    async def explain(reader: PostgresReader) -> None:
        row = await reader.subject(last, View())
        assert isinstance(row, WaitingRow)
        counts = await reader.count_before(row, rows_before(row))
        waiting = MAX_COUNTED_AHEAD - FEW  # the others are being sent
        assert counts == {DueClass.FIRST: ClassCount(waiting, is_exact=False)}

    # A row is read through its entry in the index.
    most = 2 * MAX_COUNTED_AHEAD + 2 * PAGE
    assert 0 < await rows_read(database_url, connection, explain) < most


async def test_the_check_for_lost_notifications_reads_the_newest_only(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("VACUUM ANALYZE")
    await fill(connection, Status.QUEUED)

    async def check(_: PostgresReader) -> None:
        async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
            (row,) = await store._connections.maintenance.fetch(statement("find_lost"), PAGE)
        assert tuple(row) == (PAGE, 0, None)

    assert 0 < await rows_read(database_url, connection, check) < 10 * PAGE


async def test_a_tenant_is_deleted_without_a_look_up_for_each_row_that_waits(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await add(connection, "email.low", WAITING, live("email.low"))
    await connection.execute("INSERT INTO tenants (name, note) VALUES ('shop', '')")
    await connection.execute("VACUUM ANALYZE")

    async def delete(_: PostgresReader) -> None:
        async with open_keys(ConnectionSettings(url=database_url)) as keys:
            assert await keys.delete_tenant(TenantId("shop"), ADA) is None

    # A look-up reads an entry of the index and the row, and so does a scan by the index.
    assert 0 < await rows_read(database_url, connection, delete) < 2.5 * WAITING
