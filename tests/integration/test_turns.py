"""The rows of tenants in turns, in a real Postgres."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.leases import encode_progress, open_leases
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.cursor import QueueCursor
from notifier.delivery.publish_window import MIN_WINDOW
from notifier.delivery.relay import Relay
from notifier.domain.due import BEGINNING, DueClass, Position
from notifier.domain.errors import StoreRefused, StoreUnavailable
from notifier.domain.features import TURNS
from notifier.domain.notification import NewNotification, Status
from notifier.domain.tenants import TenantId
from notifier.domain.turns import TURNS as ALL_TURNS
from notifier.domain.turns import turn_of
from notifier.lifecycle import uptime_s
from notifier.ports.leases import HeldLease, Progress, TurnProgress
from notifier.ports.queries import Filter
from notifier.ports.store import ClaimRequest, DueRange, ParkRequest, QueueTurn
from notifier.recovery.turn_return import TurnReturn
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    QUEUES,
    a_notification,
    a_result,
    due_ranges,
    worker_id,
)
from tests.live_rows import cancel_by, claim_new, live_row, retry_by
from tests.publishing import FaultyBroker, FixedCluster, FixedGates, FixedLeases

if TYPE_CHECKING:
    from tests.live_rows import Connection

A = TenantId("a")
OF_A = turn_of(A)
LIMITS = dict.fromkeys(DueClass, 100)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


async def stored_in_turn(
    store: PostgresStore, count: int, turn: int = OF_A, delay: timedelta | None = None
) -> Sequence[NewNotification]:
    items = [a_notification(tenant=A, delay=delay) for _ in range(count)]
    await store.insert(items, turns={item.id: turn for item in items})
    return items


def ids(items: Sequence[NewNotification]) -> list[UUID]:
    return [item.id for item in items]


async def read_turn(store: PostgresStore, turn: int) -> list[UUID]:
    """Return the due rows of email.high in a turn."""
    ranges = [DueRange(EMAIL_HIGH, of, BEGINNING, 1000, turn=turn) for of in DueClass]
    rows = (await store.read_due(ranges)).rows
    assert {row.turn for row in rows} <= {turn}
    return [row.position.id for row in rows]


async def run_pass(store: PostgresStore, cursor: QueueCursor, room: int = 100) -> list[UUID]:
    """Run a pass; returns the ids that it published."""
    now = uptime_s()
    _, others = cursor.divide(room, now)
    read = await store.read_due(cursor.ranges(LIMITS, room, now, others))
    batch = cursor.read(read.rows, read, uptime_s())
    cursor.settle(batch)
    return [row.position.id for row in batch.rows]


def a_relay(store: PostgresStore, broker: FaultyBroker, leases: FixedLeases) -> Relay:
    return Relay(
        store=store,
        broker=broker,
        observer=Metrics(QUEUES, {}, version="0"),
        queues=QUEUES,
        leases=leases,
        cluster=FixedCluster(),
        gates=FixedGates(),
    )


async def test_a_row_is_read_in_its_turn_which_was_noted_before(
    store: PostgresStore, connection: Connection
) -> None:
    of_a = await stored_in_turn(store, 3)
    keyless = a_notification()
    await store.insert_keyed([keyless], turns={keyless.id: 63})
    assert await read_turn(store, OF_A) == ids(of_a)
    assert await read_turn(store, 63) == [keyless.id]
    assert await read_turn(store, 0) == []
    rows = await connection.fetch("SELECT * FROM turns ORDER BY turn")
    assert [tuple(row) for row in rows] == [("email.high", OF_A), ("email.high", 63)]


async def test_a_turn_is_noted_before_the_first_row_is_stored_in_it(
    store: PostgresStore, connection: Connection
) -> None:
    """So a process that dies in between leaves no row where nobody reads."""
    await connection.execute("ALTER TABLE turns RENAME TO gone")
    with pytest.raises(StoreRefused):
        await stored_in_turn(store, 1)
    assert await connection.fetchval("SELECT count(*) FROM live") == 0


async def test_a_turn_that_a_failover_lost_is_noted_again(
    store: PostgresStore, connection: Connection
) -> None:
    await stored_in_turn(store, 1)
    await connection.execute("DELETE FROM turns")
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with contextlib.suppress(StoreUnavailable):  # the connection may not be known to be closed
        await stored_in_turn(store, 1)
    await stored_in_turn(store, 1)
    assert await connection.fetchval("SELECT array_agg(turn) FROM turns") == [OF_A]


async def test_the_rows_of_a_small_tenant_do_not_wait_for_those_of_a_large_one(
    store: PostgresStore,
) -> None:
    broker, leases = FaultyBroker(), FixedLeases()
    await stored_in_turn(store, 200)
    leases.leases[EMAIL_HIGH].turns = (OF_A,)
    relay = a_relay(store, broker, leases)
    assert await relay.run_once() > 0
    small = [a_notification(tenant=TenantId("b")) for _ in range(10)]
    await store.insert(small)
    await broker.drain(EMAIL_HIGH)
    before = len(broker.published)
    published = list[UUID]()
    while not set(ids(small)) <= set(published):
        await relay.run_once()
        await broker.drain(EMAIL_HIGH)
        published = [pointer.id for pointer in broker.published[before:]]
    assert len(published) <= 2 * MIN_WINDOW
    while len(broker.published) < 210:
        await relay.run_once()
        await broker.drain(EMAIL_HIGH)
    assert len({pointer.id for pointer in broker.published}) == 210


async def test_of_many_idle_queues_one_with_a_due_row_in_a_turn_is_found(
    store: PostgresStore,
) -> None:
    await stored_in_turn(store, 1)
    cursor = QueueCursor(EMAIL_HIGH, Progress(), uptime_s())
    cursor.add_turns([OF_A], uptime_s())
    asked = {QueueTurn(EMAIL_HIGH, turn): cursor.floor_times(turn) for turn in (0, OF_A)}
    assert (await store.find_due(asked)).queues == {EMAIL_HIGH}
    assert (await store.find_due({QueueTurn(EMAIL_HIGH, 0): cursor.floor_times()})).queues == set()
    later = QueueTurn(EMAIL_LOW, OF_A)
    assert (await store.find_due({later: cursor.floor_times(OF_A)})).queues == set()


async def test_a_row_keeps_its_turn_when_it_is_given_back_retried_parked_or_recovered(
    store: PostgresStore, connection: Connection
) -> None:
    back, again, parked = await stored_in_turn(store, 3)

    async def turn(item: NewNotification) -> tuple[int, int]:
        row = await live_row(connection, item.id)
        assert row is not None
        return row["turn"], row["class"]

    await claim_new(store, back)
    await store.give_back([ClaimRequest(id=back.id, claim=0)])
    claimed = await claim_new(store, again)
    await store.record([a_result(claimed, Status.RETRYING, after=timedelta(0))])
    claimed = await claim_new(store, parked)
    await store.park([ParkRequest(id=claimed.id, claim=claimed.claim, after_s=60.0)])
    assert await turn(back) == (OF_A, DueClass.BACK)
    assert await turn(again) == (OF_A, DueClass.RETRY)
    assert await turn(parked) == (OF_A, DueClass.FIRST)
    assert await read_turn(store, OF_A) == [back.id, again.id]


@pytest.mark.parametrize("tenant", ["", "a", "a-b_9"])
async def test_what_a_person_retries_is_in_the_turn_of_its_tenant_if_the_queue_uses_it(
    store: PostgresStore, connection: Connection, tenant: TenantId
) -> None:
    async def retried() -> int:
        item = a_notification(tenant=tenant)
        await store.insert([item])
        await cancel_by(connection, item.id)
        assert await retry_by(connection, item.id) == [item.id]
        row = await live_row(connection, item.id)
        assert row is not None
        return int(row["turn"])

    assert await retried() == 0
    await connection.execute("INSERT INTO turns VALUES ('email.high', $1)", turn_of(tenant))
    assert await retried() == turn_of(tenant)


async def test_a_new_holder_continues_each_turn_where_the_last_one_stopped(
    store: PostgresStore, database_url: str
) -> None:
    settings = ConnectionSettings(url=database_url)
    first = await stored_in_turn(store, 5)
    cursor = QueueCursor(EMAIL_HIGH, Progress(), uptime_s())
    cursor.add_turns([OF_A], uptime_s())
    assert await run_pass(store, cursor) == ids(first)
    second = await stored_in_turn(store, 5)
    assert await run_pass(store, cursor) == ids(second)
    async with (
        open_leases(settings, worker_id(), [EMAIL_HIGH]) as one,
        open_leases(settings, worker_id(), [EMAIL_HIGH]) as two,
    ):
        seen = (await one.renew([])).leases
        assert [lease.turns for lease in seen] == [(OF_A,)]
        assert await one.acquire(seen) == {EMAIL_HIGH: Progress()}
        held = HeldLease(
            queue=EMAIL_HIGH,
            term=1,
            progress=cursor.progress(is_backlogged=False),
            renewed_at=0.0,
            passed_at=0.0,
        )
        await one.release([held])
        progress = (await two.acquire((await two.renew([])).leases))[EMAIL_HIGH]
    assert progress == held.progress
    floor = progress.floor(DueClass.FIRST, OF_A)
    assert floor > BEGINNING
    successor = QueueCursor(EMAIL_HIGH, progress, uptime_s())
    successor.add_turns([OF_A], uptime_s())
    third = await stored_in_turn(store, 1)
    published = await run_pass(store, successor)
    assert third[0].id in published
    assert not {*ids(first)} & {*published}


class Workers:
    """Whether a worker of the version before lives."""

    def __init__(self) -> None:
        self.is_behind = True

    def is_lacked(self, feature: str) -> bool:
        assert feature == TURNS
        return self.is_behind


async def test_a_worker_of_the_version_before_publishes_the_rows_of_all_turns(
    store: PostgresStore, connection: Connection
) -> None:
    """It reads turn 0 only, and its cursor may be behind no row that is moved there."""
    waiting = await stored_in_turn(store, 3)
    (sending,) = await stored_in_turn(store, 1)
    later = await stored_in_turn(store, 1, delay=timedelta(hours=1))
    claimed = await claim_new(store, sending)
    old = QueueCursor(EMAIL_HIGH, Progress(), uptime_s())
    newest = a_notification()
    await store.insert([newest])
    for _ in range(3):
        await run_pass(store, old)
    assert old.progress(is_backlogged=False).floor(DueClass.FIRST).id == newest.id
    workers = Workers()
    returning = TurnReturn(store=store, features=workers)
    workers.is_behind = False
    assert await returning.run_once() == 0
    workers.is_behind = True
    assert await returning.run_once() == 5
    assert await returning.run_once() == 0
    assert set(await run_pass(store, old)) == {*ids(waiting)}
    await store.record([a_result(claimed, Status.RETRYING, after=timedelta(0))])
    assert await run_pass(store, old) == [sending.id]
    row = await live_row(connection, later[0].id)
    assert row is not None
    assert row["turn"] == 0
    assert row["due_at"] - row["created_at"] == timedelta(hours=1)


async def test_rows_that_another_process_has_locked_are_moved_later(
    store: PostgresStore, connection: Connection
) -> None:
    item, other = await stored_in_turn(store, 2)
    async with connection.transaction():
        await connection.execute("SELECT FROM live WHERE id = $1 FOR UPDATE", item.id)
        assert await store.return_turns() == {"email.high": 1}
    assert await store.return_turns() == {"email.high": 1}
    assert set(await read_turn(store, 0)) == {item.id, other.id}


async def test_people_and_the_allocator_see_the_rows_of_all_turns(
    store: PostgresStore, database_url: str
) -> None:
    items = await stored_in_turn(store, 4)
    plain = a_notification()
    await store.insert([plain])
    claimed = await claim_new(store, items[0])
    assert (await store.waiting([EMAIL_HIGH]))[EMAIL_HIGH].due == 4
    assert (await store.count_waiting([EMAIL_HIGH]))[EMAIL_HIGH].due == 4
    async with open_reader(ConnectionSettings(url=database_url)) as reader:
        for status, expected in (
            (Status.QUEUED, {plain.id, *ids(items[1:])}),
            (Status.SENDING, {claimed.id}),
        ):
            page = await reader.notifications(Filter(status=(status,)))
            assert {view.id for view in page.views} == expected


async def test_turn_0_is_read_alone_where_no_other_turn_is_used(store: PostgresStore) -> None:
    await store.insert([a_notification()])
    cursor = QueueCursor(EMAIL_HIGH, Progress(), uptime_s())
    ranges = cursor.ranges(LIMITS, 100, uptime_s(), cursor.divide(100, uptime_s()).others)
    assert [(range_.turn, range_.due_class) for range_ in ranges] == [
        (0, DueClass.BACK),
        (0, DueClass.DIRECT),
        (0, DueClass.FIRST),
        (0, DueClass.RETRY),
    ]
    assert len(ranges) == len(due_ranges(EMAIL_HIGH))


@pytest.mark.parametrize("name", ["waiting", "count_waiting"])
async def test_the_progress_of_many_turns_is_divided_once(
    store: PostgresStore, connection: Connection, name: str
) -> None:
    """It is 30 KB for each queue, and compressed: read again for each turn, that took a second."""
    queues = [str(queue) for queue in QUEUES]
    turns = range(1, ALL_TURNS)
    await connection.execute(
        "INSERT INTO turns SELECT * FROM unnest($1::text[]) q, unnest($2::smallint[]) t",
        queues,
        list(turns),
    )
    for queue in queues:
        positions = [{of: Position(datetime.now(UTC), uuid4()) for of in DueClass} for _ in turns]
        of_turns = {
            turn: TurnProgress(floors=positions[turn - 1], marks=positions[turn - 1])
            for turn in turns
        }
        await connection.execute(
            "INSERT INTO leases (queue, term, beat, progress) VALUES ($1, 1, 1, $2::jsonb)",
            queue,
            encode_progress(Progress(turns=of_turns)),
        )
    async with store._connections.maintenance.acquire() as session:
        explain = "EXPLAIN (ANALYZE, TIMING OFF, BUFFERS, FORMAT JSON) "
        [row] = await session.fetch(explain + statement(name), queues, 1000)
    plan = json.loads(row[0])[0]["Plan"]
    probes = len(queues) * ALL_TURNS * len(DueClass) * 2
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 4 * probes


async def test_each_turn_to_be_moved_is_found_by_its_queue(store: PostgresStore) -> None:
    """Otherwise it would read the index entries of all other queues."""
    async with store._connections.maintenance.acquire() as session:
        [row] = await session.fetch(
            "EXPLAIN (FORMAT JSON) " + statement("turns_return").replace("$1", "5000")
        )
    nodes, found = [json.loads(row[0])[0]["Plan"]], []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", ())
        if node.get("Index Name") == "live_due":
            found.append(node)
    assert len(found) == 1
    assert "queue = " in found[0]["Index Cond"]
    assert "Filter" not in found[0]
