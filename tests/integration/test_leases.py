"""The leases on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from harness.client import until
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.leases import PostgresLeases, open_leases
from notifier.domain.due import DueClass, Position
from notifier.domain.liveness import LEASE_TIMEOUT_S
from notifier.domain.notification import QueueKey
from notifier.ports.leases import HeldLease, Lease, LeaseRead, Progress
from tests.builders import EMAIL_HIGH, EMAIL_LOW, SMS_HIGH, worker_id

QUEUES = (EMAIL_HIGH, EMAIL_LOW)
POSITION = Position(datetime(2026, 11, 29, 6, 0, 0, 123456, tzinfo=UTC), UUID(int=7))
PROGRESS = Progress(
    floors={DueClass.BACK: POSITION, DueClass.DIRECT: POSITION},
    marks={DueClass.FIRST: POSITION},
    is_backlogged=True,
)


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[tuple[PostgresLeases, PostgresLeases]]:
    """The leases of two processes."""
    settings = ConnectionSettings(url=database_url, statement_timeout_s=LEASE_TIMEOUT_S)
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(open_leases(settings, worker_id(), QUEUES))
            for _ in range(2)
        ]
        yield one, two


Stores = tuple[PostgresLeases, PostgresLeases]


def a_held(queue: QueueKey, term: int = 1, progress: Progress = PROGRESS) -> HeldLease:
    return HeldLease(queue=queue, term=term, progress=progress, renewed_at=0.0, passed_at=0.0)


async def acquire_all(store: PostgresLeases) -> None:
    read = await store.renew([])
    assert set(await store.acquire(read.leases)) == set(QUEUES)


async def test_a_queue_that_never_had_a_holder_is_read_without_one(stores: Stores) -> None:
    one, _ = stores
    leases = [Lease(queue, None, 0, 0, is_backlogged=False) for queue in QUEUES]
    assert await one.renew([]) == LeaseRead(leases, set())


async def test_one_of_two_processes_acquires_what_both_saw_free(stores: Stores) -> None:
    one, two = stores
    seen = (await one.renew([])).leases
    async with asyncio.TaskGroup() as group:
        both = [
            group.create_task(one.acquire(seen)),
            group.create_task(two.acquire(list(reversed(seen)))),
        ]
    assert sorted(queue for task in both for queue in task.result()) == list(QUEUES)
    read = await two.renew([])
    assert [(lease.term, lease.beat) for lease in read.leases] == [(1, 1), (1, 1)]


async def test_a_renewal_moves_the_beat_and_writes_the_progress(
    stores: Stores, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    one, two = stores
    await acquire_all(one)
    read = await one.renew([a_held(EMAIL_HIGH)])
    high = Lease(EMAIL_HIGH, one.worker, 1, 2, is_backlogged=False)
    low = Lease(EMAIL_LOW, one.worker, 1, 1, is_backlogged=False)
    assert read == LeaseRead([high, low], {EMAIL_HIGH})
    assert await two.renew([]) == LeaseRead([high._replace(is_backlogged=True), low], set())
    stored = await connection.fetchrow(
        "SELECT (progress #>> '{floors,0,0}')::timestamptz, (progress #>> '{floors,0,1}')::uuid,"
        " (progress ->> 'is_backlogged')::boolean FROM leases WHERE queue = 'email.high'"
    )
    assert stored is not None
    assert tuple(stored) == (*POSITION, True)


async def test_progress_is_written_once_and_again_after_postgres_has_lost_it(
    stores: Stores, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    one, _ = stores
    await acquire_all(one)
    lease = a_held(EMAIL_HIGH)
    await one.renew([lease])
    await connection.execute("UPDATE leases SET progress = '{}'")
    stored = "SELECT progress::text FROM leases WHERE queue = 'email.high'"
    for _ in range(2):
        await one.renew([lease])
        assert await connection.fetchval(stored) == "{}"
    await connection.execute("UPDATE leases SET beat = beat - 1")
    for _ in range(2):
        await one.renew([lease])
    assert await connection.fetchval(stored) != "{}"


async def test_a_lease_that_was_renewed_meanwhile_is_not_acquired(stores: Stores) -> None:
    one, two = stores
    await acquire_all(one)
    seen = (await two.renew([])).leases
    await one.renew([a_held(EMAIL_HIGH)])
    assert set(await two.acquire(seen)) == {EMAIL_LOW}


async def test_the_next_holder_reads_the_exact_progress(stores: Stores) -> None:
    one, two = stores
    await acquire_all(one)
    await one.renew([a_held(EMAIL_HIGH), a_held(EMAIL_LOW, progress=Progress())])
    acquired = await two.acquire((await two.renew([])).leases)
    assert acquired == {EMAIL_HIGH: PROGRESS, EMAIL_LOW: Progress()}


async def test_a_lease_that_was_taken_over_is_neither_renewed_nor_released(stores: Stores) -> None:
    one, two = stores
    await acquire_all(one)
    await acquire_all(two)
    held = [a_held(queue) for queue in QUEUES]
    read = await one.renew(held)
    assert read.renewed == set()
    await one.release(held)
    assert (await one.renew([])).leases == read.leases
    assert {lease.holder for lease in read.leases} == {two.worker}


async def test_a_process_that_takes_its_own_lease_over_has_a_new_term(stores: Stores) -> None:
    one, _ = stores
    await acquire_all(one)
    await acquire_all(one)
    read = await one.renew([a_held(EMAIL_HIGH, term=1), a_held(EMAIL_LOW, term=2)])
    assert read.renewed == {EMAIL_LOW}


async def test_a_released_lease_has_no_holder_and_keeps_its_last_progress(stores: Stores) -> None:
    one, two = stores
    await acquire_all(one)
    await one.release([a_held(EMAIL_HIGH)])
    seen = (await two.renew([])).leases
    assert seen[0] == Lease(EMAIL_HIGH, None, 1, 1, is_backlogged=True)
    assert await two.acquire(seen[:1]) == {EMAIL_HIGH: PROGRESS}


@pytest.mark.parametrize("stored", ['{"floors": 1}', '{"marks": 7}', "[]", "null"])
async def test_progress_that_cannot_be_read_counts_as_none(
    stores: Stores, connection: asyncpg.Connection[asyncpg.Record], stored: str
) -> None:
    one, _ = stores
    await connection.execute(
        "INSERT INTO leases (queue, progress) VALUES ('email.high', $1)", stored
    )
    with capture_logs() as logs:
        acquired = await one.acquire((await one.renew([])).leases)
    assert acquired == {EMAIL_HIGH: Progress(), EMAIL_LOW: Progress()}
    assert [(log["event"], log["queue"]) for log in logs] == [
        ("lease_progress_unreadable", "email.high")
    ]


async def test_a_queue_that_is_not_in_the_settings_is_left_alone(
    stores: Stores, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    one, _ = stores
    await connection.execute("INSERT INTO leases (queue) VALUES ('sms.high'), ('fax.urgent')")
    await acquire_all(one)
    rows = await connection.fetch("SELECT queue FROM leases WHERE holder IS NULL ORDER BY queue")
    assert [row["queue"] for row in rows] == ["fax.urgent", str(SMS_HIGH)]


async def test_after_the_leases_are_forgotten_nobody_holds_one(stores: Stores) -> None:
    one, two = stores
    await acquire_all(one)
    await one.renew([a_held(queue) for queue in QUEUES])
    await two.forget_leases()
    read = await one.renew([a_held(queue) for queue in QUEUES])
    assert read == LeaseRead(
        [Lease(queue, None, 0, 0, is_backlogged=False) for queue in QUEUES], set()
    )


WAITING = """SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'"""


@pytest.mark.parametrize("name", ["acquire", "renew", "release"])
async def test_statements_that_lock_the_same_leases_do_not_deadlock(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], name: str
) -> None:
    settings = ConnectionSettings(url=database_url)

    async def waiting() -> int:
        return int(await connection.fetchval(WAITING))

    async with (
        open_leases(settings, worker_id(), QUEUES) as one,
        open_leases(settings, worker_id(), QUEUES) as two,
        asyncio.TaskGroup() as group,
    ):
        await acquire_all(one)
        seen = (await two.renew([])).leases
        held = [a_held(EMAIL_LOW), a_held(EMAIL_HIGH)]
        statements = {
            "acquire": one.acquire([seen[1], seen[0]]),
            "renew": one.renew(held),
            "release": one.release(held),
        }
        async with connection.transaction():
            await connection.execute("SELECT FROM leases WHERE queue = 'email.high' FOR UPDATE")
            group.create_task(two.acquire(seen))
            await until(waiting, lambda count: count == 1)
            group.create_task(statements.pop(name))
            await until(waiting, lambda count: count == 2)
        for unused in statements.values():
            unused.close()
