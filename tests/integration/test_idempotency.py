"""Idempotency keys, on a real Postgres: one notification for each key, and one answer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.errors import IdempotencyKeyInFlight, IdempotencyKeyReused, StoreRejected
from notifier.domain.notification import Status
from notifier.ports.acceptor import Replayed
from notifier.recovery.pruner import Pruner
from tests.builders import QUEUES, a_key, a_notification, worker_id
from tests.dates import let_tests_choose_the_date, set_date
from tests.integration.test_accept import Accepting, open_accepting, stored_ids
from tests.live_rows import SESSIONS_THAT_WAIT_FOR_A_LOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import date

    from tests.live_rows import Connection

TODAY = datetime.now(UTC).date()
"""Partitions exist from yesterday to seven days ahead."""


def at(days: int, clock: str) -> datetime:
    """An instant some days after today, in UTC."""
    return datetime.combine(TODAY + timedelta(days=days), time.fromisoformat(clock), UTC)


@asynccontextmanager
async def several_accepting(url: str, count: int) -> AsyncIterator[Sequence[Accepting]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_accepting(url)) for _ in range(count)]


@pytest.fixture
async def clock(connection: Connection) -> Connection:
    """A connection for `set_date`."""
    await let_tests_choose_the_date(connection)
    return connection


async def key_days(connection: Connection) -> list[int]:
    """The days after today under which a key is stored, of each row."""
    rows = await connection.fetch("SELECT day FROM idempotency_keys ORDER BY day")
    return [(row["day"] - TODAY).days for row in rows]


async def test_a_repeat_gets_the_first_answer_and_no_direct_publish(database_url: str) -> None:
    first = a_notification(key=a_key(), delay=timedelta(minutes=1))
    now, repeat = a_notification(key=a_key("b")), a_notification(key=a_key())
    again = a_notification(key=a_key("b"))
    async with open_accepting(database_url) as accepting:
        accepting.publisher.room = 10
        assert await accepting.accept.submit([first]) == [Status.SCHEDULED]
        assert await accepting.accept.submit([now]) == [Status.QUEUED]
        replies = await accepting.accept.submit([repeat, again, a_notification()])
        assert replies[:2] == [
            Replayed(first.id, Status.SCHEDULED),
            Replayed(now.id, Status.QUEUED),
        ]
        assert len(accepting.publisher.enqueued) == 2
        assert accepting.publisher.reserved.total() == 0
    assert len(await stored_ids(database_url)) == 3


async def test_a_repeat_after_a_restart_gets_the_first_answer(database_url: str) -> None:
    first = a_notification(key=a_key())
    async with open_accepting(database_url) as accepting:
        await accepting.accept.submit([first])
    async with open_accepting(database_url) as accepting:
        assert await accepting.accept.submit([a_notification(key=a_key())]) == [
            Replayed(first.id, Status.QUEUED)
        ]


async def test_a_key_with_another_body_stores_nothing(database_url: str) -> None:
    first = a_notification(key=a_key(body=b"1"))
    async with open_accepting(database_url) as accepting:
        await accepting.accept.submit([first])
        (reply,) = await accepting.accept.submit([a_notification(key=a_key(body=b"2"))])
        assert isinstance(reply, IdempotencyKeyReused)
    assert await stored_ids(database_url) == {first.id}


async def test_twins_of_one_batch_are_stored_once(database_url: str) -> None:
    first, twin = a_notification(key=a_key()), a_notification(key=a_key())
    other = a_notification(key=a_key(body=b"other"))
    async with open_accepting(database_url) as accepting:
        accepting.publisher.room = 10
        replies = await accepting.accept.submit([first, twin, other])
        assert replies[:2] == [Status.QUEUED, Replayed(first.id, Status.QUEUED)]
        assert isinstance(replies[2], IdempotencyKeyReused)
        assert accepting.publisher.enqueued == [first.id]
        assert accepting.publisher.reserved.total() == 0
    assert await stored_ids(database_url) == {first.id}


async def test_the_twin_of_a_rejected_submit_is_stored_and_its_key_with_it(
    database_url: str,
) -> None:
    poisoned = a_notification(recipient="nul\0@example.com", key=a_key(body=b"poison"))
    twin, repeat = a_notification(key=a_key()), a_notification(key=a_key())
    async with open_accepting(database_url) as accepting:
        rejected, stored = await accepting.accept.submit([poisoned, twin])
        assert isinstance(rejected, StoreRejected)
        assert stored is Status.QUEUED
        assert await accepting.accept.submit([repeat]) == [Replayed(twin.id, Status.QUEUED)]
    assert await stored_ids(database_url) == {twin.id}


async def test_a_rejected_submit_leaves_its_key_free(
    database_url: str, connection: Connection
) -> None:
    poisoned = a_notification(recipient="nul\0@example.com", key=a_key())
    async with open_accepting(database_url) as accepting:
        (rejected,) = await accepting.accept.submit([poisoned])
        assert isinstance(rejected, StoreRejected)
    assert await key_days(connection) == []


async def test_a_repeated_write_of_the_same_submit_is_no_replay(database_url: str) -> None:
    first = a_notification(key=a_key())
    async with open_accepting(database_url) as accepting:
        assert await accepting.accept.submit([first]) == [Status.QUEUED]
        assert await accepting.accept.submit([first]) == [Status.QUEUED]


@pytest.mark.parametrize("clock_time", ["00:00:30", "12:00"])
async def test_two_processes_at_once_store_each_key_once(
    database_url: str, clock: Connection, clock_time: str
) -> None:
    await set_date(clock, at(2, clock_time))
    async with several_accepting(database_url, 3) as processes:

        async def submit(accepting: Accepting, keys: Sequence[int]) -> list[object]:
            items = [a_notification(key=a_key(f"k{key}")) for key in keys]
            replies = await accepting.accept.submit(items)
            return [
                reply.id if isinstance(reply, Replayed) else item.id
                for item, reply in zip(items, replies, strict=True)
            ]

        # In different orders: two statements must not wait for each other.
        keys = range(200)
        orders = (keys, keys[::-1], [*keys[100:], *keys[:100]])
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(submit(accepting, order))
                for accepting, order in zip(processes, orders, strict=True)
            ]
    first, second, third = (task.result() for task in tasks)
    assert first == second[::-1] == [*third[100:], *third[:100]]
    assert await stored_ids(database_url) == set(first)
    assert len(set(first)) == 200


async def test_a_submit_waits_for_one_with_its_key_and_gets_that_answer(
    database_url: str, connection: Connection
) -> None:
    holder = a_notification(key=a_key())
    other = await asyncpg.connect(database_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute(
        "INSERT INTO idempotency_keys VALUES ($1, $2, $3, $4, 'queued')",
        a_key().digest,
        TODAY,
        holder.id,
        a_key().body,
    )
    async with open_accepting(database_url) as accepting, asyncio.TaskGroup() as group:
        waiting = group.create_task(accepting.accept.submit([a_notification(key=a_key())]))
        await until_waiting(connection)
        await transaction.commit()
        assert await waiting == [Replayed(holder.id, Status.QUEUED)]
    await other.close()


async def test_a_key_in_flight_past_the_deadline_is_said_so(
    database_url: str, connection: Connection
) -> None:
    async with open_accepting(database_url, deadline_s=0.3) as accepting:
        accepting.store.gate.clear()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(_in_flight(accepting))
            await accepting.store.entered.wait()
            with pytest.raises(IdempotencyKeyInFlight):
                await accepting.accept.submit([a_notification(key=a_key())])
            await first
        accepting.store.gate.set()


async def _in_flight(accepting: Accepting) -> None:
    with pytest.raises(Exception, match="not stored within"):
        await accepting.accept.submit([a_notification(key=a_key())])


async def until_waiting(connection: Connection) -> None:
    while not await connection.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK):
        await asyncio.sleep(0.01)


async def test_a_key_of_before_midnight_is_known_after_it_and_for_the_whole_next_day(
    database_url: str, clock: Connection
) -> None:
    first = a_notification(key=a_key())
    async with open_accepting(database_url) as accepting:
        await set_date(clock, at(1, "23:59:59"))
        assert await accepting.accept.submit([first]) == [Status.QUEUED]
        for instant in (at(2, "00:00:00.5"), at(2, "00:00:59"), at(2, "00:01:00"), at(2, "23:59")):
            await set_date(clock, instant)
            (reply,) = await accepting.accept.submit([a_notification(key=a_key())])
            assert reply == Replayed(first.id, Status.QUEUED)
    assert await key_days(clock) == [1]


async def test_a_key_of_the_first_minute_meets_statements_of_the_day_before(
    database_url: str, clock: Connection
) -> None:
    first = a_notification(key=a_key())
    async with open_accepting(database_url) as accepting:
        await set_date(clock, at(2, "00:00:20"))
        assert await accepting.accept.submit([first]) == [Status.QUEUED]
        assert await key_days(clock) == [1, 2]
        for instant in (at(1, "23:59:59"), at(2, "00:00:40"), at(2, "00:01"), at(3, "12:00")):
            await set_date(clock, instant)
            (reply,) = await accepting.accept.submit([a_notification(key=a_key())])
            assert reply == Replayed(first.id, Status.QUEUED)


async def test_keys_are_dropped_by_whole_days_once_they_are_old(
    database_url: str, clock: Connection
) -> None:
    first, second = a_notification(key=a_key()), a_notification(key=a_key())
    async with (
        open_accepting(database_url) as accepting,
        open_store(ConnectionSettings(url=database_url), worker_id()) as store,
    ):
        pruner = Pruner(
            store=store,
            observer=Metrics(QUEUES, {}, version="0"),
            retention=timedelta(days=30),
            audit_retention=timedelta(days=365),
            keep_keys=timedelta(hours=24),
            keep_event_days=7,
        )
        await set_date(clock, at(0, "12:00"))
        await accepting.accept.submit([first])
        # `drop_keys` has the search_path of its creation, and so Postgres's own date.
        await clock.execute("ALTER FUNCTION drop_keys(integer) RESET search_path")
        await set_date(clock, at(1, "23:59:59"))
        await pruner.run_once()
        assert await key_days(clock) == [0]
        await set_date(clock, at(2, "00:00"))
        await pruner.run_once()
        assert await key_days(clock) == []
        assert await accepting.accept.submit([second]) == [Status.QUEUED]


async def test_a_key_that_is_kept_for_days_is_known_for_as_long(
    database_url: str, clock: Connection
) -> None:
    first = a_notification(key=a_key())
    async with (
        open_accepting(database_url) as accepting,
        open_store(ConnectionSettings(url=database_url), worker_id()) as store,
    ):
        await clock.execute("ALTER FUNCTION drop_keys(integer) RESET search_path")
        await set_date(clock, at(0, "12:00"))
        await accepting.accept.submit([first])
        await set_date(clock, at(4, "23:59"))
        assert await store.drop_keys(4) == 1  # yesterday
        (reply,) = await accepting.accept.submit([a_notification(key=a_key())])
        assert reply == Replayed(first.id, Status.QUEUED)
        with pytest.raises(StoreRejected):
            await store.drop_keys(0)


async def test_each_key_is_looked_up_and_no_day_is_read_as_a_whole(
    database_url: str, connection: Connection
) -> None:
    """Also by a plan that was made while the table was empty, as it is after an upgrade."""
    async with open_accepting(database_url) as accepting:
        await accepting.accept.submit([a_notification(key=a_key())])
        await connection.execute(
            "INSERT INTO idempotency_keys SELECT gen_random_uuid(), $1, gen_random_uuid(),"
            " gen_random_uuid(), 'queued' FROM generate_series(1, 20000)",
            TODAY - timedelta(days=1),
        )
        await accepting.accept.submit([a_notification(key=a_key(str(n))) for n in range(300)])
        await accepting.accept.submit([a_notification(key=a_key(str(n))) for n in range(300)])
    looked_up, read = await index_use(connection, TODAY - timedelta(days=1))
    assert looked_up >= 600
    assert read < 1000


async def index_use(connection: Connection, day: date) -> tuple[int, int]:
    """How often a day's index was searched, and how many of its entries were read."""
    row = await connection.fetchrow(
        "SELECT sum(idx_scan)::integer AS searched, sum(idx_tup_read)::integer AS read"
        " FROM pg_stat_user_indexes WHERE relname = $1",
        f"idempotency_keys_{day:%Y%m%d}",
    )
    assert row is not None
    return row["searched"], row["read"]
