"""Postgres reads only the rows of a batch, also when its statistics are older than a surge."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg
import pytest

from benchmarks.prove.bulk import days
from harness.client import until
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import open_store
from notifier.delivery.group_commit import MAX_BATCH
from notifier.domain.notification import Claimed, QueueKey, Status
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import DeadProcess
from notifier.ports.queries import Filter
from notifier.ports.store import ClaimRequest, Orphan, OrphanDecision
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    QUEUES,
    a_notification,
    a_result,
    claim_request,
    quotas,
    worker_id,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from notifier.adapters.postgres.store import PostgresStore
    from notifier.ports.store import AttemptResult

SURGE, BATCH = 4_000, 50
EXECUTIONS_BEFORE_GENERIC_PLAN = 10
"""Postgres plans the first five executions for their values; later it may keep a generic plan."""
ROWS_READ = """SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)::integer
               + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)::integer"""
PLANS = """SELECT statement, sum(custom_plans)::integer AS custom,
                  sum(generic_plans)::integer AS generic
           FROM pg_prepared_statements GROUP BY statement"""
INSERT_HEARTBEAT_OF_AN_HOUR_AGO = """
    INSERT INTO workers (id, kind, host, pid, beat, beat_at, figures)
    VALUES ($1, 'api', 'h', 1, 1, now() - interval '1 hour', '{}')"""
PUBLISH_AN_HOUR_AGO = "UPDATE notifications SET published_at = now() - interval '1 hour'"
RECOVERIES = [
    "settle_orphans",
    "record_late",
    "unpublish",
    "rescue",
    "sweep",
    "fail_unclaimable",
]
NEEDS_CLAIMS = {"settle_orphans", "record_late"}
AGEING = {
    "rescue": """UPDATE notifications SET published_at = published_at - interval '1 minute'
                 WHERE queue = 'email.high'""",
    "sweep": """UPDATE notifications SET expires_at = now(),
                                        published_at = published_at - interval '2 minutes'
                WHERE queue = 'email.high'""",
}
SESSIONS = """SELECT count(*) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = 'notifier'"""


async def test_a_batch_reads_only_its_rows_while_statistics_are_older_than_a_surge(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("ANALYZE")  # of empty tables
    before = await _read_by(database_url, connection, _surge)
    after = await _read_by(database_url, connection, lambda store: _send(store, EMAIL_HIGH, BATCH))
    assert 0 < after - before < SURGE


async def test_plans_made_on_an_empty_day_read_only_the_batch(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _make_generic_plans(store)
        sessions = await connection.fetchval(SESSIONS)
        before = await _read_by(database_url, connection, _surge, other_sessions=sessions)
        await _send(store, EMAIL_HIGH, BATCH // 2)
        await _give_back(store, EMAIL_HIGH, BATCH // 2)
    after = await _read_by(database_url, connection, _do_nothing)
    assert 0 < after - before < SURGE


async def test_the_rows_of_a_dead_process_are_found_without_reading_those_of_others(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("ANALYZE")  # of empty tables
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as dying:
        await _accept(dying, EMAIL_HIGH, BATCH)
        await dying.take_due(quotas(), BATCH)
    await connection.execute(INSERT_HEARTBEAT_OF_AN_HOUR_AGO, dying.worker)
    await connection.execute(PUBLISH_AN_HOUR_AGO)
    before = await _read_by(database_url, connection, _surge)

    async def requeue(store: PostgresStore) -> None:
        assert await store.rescue_from([DeadProcess(dying.worker, 1)], QUEUES) == {
            EMAIL_HIGH: BATCH
        }

    after = await _read_by(database_url, connection, requeue)
    assert 0 < after - before < SURGE


@pytest.mark.parametrize("analyzed", [False, True], ids=["old statistics", "present statistics"])
@pytest.mark.parametrize("name", RECOVERIES)
async def test_recovery_of_a_few_rows_reads_only_those_rows(
    name: str, analyzed: bool, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("ANALYZE")
    recovery = await _break_batch(name, database_url, connection)
    if analyzed:
        await connection.execute("ANALYZE")
    before = await _read_by(database_url, connection, recovery.find)
    after = await _read_by(database_url, connection, recovery.run)
    assert 0 < after - before < SURGE


@pytest.mark.parametrize("name", RECOVERIES)
async def test_recovery_with_plans_made_on_an_empty_day_reads_only_its_rows(
    name: str, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _make_generic_plans(store)
        sessions = await connection.fetchval(SESSIONS)
        recovery = await _break_batch(name, database_url, connection)
        before = await _read_by(database_url, connection, recovery.find, other_sessions=sessions)
        await recovery.run(store)
    after = await _read_by(database_url, connection, _do_nothing)
    assert 0 < after - before < SURGE


async def test_a_batch_is_planned_once_with_a_month_of_partitions(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute(days(29))
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        for _ in range(2 * EXECUTIONS_BEFORE_GENERIC_PLAN):
            await _accept(store, EMAIL_HIGH, BATCH)
            await _send(store, EMAIL_HIGH, BATCH // 2)
            await _refuse(store, EMAIL_HIGH, BATCH // 2)
        connections = store._connections
        for connection_of_step, planned in (
            (connections.relay, ["take_due"]),
            (connections.claim, ["claim"]),
            (connections.record, ["record_sent", "record"]),
        ):
            rows = await connection_of_step.fetch(PLANS)
            plans = {row["statement"]: (row["custom"], row["generic"]) for row in rows}
            for name in planned:
                custom, generic = plans[statement(name)]
                assert custom == 0
                assert generic >= 2 * EXECUTIONS_BEFORE_GENERIC_PLAN


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED])
async def test_a_record_with_a_month_of_partitions_reads_only_the_batch(
    status: Status, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute(days(29))
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _make_generic_plans(store)
        sessions = await connection.fetchval(SESSIONS)
        before = await _read_by(database_url, connection, _surge, other_sessions=sessions)
        if status is Status.SENT:
            await _send(store, EMAIL_HIGH, BATCH)
        else:
            await _refuse(store, EMAIL_HIGH, BATCH)
    after = await _read_by(database_url, connection, _do_nothing)
    assert 0 < after - before < SURGE


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.QUEUED, Status.RETRYING])
async def test_a_page_of_waiting_rows_reads_no_finished_rows(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], status: Status
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _accept(store, EMAIL_HIGH, BATCH)
        await _accept(store, EMAIL_LOW, SURGE)
        await _send(store, EMAIL_LOW, SURGE)
        if status is Status.QUEUED:
            await store.take_due(quotas(EMAIL_HIGH), BATCH // 2)
    await connection.execute(
        "UPDATE notifications SET status = $1::text::notification_status WHERE status = 'queued'",
        status,
    )
    await connection.execute("VACUUM ANALYZE notifications")
    before = await _read(connection)
    async with open_reader(ConnectionSettings(url=database_url)) as reader:
        page = await reader.notifications(Filter(status=status, limit=2 * BATCH))
        assert {view.status for view in page} == {status}
        assert len(page) == BATCH
    assert 0 < await _read(connection) - before < SURGE


@dataclass
class Recovery:
    """A batch of rows that needs recovery, beside a surge of other rows."""

    name: str
    pointers: list[Pointer]
    claims: list[Claimed]
    orphans: list[Orphan] = field(default_factory=list)

    async def find(self, store: PostgresStore) -> None:
        self.orphans += await store.claimed_by_dead([])

    async def run(self, store: PostgresStore) -> None:
        match self.name:
            case "settle_orphans":
                assert (
                    len(
                        await store.settle_orphans(
                            [_decision(orphan) for orphan in self.orphans], []
                        )
                    )
                    == BATCH
                )
            case "record_late":
                recorded = await store.record([a_result(claimed) for claimed in self.claims])
                assert all(result.late for result in recorded)
            case "unpublish":
                await store.unpublish(self.pointers)
            case "rescue":
                assert await store.rescue(EMAIL_HIGH, time.time()) == BATCH
            case "fail_unclaimable":
                for pointer in self.pointers:
                    reply = await store.fail_unclaimable(claim_request(pointer), provider="smtp")
                    assert reply.status is Status.FAILED
            case "sweep":
                assert len(await store.sweep()) == BATCH
            case _:
                raise AssertionError(self.name)


async def _break_batch(
    name: str, url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> Recovery:
    async with open_store(ConnectionSettings(url=url), worker_id()) as dead:
        await _surge(dead)
        pointers = [pointer for pointer, _ in await dead.take_due(quotas(EMAIL_HIGH), BATCH)]
        claims = (
            await dead.claim([claim_request(pointer) for pointer in pointers])
            if name in NEEDS_CLAIMS
            else []
        )
    await connection.execute(AGEING.get(name, "SELECT"))
    return Recovery(name, pointers, [reply for reply in claims if isinstance(reply, Claimed)])


def _decision(orphan: Orphan) -> OrphanDecision:
    return OrphanDecision(orphan=orphan, provider="smtp", status=Status.QUEUED, reason="")


async def _surge(store: PostgresStore) -> None:
    """Many sent and many waiting rows, with ids between those of a small batch of another queue."""
    await _accept(store, EMAIL_HIGH, BATCH // 2)
    await _accept(store, EMAIL_LOW, SURGE)
    await _send(store, EMAIL_LOW, SURGE)
    await _accept(store, EMAIL_LOW, SURGE)
    await _accept(store, EMAIL_HIGH, BATCH // 2)


async def _accept(store: PostgresStore, queue: QueueKey, count: int) -> None:
    await store.insert([a_notification(queue) for _ in range(count)])


async def _send(store: PostgresStore, queue: QueueKey, count: int) -> None:
    await _attempt(store, queue, count, a_result)


async def _refuse(store: PostgresStore, queue: QueueKey, count: int) -> None:
    await _attempt(store, queue, count, _refused)


def _refused(claimed: Claimed) -> tuple[AttemptResult, float]:
    return a_result(claimed, Status.FAILED, outcome="refused", reason="refused", code="550")


async def _attempt(
    store: PostgresStore,
    queue: QueueKey,
    count: int,
    result_of: Callable[[Claimed], tuple[AttemptResult, float]],
) -> None:
    """Claim rows and record their results in batches of the usual size."""
    await store.waiting([queue])
    for size in [MAX_BATCH] * (count // MAX_BATCH) + [count % MAX_BATCH] * (count % MAX_BATCH > 0):
        taken = await store.take_due(quotas(queue, limit=size), size)
        claims = await store.claim([claim_request(pointer) for pointer, _ in taken])
        results = [result_of(claimed) for claimed in claims if isinstance(claimed, Claimed)]
        assert len(results) == size
        await store.record(results)


async def _give_back(store: PostgresStore, queue: QueueKey, count: int) -> None:
    taken = await store.take_due(quotas(queue, limit=count), count)
    assert len(await store.give_back([claim_request(pointer) for pointer, _ in taken])) == count


async def _make_generic_plans(store: PostgresStore) -> None:
    """Execute each statement so often that Postgres keeps a generic plan; no row matches."""
    unknown = Claimed(
        id=a_notification().id,
        claim=1,
        queue=EMAIL_HIGH,
        recipient="ada@example.com",
        content=b"{}",
        tries=0,
        max_tries=None,
        waited_s=0.0,
    )
    orphan = Orphan(
        id=unknown.id,
        claim=1,
        worker=worker_id(),
        queue=EMAIL_HIGH,
        deaths=0,
    )
    for _ in range(EXECUTIONS_BEFORE_GENERIC_PLAN):
        await store.waiting([EMAIL_HIGH])
        await store.take_due(quotas(), BATCH)
        await store.claim([ClaimRequest(id=unknown.id, claim=0)])
        await store.record([a_result(unknown), _refused(unknown)])
        await store.give_back([ClaimRequest(id=unknown.id, claim=0)])
        await store.fail_unclaimable(ClaimRequest(id=unknown.id, claim=0), provider="smtp")
        await store.unpublish([Pointer(queue=EMAIL_HIGH, id=unknown.id, claim=0, published_at=0)])
        await store.rescue(EMAIL_HIGH, time.time())
        await store.sweep()
        await store.claimed_by_dead([])
        await store.settle_orphans([_decision(orphan)], [])


async def _do_nothing(store: PostgresStore) -> None:
    del store


async def _read_by(
    url: str,
    connection: asyncpg.Connection[asyncpg.Record],
    work: Callable[[PostgresStore], Awaitable[object]],
    other_sessions: int = 0,
) -> int:
    """Return how many rows and index entries Postgres has read up to the end of this work.

    A session writes its statistics when it ends, so the work gets its own store. `other_sessions`
    stay open.
    """
    async with open_store(ConnectionSettings(url=url), worker_id()) as store:
        await work(store)
    return await _read(connection, other_sessions)


async def _read(connection: asyncpg.Connection[asyncpg.Record], other_sessions: int = 0) -> int:
    await until(lambda: connection.fetchval(SESSIONS), lambda count: count == other_sessions)
    return int(await connection.fetchval(ROWS_READ))
