"""Events on a real Postgres: what writes them, and that a reader gets each exactly once."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.event_writing import EventWriting
from notifier.adapters.postgres.events import PostgresEvents, open_events
from notifier.adapters.postgres.finding import LOOK_UP_SETTINGS
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.credentials import Mode
from notifier.domain.event_cursor import EventCursor, decode_cursor, encode_cursor
from notifier.domain.events import EventFilter, EventType
from notifier.domain.notification import Channel, Claimed, Priority, QueueKey, Status
from notifier.domain.suppressions import SuppressionReason
from notifier.ports.events import CursorGone, EventPage
from notifier.ports.store import ClaimRequest
from notifier.ports.suppressions import MatchingRow
from tests.builders import a_notification, a_result, new_id, worker_id
from tests.live_rows import claim_new, claimed, decision, sweep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.domain.events import Event
    from notifier.domain.notification import NewNotification

    Connection = asyncpg.Connection[asyncpg.Record]

WRITERS = 6
TRANSACTIONS = 40
"""Of each writer."""
MOST_EVENTS = WRITERS * TRANSACTIONS * 20
LIVE = EventFilter(mode=Mode.LIVE)
WRITE = """
    INSERT INTO event_batches (day, type, ids, claims, tries)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'notification.sent', $1::uuid[],
           array_fill(1, ARRAY[cardinality($1)]), array_fill(1::smallint, ARRAY[cardinality($1)])
"""
STORE_SOME = """
    INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata,
                               max_tries)
    SELECT id, now(), now() + interval '1 day', 'email.high', 'a@example.com', '{}', '{}', 1
    FROM unnest($1::uuid[]) AS id
"""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
async def events(database_url: str) -> AsyncIterator[PostgresEvents]:
    async with open_events(ConnectionSettings(url=database_url)) as events:
        yield events


async def read_on(
    events: PostgresEvents, cursor: EventCursor, limit: int = 1000
) -> tuple[list[Event], EventCursor]:
    """Read all that is committed, page by page; each cursor goes through its text."""
    found: list[Event] = []
    while True:
        page = await events.read(decode_cursor(encode_cursor(cursor)), limit)
        assert isinstance(page, EventPage)
        assert len(page.events) <= limit
        found += [read.event for read in page.events]
        cursor = page.cursor
        if page.is_complete:
            return found, cursor


async def types_of(events: PostgresEvents, cursor: EventCursor) -> list[tuple[str, str | None]]:
    """Return type and reason of each event after a cursor."""
    found, _ = await read_on(events, cursor)
    return [(event.type, _reason(event)) for event in found]


def _reason(event: Event) -> str | None:
    state = event.notification
    return None if state is None or state.result is None else state.result.reason


async def test_each_way_to_end_or_to_be_retried_writes_one_event(
    store: PostgresStore, events: PostgresEvents, connection: Connection
) -> None:
    start = await events.now()
    results: list[tuple[Status, dict[str, Any], tuple[str, str | None]]] = [
        (Status.SENT, {}, ("notification.sent", None)),
        (
            Status.FAILED,
            {"outcome": "refused", "reason": "refused"},
            ("notification.failed", "refused"),
        ),
        (
            Status.RETRYING,
            {"outcome": "unavailable", "after": timedelta(seconds=5)},
            ("notification.retrying", None),
        ),
    ]
    expected = []
    for status, answer, event in results:
        row = await claim_new_of(store, a_notification())
        await store.record([a_result(row, status, **answer)])
        await store.record([a_result(row, status, **answer)])  # a repetition has no event
        expected.append(event)
    cursor = start
    assert await types_of(events, cursor) == expected

    start = await events.now()
    waiting = [a_notification() for _ in range(4)]
    await store.insert(waiting)
    await connection.fetch(EventWriting(is_on=True).statement("cancel", 2), [waiting[0].id], None)
    await store.suppression_passes.end(
        [MatchingRow(waiting[1].id, new_id(), SuppressionReason.BOUNCE)]
    )
    await store.fail_unclaimable(ClaimRequest(id=waiting[2].id, claim=0), provider="smtp")
    await connection.execute("UPDATE live SET expires_at = now() WHERE id = $1", waiting[3].id)
    await sweep(store)
    assert await types_of(events, start) == [
        ("notification.cancelled", "request"),
        ("notification.suppressed", "bounce"),
        ("notification.failed", "poison"),
        ("notification.expired", "ttl"),
    ]

    start = await events.now()
    await store.insert([replace(a_notification(), suppressed="manual")])
    orphans = await claimed(store, a_notification(), a_notification())
    dead = store.worker
    await store.settle_orphans([decision(orphans[0], dead, Status.QUEUED)], [])
    await store.settle_orphans([decision(orphans[1], dead, Status.FAILED, "ambiguous")], [])
    assert await types_of(events, start) == [
        ("notification.suppressed", "manual"),
        ("notification.retrying", None),
        ("notification.failed", "ambiguous"),
    ]

    start = await events.now()
    await store.record([a_result(orphans[1])])  # the worker was not dead
    assert await types_of(events, start) == [("notification.sent", None)]


async def claim_new_of(store: PostgresStore, item: NewNotification) -> Claimed:
    await store.insert([item])
    return await claim_new(store, item)


async def write_late(url: str, seed: int, written: list[UUID]) -> None:
    """Write events in transactions that end out of order; some are rolled back."""
    chance = random.Random(seed)
    connection = await asyncpg.connect(url)
    for _ in range(TRANSACTIONS):
        ids = [new_id() for _ in range(chance.choice((1, 3, 20)))]
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(STORE_SOME, ids)
        for start in range(0, len(ids), 7):
            await connection.execute(WRITE, ids[start : start + 7])
        await asyncio.sleep(chance.choice((0, 0, 0.02, 0.2)))
        if chance.random() < 0.1:
            await transaction.rollback()
        else:
            await transaction.commit()
            written += ids
    await connection.close()


async def read_and_be_killed(url: str, seed: int, stop: asyncio.Event) -> Sequence[UUID]:
    """Read events in pages; now and then lose the answer and what is in memory, and resume."""
    chance = random.Random(seed)
    found: list[UUID] = []
    stored = ""
    while True:
        async with open_events(ConnectionSettings(url=url)) as events:
            cursor = decode_cursor(stored) if stored else await events.since(None)
            while True:
                is_last = stop.is_set()
                page = await events.read(cursor, chance.choice((1, 2, 5, 13)))
                assert isinstance(page, EventPage)
                if chance.random() < 0.05:
                    break  # killed before it has stored the answer
                ids = [
                    read.event.notification.id for read in page.events if read.event.notification
                ]
                cursor = page.cursor
                if page.events and chance.random() < 0.2:  # killed in the middle of the page
                    count = chance.randrange(1, len(page.events) + 1)
                    ids, cursor = ids[:count], page.events[count - 1].cursor
                    is_last = False
                found += ids
                assert len(found) <= 2 * MOST_EVENTS, "events are read again and again"
                stored = encode_cursor(cursor)
                if is_last and page.is_complete:
                    return found
                if page.is_complete:
                    await asyncio.sleep(0.005)


async def test_readers_that_are_killed_get_each_event_of_transactions_that_end_late_once(
    database_url: str, empty_database_url: str
) -> None:
    """One transaction of the same database and one of another run through it all."""
    foreign = [await asyncpg.connect(url) for url in (database_url, empty_database_url)]
    for connection in foreign:
        await connection.execute("BEGIN; CREATE TEMP TABLE open (n int)")
    stop = asyncio.Event()
    written: list[UUID] = []
    async with asyncio.TaskGroup() as group:
        readers = [
            group.create_task(read_and_be_killed(database_url, seed, stop)) for seed in (1, 2)
        ]
        async with asyncio.TaskGroup() as writers:
            for seed in range(WRITERS):
                writers.create_task(write_late(database_url, seed, written))
        stop.set()
    for connection in foreign:
        await connection.close()
    assert len(written) > TRANSACTIONS
    for reader in readers:
        assert Counter(reader.result()) == Counter(written)


async def test_what_runs_when_a_reader_begins_is_read_when_it_is_committed(
    database_url: str, connection: Connection, events: PostgresEvents
) -> None:
    early, late = [new_id()], [new_id()]
    writer = await asyncpg.connect(database_url)
    await writer.execute("BEGIN; CREATE TEMP TABLE first (n int)")
    at = await connection.fetchval("SELECT clock_timestamp()")
    await connection.execute(STORE_SOME, late)
    await connection.execute(WRITE, late)
    starts = [await events.since(at), await events.since(None), await events.now()]
    await writer.execute(STORE_SOME, early)
    await writer.execute(WRITE, early)
    await writer.execute("COMMIT")
    await writer.close()
    found = [ids_of((await read_on(events, start))[0]) for start in starts]
    assert found == [early + late, early + late, early]


async def test_a_read_up_to_another_cursor_has_what_that_has_seen_and_no_more(
    database_url: str, connection: Connection, events: PostgresEvents
) -> None:
    start = await events.now()
    first, running, second, later = ([new_id()] for _ in range(4))
    await connection.execute(STORE_SOME, first)
    await connection.execute(WRITE, first)
    writer = await asyncpg.connect(database_url)
    await writer.execute("BEGIN; CREATE TEMP TABLE first (n int)")
    await connection.execute(STORE_SOME, second)
    await connection.execute(WRITE, second)
    until = await events.now()
    await writer.execute(STORE_SOME, running)
    await writer.execute(WRITE, running)
    await writer.execute("COMMIT")
    await writer.close()
    await connection.execute(STORE_SOME, later)
    await connection.execute(WRITE, later)
    page = await events.read(start, 10, until=until)
    assert isinstance(page, EventPage)
    assert ids_of([read.event for read in page.events]) == first + second
    assert (page.cursor, page.is_complete) == (until, True)
    one = await events.read(start, 1, until=until)
    assert isinstance(one, EventPage)
    rest = await events.read(one.cursor, 10, until=until)
    assert isinstance(rest, EventPage)
    assert ids_of([read.event for read in rest.events]) == second
    assert ids_of((await read_on(events, until))[0]) == running + later


async def test_an_event_has_the_same_id_whenever_it_is_read(
    store: PostgresStore, events: PostgresEvents
) -> None:
    start = await events.now()
    rows = await claimed(store, *(a_notification() for _ in range(5)))
    await store.record([a_result(row) for row in rows])
    first, _ = await read_on(events, start)
    again, _ = await read_on(events, start, limit=2)
    assert first == again
    assert len({event.id for event in first}) == len(rows)
    assert {event.id.version for event in first} == {7}


async def test_an_event_shows_the_answer_of_the_provider_and_the_notification(
    store: PostgresStore, events: PostgresEvents
) -> None:
    start = await events.now()
    item = replace(a_notification(tag="login"), metadata=b'{"order":"17"}')
    row = await claim_new_of(store, item)
    await store.record(
        [a_result(row, Status.FAILED, outcome="refused", reason="refused", code="550")]
    )
    [event], _ = await read_on(events, start)
    state = event.notification
    assert state is not None
    assert (state.id, state.status, state.tag, state.metadata) == (
        item.id,
        "failed",
        "login",
        b'{"order":"17"}',
    )
    assert (state.channel, state.priority, state.tries) == (*_parts(item.queue), 1)
    assert state.result is not None
    assert (state.result.provider, state.result.code) == ("smtp", "550")


def _parts(queue: QueueKey) -> tuple[str, str]:
    return queue.channel, queue.priority


@pytest.mark.parametrize("channel", ["webhook", "inbox"])
async def test_notifications_of_webhooks_and_inboxes_have_no_events(
    store: PostgresStore, events: PostgresEvents, channel: str
) -> None:
    start = await events.now()
    row = await claim_new_of(store, a_notification(queue=QueueKey(Channel(channel), Priority.HIGH)))
    await store.record([a_result(row)])
    assert (await read_on(events, start))[0] == []


async def test_nothing_is_written_where_events_are_switched_off(
    database_url: str, connection: Connection
) -> None:
    async with open_store(
        ConnectionSettings(url=database_url), worker_id(), events=EventWriting(is_on=False)
    ) as store:
        row = await claim_new_of(store, a_notification())
        await store.record([a_result(row)])
        await store.insert([replace(a_notification(), suppressed="manual")])
    assert await connection.fetchval("SELECT count(*) FROM event_batches") == 0


async def test_a_record_is_stored_while_the_day_has_no_partition(
    store: PostgresStore, connection: Connection
) -> None:
    row = await claim_new_of(store, a_notification())
    name = f"event_batches_{datetime.now(UTC):%Y%m%d}"
    await connection.execute(
        f"ALTER TABLE event_batches DETACH PARTITION {name}; DROP TABLE {name}"
    )
    [recorded] = await store.record([a_result(row)])
    assert recorded.status is Status.SENT


async def test_a_cursor_of_another_history_or_of_before_the_oldest_day_is_gone(
    events: PostgresEvents, connection: Connection
) -> None:
    cursor = await events.now()
    gone = [
        EventCursor(cursor.epoch + 1, cursor.at, cursor.beyond),
        EventCursor(cursor.epoch, cursor.at, cursor.beyond + 1_000_000),
        EventCursor(cursor.epoch, cursor.at - timedelta(days=2), cursor.beyond),
    ]
    assert [await events.read(each, 1) for each in gone] == [CursorGone()] * 3
    assert await connection.fetchval("SELECT drop_events(1)") == 0
    assert isinstance(await events.read(cursor, 1), EventPage)


async def test_rows_that_a_dump_brought_are_not_read(
    events: PostgresEvents, connection: Connection
) -> None:
    start = await events.since(None)
    ids = [new_id()]
    await connection.execute(STORE_SOME, ids)
    await connection.execute(WRITE, ids)
    await connection.execute(
        """
        INSERT INTO event_batches (day, xid, type, ids, claims, tries)
        SELECT day, xid + n, type, ids, claims, tries
        FROM event_batches CROSS JOIN generate_series(-1, 1000) AS n WHERE n <> 1
        """
    )
    found, cursor = await read_on(events, start)
    assert len(found) == 1
    for _ in range(5):
        await connection.execute("SELECT pg_current_xact_id()")
    assert (await read_on(events, cursor))[0] == []


async def test_the_last_events_come_oldest_first_and_since_a_time_the_later_ones(
    store: PostgresStore, events: PostgresEvents
) -> None:
    items = [a_notification(tag="a" if number % 2 else "b") for number in range(6)]
    for item in items[:3]:
        await store.record([a_result(await claim_new_of(store, item))])
    middle = await store.database_now()
    for item in items[3:]:
        await store.record([a_result(await claim_new_of(store, item))])
    last = await events.last(4, LIVE)
    assert ids_of(last) == [item.id for item in items[2:]]
    tagged = EventFilter(mode=Mode.LIVE, tags=frozenset({"a"}))
    assert ids_of(await events.last(2, tagged)) == [items[3].id, items[5].id]
    since = await events.since(datetime.fromtimestamp(middle, UTC))
    assert ids_of((await read_on(events, since))[0]) == [item.id for item in items[3:]]
    assert ids_of((await read_on(events, await events.since(None)))[0]) == [
        item.id for item in items
    ]


def ids_of(found: Sequence[Event]) -> list[UUID]:
    return [event.notification.id for event in found if event.notification]


async def test_a_filter_is_applied_to_a_page_and_the_cursor_moves_on(
    store: PostgresStore, events: PostgresEvents
) -> None:
    start = await events.now()
    items = [a_notification(tag="a" if number == 4 else "b") for number in range(6)]
    rows = await claimed(store, *items)
    await store.record([a_result(row) for row in rows])
    selection = EventFilter(
        mode=Mode.LIVE, tags=frozenset({"a"}), types=frozenset({EventType.SENT})
    )
    page = await events.read(start, 1, selection)
    assert isinstance(page, EventPage)
    assert ids_of([read.event for read in page.events]) == [items[4].id]
    rest = await events.read(page.cursor, 1, selection)
    assert isinstance(rest, EventPage)
    assert (rest.events, rest.is_complete) == ([], True)


async def test_a_read_looks_up_what_ran_and_reads_on_from_there(connection: Connection) -> None:
    """Also while a transaction has been open since before thousands of rows, and in old plans."""
    await connection.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
    for name, value in LOOK_UP_SETTINGS.items():
        await connection.execute(f"SET {name} = {value}")
    await connection.execute(
        """
        INSERT INTO event_batches (day, xid, type, ids, claims, tries)
        SELECT (now() AT TIME ZONE 'UTC')::date, n, 'notification.sent', ARRAY[gen_random_uuid()],
               '{1}', '{1}'
        FROM generate_series(1, 20000) AS n
        """
    )
    rows = await connection.fetch(
        "EXPLAIN (ANALYZE, TIMING OFF, BUFFERS) " + statement("events_read"),
        [5, 9],
        19_990,
        0,
        200,
        2**63 - 1,
        [],
    )
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
    filtered = [int(number) for number in re.findall(r"Rows Removed by Filter: (\d+)", plan)]
    assert sum(filtered) < 100, plan
