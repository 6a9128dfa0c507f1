"""What Postgres reads for a batch is the batch, also when its statistics are older than a surge."""

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

SURGE, BATCH = 4_000, 50
PLANNED_AFTER = 10
"""Postgres plans five executions for their values; then it may keep a plan for all."""
READ = """SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)::integer
               + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)::integer"""
PLANS = """SELECT sum(custom_plans)::integer AS anew, sum(generic_plans)::integer AS kept
           FROM pg_prepared_statements"""
A_DEATH_AN_HOUR_AGO = """INSERT INTO workers (id, kind, host, pid, beat, beat_at, figures)
                         VALUES ($1, 'api', 'h', 1, 1, now() - interval '1 hour', '{}')"""
AN_HOUR_AGO = "UPDATE notifications SET published_at = now() - interval '1 hour'"
TROUBLES = ["settle_orphans", "record_late", "unpublish", "rescue", "sweep"]
CLAIMED = {"settle_orphans", "record_late"}
AGED = {
    "rescue": """UPDATE notifications SET published_at = published_at - interval '1 minute'
                 WHERE queue = 'email.high'""",
    "sweep": """UPDATE notifications SET expires_at = now(),
                                        published_at = published_at - interval '2 minutes'
                WHERE queue = 'email.high'""",
}
SESSIONS = """SELECT count(*) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = 'notifier'"""


async def test_a_batch_reads_no_surge_that_statistics_do_not_know(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("ANALYZE")  # nothing is there
    before = await _read_by(database_url, connection, _surge)
    after = await _read_by(database_url, connection, lambda store: _send(store, EMAIL_HIGH, BATCH))
    assert 0 < after - before < SURGE


async def test_plans_kept_since_the_day_was_empty_read_no_surge(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _use_in_vain(store)
        sessions = await connection.fetchval(SESSIONS)
        before = await _read_by(database_url, connection, _surge, besides=sessions)
        await _send(store, EMAIL_HIGH, BATCH // 2)
        await _give_back(store, EMAIL_HIGH, BATCH // 2)
    after = await _read_by(database_url, connection, _do_nothing)
    assert 0 < after - before < SURGE


async def test_what_a_dead_process_took_is_found_past_what_others_publish(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("ANALYZE")  # nothing is there
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as dying:
        await _accept(dying, EMAIL_HIGH, BATCH)
        await dying.take_due(quotas(), BATCH)
    await connection.execute(A_DEATH_AN_HOUR_AGO, dying.worker)
    await connection.execute(AN_HOUR_AGO)
    before = await _read_by(database_url, connection, _surge)

    async def rescue(store: PostgresStore) -> None:
        assert await store.rescue_from([DeadProcess(dying.worker, 1)], QUEUES) == {
            EMAIL_HIGH: BATCH
        }

    after = await _read_by(database_url, connection, rescue)
    assert 0 < after - before < SURGE


@pytest.mark.parametrize("knows", [False, True], ids=["old statistics", "present statistics"])
@pytest.mark.parametrize("name", TROUBLES)
async def test_what_goes_wrong_for_a_few_reads_no_surge(
    name: str, knows: bool, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("ANALYZE")
    trouble = await _go_wrong(name, database_url, connection)
    if knows:
        await connection.execute("ANALYZE")
    before = await _read_by(database_url, connection, trouble.find)
    after = await _read_by(database_url, connection, trouble.fix)
    assert 0 < after - before < SURGE


@pytest.mark.parametrize("name", TROUBLES)
async def test_plans_kept_since_the_day_was_empty_mend_without_reading_a_surge(
    name: str, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _use_in_vain(store)
        sessions = await connection.fetchval(SESSIONS)
        trouble = await _go_wrong(name, database_url, connection)
        before = await _read_by(database_url, connection, trouble.find, besides=sessions)
        await trouble.fix(store)
    after = await _read_by(database_url, connection, _do_nothing)
    assert 0 < after - before < SURGE


async def test_a_batch_is_planned_once_however_many_days_there_are(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute(days(29))
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        for _ in range(2 * PLANNED_AFTER):
            await _accept(store, EMAIL_HIGH, BATCH)
            await _send(store, EMAIL_HIGH, BATCH)
        connections = store._connections
        for planned in (connections.relay, connections.claim, connections.record):
            (plans,) = await planned.fetch(PLANS)
            assert plans["anew"] == 0
            assert plans["kept"] >= 2 * PLANNED_AFTER


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.QUEUED, Status.RETRYING])
async def test_a_page_of_what_waits_reads_no_past(
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
class Trouble:
    """What went wrong for a batch beside a surge, and who mends it."""

    name: str
    pointers: list[Pointer]
    claims: list[Claimed]
    orphans: list[Orphan] = field(default_factory=list)

    async def find(self, store: PostgresStore) -> None:
        self.orphans += await store.claimed_by_dead([])

    async def fix(self, store: PostgresStore) -> None:
        match self.name:
            case "settle_orphans":
                assert (
                    len(await store.settle_orphans([_decision(one) for one in self.orphans], []))
                    == BATCH
                )
            case "record_late":
                recorded = await store.record([a_result(one) for one in self.claims])
                assert all(one.late for one in recorded)
            case "unpublish":
                await store.unpublish(self.pointers)
            case "rescue":
                assert await store.rescue(EMAIL_HIGH, time.time()) == BATCH
            case "sweep":
                assert len(await store.sweep()) == BATCH
            case _:
                raise AssertionError(self.name)


async def _go_wrong(name: str, url: str, connection: asyncpg.Connection[asyncpg.Record]) -> Trouble:
    async with open_store(ConnectionSettings(url=url), worker_id()) as dead:
        await _surge(dead)
        pointers = [pointer for pointer, _ in await dead.take_due(quotas(EMAIL_HIGH), BATCH)]
        claims = (
            await dead.claim([claim_request(one) for one in pointers]) if name in CLAIMED else []
        )
    await connection.execute(AGED.get(name, "SELECT"))
    return Trouble(name, pointers, [one for one in claims if isinstance(one, Claimed)])


def _decision(orphan: Orphan) -> OrphanDecision:
    return OrphanDecision(orphan=orphan, provider="smtp", status=Status.QUEUED, reason="")


async def _surge(store: PostgresStore) -> None:
    """Many sent and many that wait, between the ids of one small batch of another queue."""
    await _accept(store, EMAIL_HIGH, BATCH // 2)
    await _accept(store, EMAIL_LOW, SURGE)
    await _send(store, EMAIL_LOW, SURGE)
    await _accept(store, EMAIL_LOW, SURGE)
    await _accept(store, EMAIL_HIGH, BATCH // 2)


async def _accept(store: PostgresStore, queue: QueueKey, count: int) -> None:
    await store.insert([a_notification(queue) for _ in range(count)])


async def _send(store: PostgresStore, queue: QueueKey, count: int) -> None:
    """In batches of the size that they have."""
    await store.waiting([queue])
    for size in [MAX_BATCH] * (count // MAX_BATCH) + [count % MAX_BATCH] * (count % MAX_BATCH > 0):
        taken = await store.take_due(quotas(queue, limit=size), size)
        claims = await store.claim([claim_request(pointer) for pointer, _ in taken])
        results = [a_result(claimed) for claimed in claims if isinstance(claimed, Claimed)]
        assert len(results) == size
        await store.record(results)


async def _give_back(store: PostgresStore, queue: QueueKey, count: int) -> None:
    taken = await store.take_due(quotas(queue, limit=count), count)
    assert len(await store.give_back([claim_request(pointer) for pointer, _ in taken])) == count


async def _use_in_vain(store: PostgresStore) -> None:
    """So often that Postgres keeps the plan of each statement."""
    stranger = Claimed(
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
        id=stranger.id,
        claim=1,
        worker=worker_id(),
        queue=EMAIL_HIGH,
        tries=0,
        max_tries=None,
        deaths=0,
    )
    for _ in range(PLANNED_AFTER):
        await store.waiting([EMAIL_HIGH])
        await store.take_due(quotas(), BATCH)
        await store.claim([ClaimRequest(id=stranger.id, claim=0)])
        await store.record([a_result(stranger)])
        await store.give_back([ClaimRequest(id=stranger.id, claim=0)])
        await store.unpublish([Pointer(queue=EMAIL_HIGH, id=stranger.id, claim=0, published_at=0)])
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
    besides: int = 0,
) -> int:
    """How many rows and index entries had been read by the end of this work.

    Sessions that end write their statistics, so the store is a new one; `besides` others are left.
    """
    async with open_store(ConnectionSettings(url=url), worker_id()) as store:
        await work(store)
    return await _read(connection, besides)


async def _read(connection: asyncpg.Connection[asyncpg.Record], besides: int = 0) -> int:
    await until(lambda: connection.fetchval(SESSIONS), lambda left: left == besides)
    return int(await connection.fetchval(READ))
