"""Blobs in a real Postgres: stored once, kept as long as needed, and each tenant's own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import pytest

from notifier.adapters.postgres.blobs import PostgresBlobs, open_blobs
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.blobs import StoredBlob, blob_id, digest_of
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.recovery.pruner import Pruner
from tests.builders import a_notification, worker_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OTHER = TenantId("other")
DATA = bytes(range(256)) * 1000
ID = blob_id(DATA)
TODAY = datetime.now(UTC).date()
UNKNOWN = blob_id(b"unknown")


class Place(NamedTuple):
    blobs: PostgresBlobs
    store: PostgresStore
    database: asyncpg.Connection[asyncpg.Record]

    async def put(self, data: bytes = DATA, tenant: TenantId = DEFAULT_TENANT) -> bool:
        return await self.blobs.put(tenant, blob_id(data), data, is_mail=False)

    async def age(self, days: int) -> None:
        await self.database.execute(f"UPDATE blobs SET last_day = last_day - {days}")

    async def stored(self) -> int:
        count: int = await self.database.fetchval("SELECT count(*) FROM blobs")
        return count

    async def last_day(self) -> object:
        return await self.database.fetchval("SELECT max(last_day) FROM blobs")


@pytest.fixture
async def place(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> AsyncIterator[Place]:
    settings = ConnectionSettings(url=database_url)
    async with (
        open_blobs(settings) as blobs,
        open_store(settings, worker_id()) as store,
    ):
        yield Place(blobs, store, connection)


async def test_a_blob_is_stored_once_outside_of_its_row_and_not_compressed(place: Place) -> None:
    assert await place.put()
    assert not await place.put()
    assert await place.blobs.keep(DEFAULT_TENANT, [ID, UNKNOWN]) == {ID: StoredBlob(len(DATA))}
    row = await place.database.fetchrow(
        "SELECT pg_column_size(data) AS stored, octet_length(data) AS size FROM blobs"
    )
    assert row is not None
    assert (row["stored"], row["size"]) == (len(DATA), len(DATA))


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 10 * 1024 * 1024], ids=len)
async def test_data_of_any_size_is_read_as_it_was(place: Place, data: bytes) -> None:
    item = a_notification()
    await place.store.insert([item])
    await place.put(data)
    id_ = blob_id(data)
    assert await place.blobs.sizes(item.id, [id_, UNKNOWN]) == {id_: len(data)}
    assert await place.blobs.read(item.id, id_) == data
    assert await place.blobs.read(item.id, UNKNOWN) is None


async def test_a_blob_belongs_to_its_tenant(place: Place) -> None:
    item = a_notification()
    await place.store.insert([item])
    await place.put(tenant=OTHER)
    assert await place.blobs.keep(DEFAULT_TENANT, [ID]) == {}
    assert await place.blobs.sizes(item.id, [ID]) == {}
    assert await place.blobs.read(item.id, ID) is None
    assert await place.put()
    assert await place.stored() == 2


async def test_a_blob_becomes_a_mail_and_stays_one(place: Place) -> None:
    await place.put()
    for is_mail in (True, False):
        assert not await place.blobs.put(DEFAULT_TENANT, ID, DATA, is_mail=is_mail)
        kept = await place.blobs.keep(DEFAULT_TENANT, [ID])
        assert kept[ID].is_mail


async def test_a_use_raises_the_last_day_and_a_question_of_the_same_day_writes_nothing(
    place: Place,
) -> None:
    await place.put()
    await place.age(3)
    assert await place.last_day() == TODAY - timedelta(days=3)
    await place.blobs.keep(DEFAULT_TENANT, [ID])
    assert await place.last_day() == TODAY
    version = await place.database.fetchval("SELECT xmin FROM blobs")
    await place.blobs.keep(DEFAULT_TENANT, [ID])
    assert await place.database.fetchval("SELECT xmin FROM blobs") == version
    await place.age(3)
    assert not await place.put()
    assert await place.last_day() == TODAY


async def test_blobs_are_removed_two_days_before_the_oldest_day_that_is_kept(place: Place) -> None:
    await place.put()
    assert await place.store.prune_blobs(TODAY + timedelta(days=2)) == 0
    assert await place.store.prune_blobs(TODAY + timedelta(days=3)) == 1
    assert await place.stored() == 0


async def test_removal_goes_in_steps(place: Place) -> None:
    await place.database.execute(
        "INSERT INTO blobs (tenant, hash, size, last_day, data) "
        "SELECT '', sha256(n::text::bytea), 1, $1, '\\x00' FROM generate_series(1, 1100) AS n",
        TODAY - timedelta(days=9),
    )
    await place.put()
    steps = [await place.store.prune_blobs(TODAY) for _ in range(4)]
    assert steps == [500, 500, 100, 0]
    await place.database.execute(
        "INSERT INTO blobs (tenant, hash, size, last_day, data) "
        "SELECT '', sha256(n::text::bytea), 30000000, $1, '\\x00' FROM generate_series(1, 7) AS n",
        TODAY - timedelta(days=9),
    )
    assert [await place.store.prune_blobs(TODAY) for _ in range(4)] == [3, 3, 1, 0]
    assert await place.stored() == 1


async def test_the_pruner_removes_what_is_older_than_every_day(place: Place) -> None:
    class Observer:
        def partitions_kept(self, count: int) -> None:
            assert count == 0

    pruner = Pruner(
        store=place.store,
        observer=Observer(),
        retention=timedelta(days=9),
        audit_retention=timedelta(days=31),
        keep_keys=timedelta(days=1),
        keep_event_days=7,
    )
    await place.put()
    await pruner.run_once()
    assert await place.stored() == 1
    await place.age(40)
    await pruner.run_once()
    assert await place.stored() == 0


async def test_a_blob_that_is_removed_at_the_same_moment_does_not_exist(place: Place) -> None:
    await place.put()
    await place.age(40)
    async with asyncio.TaskGroup() as group, place.database.transaction():
        await place.database.execute("DELETE FROM blobs")
        keep = group.create_task(place.blobs.keep(DEFAULT_TENANT, [ID]))
        await until_blocked(place)
    assert keep.result() == {}


async def test_a_blob_that_is_used_at_the_same_moment_is_not_removed(place: Place) -> None:
    await place.put()
    await place.age(40)
    async with asyncio.TaskGroup() as group, place.database.transaction():
        await place.database.execute("UPDATE blobs SET last_day = $1", TODAY)
        prune = group.create_task(place.store.prune_blobs(TODAY))
        keep = group.create_task(place.blobs.keep(DEFAULT_TENANT, [ID]))
        await until_blocked(place, 2)
    assert prune.result() == 0
    assert list(keep.result()) == [ID]
    assert await place.stored() == 1


async def test_concurrent_uploads_of_one_file_store_it_once(
    place: Place, database_url: str
) -> None:
    settings = ConnectionSettings(url=database_url)
    async with open_blobs(settings) as others, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(store.put(DEFAULT_TENANT, ID, DATA, is_mail=False))
            for store in (place.blobs, others)
            for _ in range(10)
        ]
    assert sum(task.result() for task in tasks) == 1
    assert await place.stored() == 1


async def test_a_change_of_the_last_day_writes_no_data_again(place: Place) -> None:
    await place.put()
    pages = "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'blobs'"
    before = await place.database.fetchval(pages)
    for _ in range(5):
        await place.age(1)
        await place.blobs.keep(DEFAULT_TENANT, [ID])
    assert await place.database.fetchval(pages) == before
    assert (await place.database.fetchval("SELECT hash FROM blobs")) == digest_of(ID)


async def until_blocked(place: Place, count: int = 1) -> None:
    """Wait until so many other sessions wait for the transaction of the test."""
    blocked = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    while await place.database.fetchval(blocked) < count:
        await place.database.execute("SELECT pg_stat_clear_snapshot()")
        await asyncio.sleep(0.01)
