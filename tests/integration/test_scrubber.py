"""Contents are removed when they are old enough, on a real Postgres."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from notifier.adapters.postgres import scrubbing
from notifier.adapters.postgres.statements import statement
from notifier.domain.notification import Priority, Status
from notifier.ports.operations import Retried
from notifier.recovery.scrubber import Scrubber
from tests.builders import EMAIL_HIGH, EMAIL_LOW, a_notification, a_result
from tests.integration.test_erasure import older
from tests.integration.test_operations import ADA, Opened, opened
from tests.live_rows import SESSIONS_THAT_WAIT_FOR_A_LOCK, claim_new

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notifier.domain.notification import NewNotification, QueueKey
    from tests.live_rows import Connection

HOUR = 3600.0
KEEP = {Priority.HIGH: HOUR, Priority.MEDIUM: 4 * HOUR, Priority.LOW: 4 * HOUR}


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Opened]:
    async with opened(database_url) as db:
        yield db


async def stored(db: Opened, *, hours: int, queue: QueueKey = EMAIL_HIGH) -> NewNotification:
    """Store a notification some hours ago, by its id."""
    item = older(a_notification(queue), hours=hours)
    await db.store.insert([item])
    return item


async def sent(
    db: Opened, connection: Connection, *, hours: int, queue: QueueKey = EMAIL_HIGH
) -> NewNotification:
    """Store a notification, and send it, some hours ago."""
    item = await stored(db, hours=hours, queue=queue)
    await db.store.record([a_result(await claim_new(db.store, item))])
    await final_ago(connection, item, hours=hours)
    return item


async def final_ago(connection: Connection, item: NewNotification, *, hours: float) -> None:
    for table, column in (("ends", "at"), ("attempts", "finished_at")):
        await connection.execute(
            f"UPDATE {table} SET {column} = now() - $2::interval WHERE id = $1",
            item.id,
            timedelta(hours=hours),
        )


async def scrub(db: Opened) -> int:
    return await Scrubber(store=db.steps.contents, keep_s=KEEP).run_once()


async def has_content(db: Opened, item: NewNotification) -> bool:
    view = await db.reader.get(item.id, with_content=True)
    assert view is not None
    assert view.recipient == item.recipient
    assert view.content in {item.content, b""}
    return bool(view.content)


async def test_a_content_is_removed_when_its_priority_says_so_and_all_else_stays(
    db: Opened, connection: Connection
) -> None:
    old, young = [await sent(db, connection, hours=hours) for hours in (2, 0)]
    low, older_low = [await sent(db, connection, hours=hours, queue=EMAIL_LOW) for hours in (2, 5)]
    failed = await stored(db, hours=3)
    await db.fail(failed)
    await final_ago(connection, failed, hours=2)
    assert await scrub(db) == 3
    removed = [not await has_content(db, item) for item in (old, young, low, older_low, failed)]
    assert removed == [True, False, False, True, True]
    view = await db.view(old)
    assert (view.status, len(view.attempts)) == (Status.SENT, 1)
    assert await scrub(db) == 0


async def test_what_is_not_final_when_the_position_passes_it_is_removed_later(
    db: Opened, connection: Connection
) -> None:
    waiting, sending = [await stored(db, hours=2) for _ in range(2)]
    row = await claim_new(db.store, sending)
    await db.store.insert([later := older(a_notification(delay=timedelta(hours=3)), hours=2)])
    assert await scrub(db) == 0
    await db.store.record([a_result(row)])
    await db.fail(waiting)
    await connection.execute(
        "UPDATE scrub_later SET due_at = now() WHERE due_at < now() + $1", timedelta(hours=3)
    )
    assert await scrub(db) == 0  # they have been final for a moment
    due_in = "SELECT extract(epoch FROM due_at - now())::float8 FROM scrub_later WHERE id = $1"
    assert await connection.fetchval(due_in, sending.id) == pytest.approx(HOUR, abs=100)
    assert await connection.fetchval(due_in, later.id) == pytest.approx(4 * HOUR, abs=100)
    for item in (waiting, sending):
        await final_ago(connection, item, hours=1.1)
    await connection.execute("UPDATE scrub_later SET due_at = now() WHERE id <> $1", later.id)
    assert await scrub(db) == 2
    left = await connection.fetch("SELECT id FROM scrub_later")
    assert [row["id"] for row in left] == [later.id]
    assert await has_content(db, later)


async def test_what_waits_again_keeps_its_content(db: Opened, connection: Connection) -> None:
    item = await stored(db, hours=3)
    await db.fail(item)
    await final_ago(connection, item, hours=2)
    async with asyncio.TaskGroup() as group, asyncio.timeout(30):
        async with connection.transaction():
            ids = [item.id]
            await connection.fetch(statement("retry"), ids, item.id, item.id, None, None)
            task = group.create_task(scrub(db), name="scrub")
            while not await connection.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK):
                await connection.execute("SELECT pg_stat_clear_snapshot()")
        assert await task == 0
    assert await has_content(db, item)
    assert await scrub(db) == 0
    assert (await db.view(item)).status is Status.QUEUED
    assert await has_content(db, item)


async def test_what_was_removed_is_not_sent_again(db: Opened, connection: Connection) -> None:
    item = await stored(db, hours=3)
    await db.fail(item)
    view = await db.view(item)
    await final_ago(connection, item, hours=2)
    assert await scrub(db) == 1
    assert await db.operations.retry(view, "", ADA) is Retried.CONTENT_GONE


async def test_a_backlog_is_removed_in_chunks_by_one_process_at_a_time(
    db: Opened, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "MAX_SCRUBBED", 3)
    items = [older(a_notification(), hours=2) for _ in range(20)]
    await db.store.insert(items)
    await db.fail(*items)
    await connection.execute("UPDATE ends SET at = now() - interval '2 hours'")
    async with connection.transaction():
        await connection.fetch(statement("scrub_take"), ["high"])
        assert await scrub(db) == 0
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(opened(database_url)) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(scrub(each), name="scrub") for each in (db, *others)]
    assert sum(task.result() for task in tasks) + await scrub(db) == 20
    assert await connection.fetchval("SELECT count(*) FROM notifications WHERE content <> ''") == 0


async def test_an_id_that_may_still_appear_is_not_passed(
    db: Opened, connection: Connection
) -> None:
    at_once = Scrubber(store=db.steps.contents, keep_s=dict.fromkeys(Priority, 0.0))
    young = await sent(db, connection, hours=0)
    assert await at_once.run_once() == 0
    assert await has_content(db, young)
    old = await sent(db, connection, hours=1)
    assert await at_once.run_once() == 1
    assert not await has_content(db, old)
