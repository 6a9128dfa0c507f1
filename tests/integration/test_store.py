"""The contracts of the store, on a real Postgres."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from harness.client import until
from notifier.adapters.postgres.connection import ConnectionSettings, PostgresConnection
from notifier.adapters.postgres.migrate import migrate, revisions
from notifier.adapters.postgres.store import UNCLAIMED, PostgresStore, open_store
from notifier.domain.due import BEGINNING, DueClass
from notifier.domain.errors import StoreRefused, StoreRejected, StoreUnavailable
from notifier.domain.notification import Claimed, NotificationId, Status
from notifier.ports.heartbeat import DeadProcess
from notifier.ports.store import ClaimRequest, DueRange, DueRead, NotClaimed
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    SMS_HIGH,
    a_notification,
    a_result,
    claim_request,
    due_ranges,
    new_id,
    worker_id,
)
from tests.live_rows import (
    SESSIONS_THAT_WAIT_FOR_A_LOCK,
    attempts_of,
    cancel_by,
    claim_all,
    claimed,
    decision,
    due,
    end_of,
    live_row,
    published,
    retry_by,
    sweep,
    sweep_by,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import date

    from notifier.ports.store import AttemptResult
    from tests.live_rows import Connection

NOW = timedelta(0)
EXPIRE_ALL = "UPDATE live SET expires_at = now()"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[PostgresStore]:
    """The store of another worker."""
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
async def second_connection(database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@asynccontextmanager
async def row_locked(connection: Connection, id_: UUID) -> AsyncIterator[None]:
    """Hold the lock of a row in `live` through the block."""
    async with connection.transaction():
        await connection.execute("SELECT FROM live WHERE id = $1 FOR UPDATE", id_)
        yield


async def until_a_session_waits(connection: Connection) -> None:
    await until(lambda: connection.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK), lambda count: count > 0)


async def until_all_have_ended_before(transaction: int, store: PostgresStore) -> DueRead:
    """Read until the snapshot proves it; transactions of autovacuum count too."""
    read: DueRead = await until(
        lambda: store.read_due(due_ranges()), lambda read: read.oldest_running >= transaction
    )
    return read


@asynccontextmanager
async def in_transaction(session: PostgresConnection) -> AsyncIterator[None]:
    """Run what the store does on this connection in one transaction."""
    await session.fetch("BEGIN")
    await session.fetch("SELECT now()")
    yield
    await session.fetch("COMMIT")


async def bury(
    undertaker: PostgresStore, worker: PostgresStore, *rows: Claimed, status: Status = Status.QUEUED
) -> Sequence[Status]:
    """Settle rows of a worker that has no heartbeat; return the status of each changed row."""
    reason = "ambiguous" if status is Status.FAILED else ""
    decisions = [decision(row, worker.worker, status, reason) for row in rows]
    return [settled.status for settled in await undertaker.settle_orphans(decisions, [])]


async def beat(connection: Connection, store: PostgresStore, number: int) -> None:
    await connection.execute(
        """
        INSERT INTO workers (id, kind, host, pid, beat, figures)
        VALUES ($1, 'worker', 'h', 1, $2, '{}')
        ON CONFLICT (id) DO UPDATE SET beat = excluded.beat
        """,
        store.worker,
        number,
    )


def refused(row: Claimed, code: str = "550") -> tuple[AttemptResult, float]:
    return a_result(row, Status.FAILED, outcome="refused", reason="refused", code=code)


async def retried(store: PostgresStore, row: Claimed) -> Claimed:
    """Record a retry that is due at once, and claim the row again."""
    await store.record([a_result(row, Status.RETRYING, outcome="unavailable", after=NOW)])
    [again] = await claim_all(store, await due(store))
    return again


async def test_a_second_migration_applies_nothing(empty_database_url: str) -> None:
    assert await asyncio.to_thread(migrate, empty_database_url) == revisions()
    assert await asyncio.to_thread(migrate, empty_database_url) == []


async def test_a_database_without_tables_is_refused_work_that_names_the_command(
    empty_database_url: str,
) -> None:
    async with open_store(ConnectionSettings(url=empty_database_url), worker_id()) as store:
        with pytest.raises(StoreRefused, match="notifier migrate"):
            await store.read_due(due_ranges())


async def test_an_inserted_notification_is_due_at_once(
    store: PostgresStore, connection: Connection
) -> None:
    item = a_notification(content=b"x" * 200_000, max_tries=3)
    assert await store.insert([item]) == []
    [row] = (await store.read_due(due_ranges())).rows
    assert (row.position.id, row.queue, row.due_class) == (item.id, EMAIL_HIGH, DueClass.FIRST)
    assert (row.claim, row.claimed_by, row.is_expired) == (0, None, False)
    assert (row.size, row.deaths) == (200_000, 0)
    stored = await connection.fetchrow(
        """
        SELECT l.created_at = n.created_at AND l.due_at = n.created_at
               AND l.ready_at = n.created_at AND l.expires_at = n.expires_at AS is_one_time,
               n.expires_at - n.created_at AS ttl, l.max_tries, l.tries
        FROM live l JOIN notifications n USING (id)
        """
    )
    assert stored is not None
    assert tuple(stored) == (True, item.ttl, 3, 0)


async def test_only_the_rows_to_be_published_directly_come_back_in_the_order_of_the_call(
    store: PostgresStore,
) -> None:
    items = [a_notification(queue) for queue in (EMAIL_LOW, SMS_HIGH, EMAIL_HIGH)]
    before = await store.database_now()
    pointers = await store.insert(items, direct={items[2].id, items[0].id})
    assert [(pointer.id, pointer.queue, pointer.claim) for pointer in pointers] == [
        (items[0].id, EMAIL_LOW, 0),
        (items[2].id, EMAIL_HIGH, 0),
    ]
    assert all(pointer.published_at >= before for pointer in pointers)
    classes = {row.position.id: row.due_class for row in (await store.read_due(due_ranges())).rows}
    assert classes == {
        items[0].id: DueClass.DIRECT,
        items[1].id: DueClass.FIRST,
        items[2].id: DueClass.DIRECT,
    }


@pytest.mark.parametrize("is_direct", [False, True], ids=["first", "direct"])
async def test_a_repeated_insert_stores_nothing_again_and_returns_no_pointer(
    store: PostgresStore, connection: Connection, *, is_direct: bool
) -> None:
    items = [a_notification() for _ in range(3)]
    direct = {item.id for item in items} if is_direct else set()
    assert len(await store.insert(items[:2], direct=direct)) == len(direct and items[:2])
    before = await connection.fetch("SELECT * FROM live ORDER BY id")
    repeated = await store.insert(items, direct=direct)
    assert [pointer.id for pointer in repeated] == ([items[2].id] if is_direct else [])
    after = await connection.fetch("SELECT * FROM live ORDER BY id")
    assert [row for row in after if row["id"] != items[2].id] == before
    assert await connection.fetchval("SELECT count(*) FROM notifications") == 3


async def test_an_insert_repeated_after_the_row_was_sent_makes_no_second_row(
    store: PostgresStore, connection: Connection
) -> None:
    item = a_notification()
    [row] = await claimed(store, item)
    await store.record([a_result(row)])
    assert await store.insert([item], direct={item.id}) == []
    assert await live_row(connection, item.id) is None
    assert await due(store) == []


async def test_an_insert_repeated_after_the_row_ended_makes_no_second_row(
    store: PostgresStore, connection: Connection
) -> None:
    item = a_notification(ttl=timedelta(microseconds=1))
    await store.insert([item])
    await sweep(store)
    assert await store.insert([item], direct={item.id}) == []
    assert await live_row(connection, item.id) is None


async def test_of_two_inserts_at_once_one_stores_the_row(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    items = [a_notification() for _ in range(20)]
    direct = {item.id for item in items}
    async with asyncio.TaskGroup() as group:
        inserts = [
            group.create_task(store.insert(items, direct=direct)),
            group.create_task(other.insert(items[::-1], direct=direct)),
        ]
    stored = [pointer.id for insert in inserts for pointer in insert.result()]
    assert sorted(stored) == sorted(direct)
    assert await connection.fetchval("SELECT count(*) FROM live") == len(items)


async def test_a_snapshot_tells_whether_rows_may_still_appear_behind_a_read(
    store: PostgresStore, other: PostgresStore
) -> None:
    item = a_notification()
    async with in_transaction(store._connections.accept):
        before = await other.read_due(due_ranges())
        await store.insert([item])
        during = await other.read_due(due_ranges())
        assert during.rows == []
        assert during.oldest_running < during.next_transaction
    after = await until_all_have_ended_before(during.next_transaction, other)
    [row] = after.rows
    assert before.now < row.position.due_at < during.now < after.now


async def test_a_transaction_that_began_before_a_read_is_below_its_next_transaction(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    # None that began later has ended: the snapshot's own xmax is the number of the oldest of them.
    async with in_transaction(store._connections.accept), connection.transaction():
        await store.insert([a_notification()])
        newest = int(await connection.fetchval("SELECT pg_current_xact_id()::text"))
        read = await other.read_due(due_ranges())
        assert read.oldest_running < newest < read.next_transaction
    await until_all_have_ended_before(read.next_transaction, other)


async def test_a_row_that_is_due_again_is_due_after_its_transaction_has_its_number(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    given_back, retried_row, buried = await claimed(other, *(a_notification() for _ in range(3)))
    retry = a_result(retried_row, Status.RETRYING, outcome="unavailable", after=NOW)
    for session, row, work in (
        (other._connections.give_back, given_back, other.give_back([request_of(given_back)])),
        (other._connections.record, retried_row, other.record([retry])),
        (store._connections.maintenance, buried, bury(store, other, buried)),
    ):
        async with in_transaction(session):
            read = await (store if session is not store._connections.maintenance else other).look(
                []
            )
            await work
        live = await live_row(connection, row.id)
        assert live is not None
        assert live["due_at"] > read.now


async def test_a_read_has_no_row_and_a_time_if_nothing_is_due(store: PostgresStore) -> None:
    read = await store.read_due(due_ranges())
    assert read.rows == []
    assert abs(read.now.timestamp() - await store.database_now()) < 60
    assert read.oldest_running <= read.next_transaction


async def test_a_scheduled_notification_is_not_due_before_its_time(
    store: PostgresStore, connection: Connection
) -> None:
    item = a_notification(delay=timedelta(hours=1), ttl=timedelta(hours=2))
    await store.insert([item])
    assert await due(store) == []
    await connection.execute("UPDATE live SET due_at = now(), ready_at = now()")
    assert [pointer.id for pointer in await due(store)] == [item.id]


async def test_each_range_is_read_in_the_order_of_its_positions_up_to_its_limit(
    store: PostgresStore, connection: Connection
) -> None:
    items = [a_notification(queue) for queue in (EMAIL_LOW, EMAIL_HIGH) for _ in range(6)]
    await store.insert(items)
    # Three rows of each queue at one time: their ids give their order.
    await connection.execute(
        "UPDATE live SET due_at = to_timestamp(1 + (right(id::text, 1) < '8')::integer)"
    )
    everything = (await store.read_due(due_ranges())).rows
    assert [row.queue for row in everything] == [EMAIL_HIGH] * 6 + [EMAIL_LOW] * 6
    for queue in (EMAIL_HIGH, EMAIL_LOW):
        positions = [row.position for row in everything if row.queue == queue]
        assert all(first < second for first, second in pairwise(positions))
        for index, after in enumerate([BEGINNING, *positions]):
            ranges = [DueRange(queue, DueClass.FIRST, after, 2)]
            read = await store.read_due(ranges)
            assert [row.position for row in read.rows] == positions[index : index + 2]
            assert list((await store.look(ranges)).rows) == list(read.rows)


async def test_a_read_ends_at_its_latest_time_and_leaves_rows_that_are_due_for_too_short(
    store: PostgresStore, connection: Connection
) -> None:
    await store.insert([a_notification()])
    await connection.execute("UPDATE live SET due_at = now() - interval '10 seconds'")
    [row] = (await store.read_due(due_ranges(EMAIL_HIGH))).rows
    due_at = row.position.due_at

    async def count(until_: datetime | None, due_for_s: float) -> int:
        range_ = DueRange(EMAIL_HIGH, DueClass.FIRST, BEGINNING, 5, until_, due_for_s)
        return len((await store.read_due([range_])).rows)

    assert await count(due_at, 0.0) == 1
    assert await count(due_at - timedelta(microseconds=1), 0.0) == 0
    assert await count(None, 9.0) == 1
    assert await count(None, 3600.0) == 0
    assert await count(due_at, 3600.0) == 0


async def test_claimed_and_expired_rows_are_read_too(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    expired = a_notification(ttl=timedelta(microseconds=1))
    await store.insert([expired])
    rows = {row.position.id: row for row in (await store.read_due(due_ranges())).rows}
    assert (rows[row.id].claimed_by, rows[row.id].is_expired) == (store.worker, False)
    assert (rows[expired.id].claimed_by, rows[expired.id].is_expired) == (None, True)


async def test_a_claim_returns_what_the_worker_needs_to_send(
    store: PostgresStore, connection: Connection
) -> None:
    first, second = a_notification(max_tries=2), a_notification(SMS_HIGH, recipient="+491")
    pointers = {pointer.id: pointer for pointer in await published(store, first, second)}
    await connection.execute("UPDATE live SET ready_at = ready_at - interval '1 minute', tries = 7")
    unknown = ClaimRequest(id=new_id(), claim=0)
    requests = [claim_request(pointers[second.id]), unknown, claim_request(pointers[first.id])]
    replies = await store.claim(requests)
    assert replies[1] == NotClaimed()
    rows = [reply for reply in replies if isinstance(reply, Claimed)]
    assert [(row.id, row.claim, row.queue, row.recipient, row.tries) for row in rows] == [
        (second.id, 1, SMS_HIGH, "+491", 7),
        (first.id, 1, EMAIL_HIGH, first.recipient, 7),
    ]
    assert [(row.max_tries, row.content) for row in rows] == [
        (None, second.content),
        (2, first.content),
    ]
    assert all(60 <= row.waited_s < 600 for row in rows)
    live = await live_row(connection, first.id)
    assert live is not None
    assert (live["claimed_by"], live["claim"]) == (store.worker, 1)
    assert live["claimed_at"] > live["created_at"]


async def test_two_copies_of_a_pointer_in_one_batch_are_claimed_once(
    store: PostgresStore,
) -> None:
    [pointer] = await published(store, a_notification())
    replies = await store.claim([claim_request(pointer), claim_request(pointer)])
    assert {type(reply) for reply in replies} == {Claimed, NotClaimed}


async def test_the_highest_of_two_claims_in_one_batch_wins(store: PostgresStore) -> None:
    [pointer] = await published(store, a_notification())
    await claim_all(store, [pointer])
    await store.give_back([claim_request(pointer)])
    [again] = await due(store)
    replies = await store.claim([claim_request(pointer), claim_request(again)])
    assert isinstance(replies[0], NotClaimed)
    assert isinstance(replies[1], Claimed)
    assert replies[1].claim == 2


async def test_only_one_worker_can_claim_a_pointer(
    store: PostgresStore, other: PostgresStore
) -> None:
    [pointer] = await published(store, a_notification())
    assert isinstance((await store.claim([claim_request(pointer)]))[0], Claimed)
    assert isinstance((await other.claim([claim_request(pointer)]))[0], NotClaimed)
    assert isinstance((await store.claim_urgent([claim_request(pointer)]))[0], NotClaimed)


async def test_of_claims_at_once_each_row_goes_to_one_worker(
    store: PostgresStore, other: PostgresStore
) -> None:
    pointers = await published(store, *(a_notification() for _ in range(100)))
    requests = [claim_request(pointer) for pointer in pointers]
    async with asyncio.TaskGroup() as group:
        claims = [
            group.create_task(store.claim(requests)),
            group.create_task(other.claim(requests[::-1])),
            group.create_task(store.claim_urgent(requests[50:])),
        ]
    rows = [row.id for claim in claims for row in claim.result() if isinstance(row, Claimed)]
    assert sorted(rows) == sorted(pointer.id for pointer in pointers)


async def test_a_claim_leaves_a_row_whose_time_is_over(
    store: PostgresStore, connection: Connection
) -> None:
    [pointer] = await published(store, a_notification(ttl=timedelta(microseconds=1)))
    before = await live_row(connection, pointer.id)
    assert await store.claim([claim_request(pointer)]) == [NotClaimed()]
    assert await live_row(connection, pointer.id) == before


async def test_a_claimed_row_without_a_notification_ends_and_harms_no_other(
    store: PostgresStore, connection: Connection
) -> None:
    pointers = await published(store, *(a_notification() for _ in range(5)))
    await connection.execute("DELETE FROM notifications WHERE id = $1", pointers[2].id)
    replies = await store.claim([claim_request(pointer) for pointer in pointers])
    assert [isinstance(reply, Claimed) for reply in replies] == [True, True, False, True, True]
    reply = replies[2]
    assert isinstance(reply, NotClaimed)
    assert reply.status is Status.FAILED
    assert await live_row(connection, pointers[2].id) is None
    assert await end_of(connection, pointers[2].id) is None


async def test_a_row_whose_partition_is_gone_ends_at_its_claim_at_the_sweep_or_at_the_burial(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    items = [
        a_notification(id_=NotificationId(await an_id_of(connection, yesterday)), ttl=ttl)
        for ttl in (timedelta(hours=1), timedelta(hours=2), timedelta(microseconds=1))
    ]
    claimable, orphan = await published(store, *items[:2])
    [row] = await claim_all(other, [orphan])
    await store.insert(items[2:])
    for parent in ("notifications", "attempts", "ends"):
        await connection.execute(f"DROP TABLE {parent}_{yesterday:%Y%m%d}")
    [reply] = await store.claim([claim_request(claimable)])
    assert isinstance(reply, NotClaimed)
    assert reply.status is Status.FAILED
    assert len(await sweep(store)) == 1
    assert await bury(store, other, row) == [Status.QUEUED]
    assert [pointer.id for pointer in await due(store)] == [row.id]
    [reply] = await store.claim([ClaimRequest(id=row.id, claim=row.claim)])
    assert isinstance(reply, NotClaimed)
    assert reply.status is Status.FAILED
    assert await connection.fetchval("SELECT count(*) FROM live") == 0


async def an_id_of(connection: Connection, day: date) -> UUID:
    """Return an id of a notification that was accepted at that day."""
    first = await connection.fetchval("SELECT uuid_at(day_start($1) + interval '1 hour')", day)
    return UUID(int=first.int + secrets.randbits(32))


async def test_record_sent_deletes_the_row_and_keeps_the_attempt(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    [recorded] = await store.record([a_result(row)])
    assert (recorded.status, recorded.late) == (Status.SENT, False)
    assert recorded.age_s > 0
    assert await live_row(connection, row.id) is None
    assert await end_of(connection, row.id) is None
    [attempt] = await connection.fetch("SELECT * FROM attempts")
    assert (attempt["claim"], attempt["outcome"], attempt["code"]) == (1, "accepted", "250")
    assert (attempt["tries"], attempt["recorded_by"], attempt["next_at"]) == (1, store.worker, None)
    assert attempt["finished_at"] > attempt["started_at"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(Status.SENT, "accepted"), (Status.FAILED, "refused"), (Status.RETRYING, "unavailable")],
)
async def test_the_http_status_is_kept_beside_the_code(
    store: PostgresStore, connection: Connection, status: Status, outcome: str
) -> None:
    rows = await claimed(store, *(a_notification() for _ in range(3)))
    statuses = dict(zip((row.id for row in rows), (201, None, 503), strict=True))
    after = timedelta(seconds=1) if status is Status.RETRYING else None
    await store.record(
        [
            a_result(row, status, outcome=outcome, after=after, http_status=statuses[row.id])
            for row in rows
        ]
    )
    found = await connection.fetch("SELECT id, http_status FROM attempts")
    assert dict(map(tuple, found)) == statuses


@pytest.mark.parametrize("codes", [["", "", ""], ["", "250", ""]])
async def test_each_accepted_attempt_keeps_its_texts_also_if_they_are_empty(
    store: PostgresStore, connection: Connection, codes: list[str]
) -> None:
    rows = await claimed(store, *(a_notification() for _ in codes))
    await store.record([a_result(row, code=code) for row, code in zip(rows, codes, strict=True)])
    stored = {
        attempt["id"]: (attempt["code"], attempt["detail"], attempt["reference"])
        for attempt in await connection.fetch("SELECT * FROM attempts")
    }
    assert stored == {row.id: (code, "", "") for row, code in zip(rows, codes, strict=True)}


async def test_a_repeated_record_sent_changes_nothing(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    result = a_result(row)
    await store.record([result])
    before = await connection.fetch("SELECT * FROM attempts")
    [again] = await store.record([result])
    assert (again.status, again.late) == (Status.SENT, False)
    assert await connection.fetch("SELECT * FROM attempts") == before


async def test_a_retry_leaves_the_row_due_after_its_wait_behind_first_attempts(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    wait = timedelta(minutes=5)
    unavailable = a_result(row, Status.RETRYING, outcome="unavailable", after=wait, code="421")
    [recorded] = await store.record([unavailable])
    assert (recorded.status, recorded.late) == (Status.RETRYING, False)
    live = await live_row(connection, row.id)
    assert live is not None
    assert (live["claimed_by"], live["class"], live["claim"]) == (UNCLAIMED, DueClass.RETRY, 1)
    assert (live["tries"], live["deaths"], live["due_at"]) == (1, 0, live["ready_at"])
    [attempt] = await connection.fetch("SELECT * FROM attempts")
    assert (attempt["outcome"], attempt["tries"], attempt["next_at"]) == (
        "unavailable",
        1,
        live["due_at"],
    )
    assert wait - timedelta(seconds=1) < live["due_at"] - attempt["finished_at"]
    assert await due(store) == []


async def test_a_repeated_record_of_a_retry_changes_nothing(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    result = a_result(row, Status.RETRYING, outcome="unavailable", after=NOW)
    await store.record([result])
    before = await live_row(connection, row.id)
    [again] = await store.record([result])
    assert (again.status, again.late) == (Status.RETRYING, False)
    assert await live_row(connection, row.id) == before
    assert await attempts_of(connection, row.id) == [(1, "unavailable", False)]


async def test_a_repeated_record_leaves_the_next_claim_alone(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    result = a_result(row, Status.RETRYING, outcome="throttled", spends=False, after=NOW)
    await store.record([result])
    await claim_all(store, await due(store))
    before = await live_row(connection, row.id)
    [again] = await store.record([result])
    assert again.status is None
    assert await live_row(connection, row.id) == before


async def test_results_of_two_claims_of_one_row_in_a_batch_are_recorded_each_at_its_own(
    store: PostgresStore, connection: Connection
) -> None:
    [first] = await claimed(store, a_notification())
    retry = a_result(first, Status.RETRYING, outcome="unavailable", after=NOW)
    await store.record([retry])  # its answer is lost
    [second] = await claim_all(store, await due(store))
    failed = refused(second)
    repeated, recorded = await store.record([retry, failed])
    assert repeated.status is Status.FAILED or repeated.status is None
    assert (recorded.status, recorded.late) == (Status.FAILED, False)
    end = await end_of(connection, first.id)
    assert end is not None
    assert (end["claim"], end["code"]) == (2, "550")
    assert await attempts_of(connection, first.id) == [
        (1, "unavailable", False),
        (2, "refused", False),
    ]


async def test_a_failure_is_an_end_with_its_first_and_last_attempt(
    store: PostgresStore, connection: Connection
) -> None:
    [first] = await claimed(store, a_notification())
    second = await retried(store, first)
    failed = a_result(second, Status.FAILED, outcome="unavailable", reason="exhausted", code="503")
    [recorded] = await store.record([failed])
    assert (recorded.status, recorded.late) == (Status.FAILED, False)
    assert await live_row(connection, first.id) is None
    end = await end_of(connection, first.id)
    assert end is not None
    assert (end["status"], end["claim"], end["queue"]) == ("failed", 2, "email.high")
    assert (end["reason"], end["provider"], end["code"]) == ("exhausted", "smtp", "503")
    assert end["tries"] == 2
    attempts = await connection.fetch("SELECT * FROM attempts ORDER BY claim")
    assert [attempt["tries"] for attempt in attempts] == [1, 2]
    assert (end["first_at"], end["at"]) == (attempts[0]["started_at"], attempts[1]["finished_at"])


async def test_a_repeated_record_of_a_failure_changes_nothing(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    failed = refused(row)
    await store.record([failed])
    before = await end_of(connection, row.id)
    [again] = await store.record([failed])
    assert (again.status, again.late) == (Status.FAILED, False)
    assert await end_of(connection, row.id) == before
    assert await attempts_of(connection, row.id) == [(1, "refused", False)]


async def test_a_retry_after_the_expiry_ends_the_row_as_expired(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification(ttl=timedelta(minutes=1)))
    late = a_result(row, Status.RETRYING, outcome="unavailable", after=timedelta(minutes=2))
    [recorded] = await store.record([late])
    assert (recorded.status, recorded.late) == (Status.EXPIRED, False)
    assert await live_row(connection, row.id) is None
    end = await end_of(connection, row.id)
    assert end is not None
    assert (end["status"], end["claim"], end["reason"], end["tries"]) == ("expired", 1, "", 1)
    assert await attempts_of(connection, row.id) == [(1, "unavailable", False)]
    [again] = await store.record([late])
    assert (again.status, again.late) == (Status.EXPIRED, False)


async def test_accepted_and_other_results_of_one_batch_are_answered_in_their_order(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    rows = await claimed(store, *(a_notification() for _ in range(4)))
    late_sent, failed, sent, retry = rows
    await bury(other, store, late_sent)
    wait = timedelta(seconds=5)
    recorded = await store.record(
        [
            a_result(late_sent),
            refused(failed),
            a_result(sent),
            a_result(retry, Status.RETRYING, outcome="unavailable", after=wait, code="421"),
        ]
    )
    assert [(reply.status, reply.late) for reply in recorded] == [
        (Status.SENT, True),
        (Status.FAILED, False),
        (Status.SENT, False),
        (Status.RETRYING, False),
    ]
    codes = {row["id"]: row["code"] for row in await connection.fetch("SELECT * FROM attempts")}
    assert codes == {late_sent.id: "250", failed.id: "550", sent.id: "250", retry.id: "421"}


async def test_a_record_that_was_interrupted_between_its_statements_is_completed(
    store: PostgresStore, connection: Connection
) -> None:
    sent, rejected = await claimed(store, a_notification(), a_notification())
    unstorable = refused(rejected, code="nul\0")
    with pytest.raises(StoreRejected):
        await store.record([unstorable, a_result(sent)])
    assert await live_row(connection, sent.id) is None
    assert await live_row(connection, rejected.id) is not None
    repaired = refused(rejected)
    recorded = await store.record([repaired, a_result(sent)])
    assert [(reply.status, reply.late) for reply in recorded] == [
        (Status.FAILED, False),
        (Status.SENT, False),
    ]


async def test_an_accepted_retry_counts_its_tries(
    store: PostgresStore, connection: Connection
) -> None:
    [first] = await claimed(store, a_notification())
    second = await retried(store, first)
    assert second.tries == 1
    await store.record([a_result(second)])
    attempts = await connection.fetch("SELECT claim, tries FROM attempts ORDER BY claim")
    assert [tuple(row) for row in attempts] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("outcome", ["deferred", "throttled", "misconfigured", "unavailable"])
async def test_repeats_that_spend_no_try_are_counted_on_one_attempt(
    store: PostgresStore, connection: Connection, outcome: str
) -> None:
    [row] = await claimed(store, a_notification())
    for _ in range(3):
        await store.record(
            [a_result(row, Status.RETRYING, outcome=outcome, spends=False, after=NOW)]
        )
        [row] = await claim_all(store, await due(store))
    await store.record([a_result(row)])
    attempts = await connection.fetch("SELECT * FROM attempts ORDER BY claim")
    assert [(a["claim"], a["outcome"], a["repeats"], a["tries"]) for a in attempts] == [
        (3, outcome, 2, 0),
        (4, "accepted", 0, 1),
    ]


async def test_an_unavailable_attempt_that_spent_a_try_keeps_a_row_of_its_own(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    for code in ("no_connection", "421", "no_connection", "no_connection", "421", "421"):
        spends = code == "421"
        result = a_result(
            row, Status.RETRYING, outcome="unavailable", spends=spends, after=NOW, code=code
        )
        await store.record([result])
        [row] = await claim_all(store, await due(store))
    attempts = await connection.fetch("SELECT * FROM attempts ORDER BY claim")
    assert [(a["claim"], a["code"], a["repeats"], a["tries"]) for a in attempts] == [
        (1, "no_connection", 0, 0),
        (2, "421", 0, 1),
        (4, "no_connection", 1, 1),
        (5, "421", 0, 2),
        (6, "421", 0, 3),
    ]


async def test_a_rejected_row_stores_nothing_of_its_batch(
    store: PostgresStore, connection: Connection
) -> None:
    with pytest.raises(StoreRejected):
        await store.insert([a_notification(), a_notification(recipient="nul\0@example.com")])
    assert await connection.fetchval("SELECT count(*) FROM notifications") == 0
    assert await connection.fetchval("SELECT count(*) FROM live") == 0


def request_of(row: Claimed, *, is_buffered: bool = False) -> ClaimRequest:
    """Return the request by which the row was claimed."""
    return ClaimRequest(id=row.id, claim=row.claim - 1, is_buffered=is_buffered)


@pytest.mark.parametrize("is_claimed", [False, True], ids=["unclaimed", "claimed"])
async def test_a_row_that_is_given_back_is_due_now_before_all_others_and_keeps_its_wait(
    store: PostgresStore, connection: Connection, *, is_claimed: bool
) -> None:
    [pointer] = await published(store, a_notification())
    request = claim_request(pointer)
    if is_claimed:
        await store.claim([request])
    before = await live_row(connection, pointer.id)
    read = await store.look([])
    assert await store.give_back([request]) == [EMAIL_HIGH]
    after = await live_row(connection, pointer.id)
    assert before is not None
    assert after is not None
    assert (after["claimed_by"], after["claim"], after["class"]) == (UNCLAIMED, 1, DueClass.BACK)
    assert after["due_at"] > read.now
    for kept in ("ready_at", "created_at", "expires_at", "tries", "deaths", "size"):
        assert after[kept] == before[kept]
    assert await store.give_back([request]) == []
    assert await live_row(connection, pointer.id) == after
    assert await store.claim([request]) == [NotClaimed()]
    await store.insert([a_notification()])
    first, _ = await due(store)
    assert (first.id, first.claim) == (pointer.id, 1)


async def test_a_claim_under_way_that_has_not_reached_a_row_given_back_claims_nothing_of_it(
    store: PostgresStore, connection: Connection, second_connection: Connection
) -> None:
    pointers = await published(store, a_notification(), a_notification())
    requests = sorted((claim_request(pointer) for pointer in pointers), key=lambda r: r.id)
    async with asyncio.TaskGroup() as group, row_locked(connection, requests[0].id):
        claiming = group.create_task(store.claim(requests))
        await until_a_session_waits(second_connection)
        assert len(await store.give_back(requests[1:])) == 1
    replies = claiming.result()
    assert isinstance(replies[0], Claimed)
    assert replies[1] == NotClaimed()
    live = await live_row(connection, requests[1].id)
    assert live is not None
    assert (live["claimed_by"], live["claim"], live["class"]) == (UNCLAIMED, 1, DueClass.BACK)


async def test_a_give_back_waits_for_a_claim_under_way_and_undoes_it(
    store: PostgresStore, connection: Connection
) -> None:
    [pointer] = await published(store, a_notification())
    async with asyncio.TaskGroup() as group, in_transaction(store._connections.claim):
        assert len(await claim_all(store, [pointer])) == 1
        giving_back = group.create_task(store.give_back([claim_request(pointer)]))
        await until_a_session_waits(connection)
    # Postgres compares the row again as the claim has left it: claimed by this worker.
    assert giving_back.result() == [EMAIL_HIGH]
    live = await live_row(connection, pointer.id)
    assert live is not None
    assert (live["claimed_by"], live["claim"], live["class"]) == (UNCLAIMED, 1, DueClass.BACK)


async def test_the_highest_claim_of_two_copies_is_given_back(
    store: PostgresStore, connection: Connection
) -> None:
    [old] = await published(store, a_notification())
    await store.give_back([claim_request(old)])
    [new] = await due(store)
    assert len(await store.give_back([claim_request(new), claim_request(old)])) == 1
    assert [pointer.claim for pointer in await due(store)] == [2]


@pytest.mark.parametrize("is_buffered", [False, True])
async def test_giving_back_leaves_rows_that_another_worker_sends(
    store: PostgresStore, other: PostgresStore, connection: Connection, *, is_buffered: bool
) -> None:
    [row] = await claimed(other, a_notification())
    before = await live_row(connection, row.id)
    assert await store.give_back([request_of(row, is_buffered=is_buffered)]) == []
    assert await live_row(connection, row.id) == before


async def test_giving_back_a_buffered_copy_leaves_the_row_that_this_worker_sends(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    before = await live_row(connection, row.id)
    assert await store.give_back([request_of(row, is_buffered=True)]) == []
    assert await live_row(connection, row.id) == before
    both = [request_of(row, is_buffered=True), request_of(row)]
    assert len(await store.give_back(both)) == 1


async def test_giving_back_a_final_row_changes_nothing(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    await store.record([a_result(row)])
    assert await store.give_back([request_of(row), ClaimRequest(id=row.id, claim=1)]) == []
    assert await live_row(connection, row.id) is None


async def test_a_row_that_is_given_back_after_its_time_stays_and_is_not_claimed(
    store: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    await connection.execute(EXPIRE_ALL)
    assert await store.give_back([request_of(row)]) == [EMAIL_HIGH]
    assert await claim_all(store, await due(store)) == []
    assert len(await sweep(store)) == 1


async def test_a_late_accepted_settles_a_row_that_waits_at_its_claim(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    await bury(other, store, row)
    recorded = await store.record([a_result(row)])
    assert [(reply.status, reply.late) for reply in recorded] == [(Status.SENT, True)]
    assert await live_row(connection, row.id) is None
    assert await attempts_of(connection, row.id) == [(1, "accepted", True)]
    [again] = await store.record([a_result(row)])
    assert (again.status, again.late) == (Status.SENT, False)


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
async def test_a_late_accepted_removes_an_end_at_its_claim(
    store: PostgresStore, other: PostgresStore, connection: Connection, status: str
) -> None:
    [row] = await claimed(store, a_notification())
    if status == "failed":
        await bury(other, store, row, status=Status.FAILED)
    else:
        await bury(other, store, row)
        await end(connection, row, status)
    before = await end_of(connection, row.id)
    assert before is not None
    assert (before["status"], before["claim"]) == (status, 1)
    [recorded] = await store.record([a_result(row)])
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    assert recorded.age_s > 0
    assert await end_of(connection, row.id) is None
    assert await live_row(connection, row.id) is None
    assert await attempts_of(connection, row.id) == [(1, "accepted", True)]


@pytest.mark.parametrize("status", ["delivered", "undelivered"])
async def test_a_late_accepted_leaves_an_end_of_another_kind(
    store: PostgresStore, other: PostgresStore, connection: Connection, status: str
) -> None:
    [row] = await claimed(store, a_notification())
    await bury(other, store, row, status=Status.FAILED)
    await connection.execute("UPDATE ends SET status = $1::text::notification_status", status)
    [recorded] = await store.record([a_result(row)])
    assert (recorded.status, recorded.late) == (None, True)
    end_ = await end_of(connection, row.id)
    assert end_ is not None
    assert end_["status"] == status


async def end(connection: Connection, row: Claimed, status: str) -> None:
    """End a row that waits, as the sweeper or a person does."""
    if status == "expired":
        await connection.execute(EXPIRE_ALL)
        assert await sweep_by(connection) == 1
    else:
        assert await cancel_by(connection, row.id) == [row.id]


async def test_a_late_accepted_leaves_an_end_of_a_later_claim(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [first] = await claimed(store, a_notification())
    await bury(other, store, first)
    [second] = await claim_all(other, await due(other))
    await other.record([refused(second)])
    [recorded] = await store.record([a_result(first)])
    assert (recorded.status, recorded.late) == (None, True)
    assert await end_of(connection, first.id) is not None
    assert await attempts_of(connection, first.id) == [(1, "accepted", True), (2, "refused", False)]


async def test_a_late_accepted_for_a_row_that_another_worker_sends_is_kept_and_settles_nothing(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [first] = await claimed(store, a_notification())
    await bury(other, store, first)
    [second] = await claim_all(other, await due(other))
    before = await live_row(connection, first.id)
    [recorded] = await store.record([a_result(first)])
    assert (recorded.status, recorded.late) == (None, True)
    assert await live_row(connection, first.id) == before
    assert await attempts_of(connection, first.id) == [(1, "accepted", True)]
    [recorded] = await other.record([a_result(second)])
    assert (recorded.status, recorded.late) == (Status.SENT, False)


async def test_a_late_result_that_is_not_accepted_corrects_the_attempt_and_moves_nothing(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    waiting, ended = await claimed(store, a_notification(), a_notification())
    await bury(other, store, waiting)
    await bury(other, store, ended, status=Status.FAILED)
    before = [await live_row(connection, waiting.id), await end_of(connection, ended.id)]
    recorded = await store.record([refused(row) for row in (waiting, ended)])
    assert [(reply.status, reply.late) for reply in recorded] == [(None, True)] * 2
    assert [await live_row(connection, waiting.id), await end_of(connection, ended.id)] == before
    assert await attempts_of(connection, waiting.id) == [(1, "refused", True)]
    assert await attempts_of(connection, ended.id) == [(1, "refused", True)]


async def test_a_late_accepted_settles_a_row_that_was_sent_again_and_is_not_claimed_yet(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    await bury(other, store, row, status=Status.FAILED)
    assert await retry_by(connection, row.id) == [row.id]
    assert [pointer.claim for pointer in await due(other)] == [2]
    [recorded] = await store.record([a_result(row)])
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    assert await live_row(connection, row.id) is None
    assert await attempts_of(connection, row.id) == [(1, "accepted", True)]


@pytest.mark.parametrize("is_claimed", [False, True], ids=["unclaimed", "claimed"])
async def test_a_late_accepted_settles_a_row_that_others_gave_back_since(
    store: PostgresStore, other: PostgresStore, connection: Connection, *, is_claimed: bool
) -> None:
    waiting, ended = await claimed(store, a_notification(), a_notification())
    await bury(other, store, waiting, ended)
    requests = [claim_request(pointer) for pointer in await due(other)]
    if is_claimed:
        await other.claim(requests)
    assert len(await other.give_back(requests)) == 2
    await end(connection, ended, "cancelled")
    recorded = await store.record([a_result(waiting), a_result(ended)])
    assert [(reply.status, reply.late) for reply in recorded] == [(Status.SENT, True)] * 2
    for row in (waiting, ended):
        assert await live_row(connection, row.id) is None
        assert await end_of(connection, row.id) is None
        assert await attempts_of(connection, row.id) == [(1, "accepted", True)]


async def test_a_late_accepted_leaves_a_row_that_was_sent_again_and_claimed(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [first] = await claimed(store, a_notification())
    await bury(other, store, first, status=Status.FAILED)
    await retry_by(connection, first.id)
    [second] = await claim_all(other, await due(other))
    assert second.claim == 3
    [recorded] = await store.record([a_result(first)])
    assert (recorded.status, recorded.late) == (None, True)
    assert await live_row(connection, first.id) is not None
    await bury(store, other, second)
    [repeated] = await store.record([a_result(first)])
    assert repeated.status is None
    assert await live_row(connection, first.id) is not None


async def test_a_late_accepted_settles_a_row_that_the_sweeper_ends_meanwhile(
    store: PostgresStore,
    other: PostgresStore,
    connection: Connection,
    second_connection: Connection,
) -> None:
    [row] = await claimed(store, a_notification())
    await bury(other, store, row)
    await connection.execute(EXPIRE_ALL)
    async with asyncio.TaskGroup() as group, connection.transaction():
        assert await sweep_by(connection) == 1
        recording = group.create_task(store.record([a_result(row)]))
        await until_a_session_waits(second_connection)
    [recorded] = recording.result()
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    assert await end_of(connection, row.id) is None
    assert await live_row(connection, row.id) is None
    assert await attempts_of(connection, row.id) == [(1, "accepted", True)]


async def test_a_late_accepted_settles_a_row_that_is_sent_again_meanwhile(
    store: PostgresStore,
    other: PostgresStore,
    connection: Connection,
    second_connection: Connection,
) -> None:
    [row] = await claimed(store, a_notification())
    await bury(other, store, row, status=Status.FAILED)
    async with asyncio.TaskGroup() as group, connection.transaction():
        assert await retry_by(connection, row.id) == [row.id]
        recording = group.create_task(store.record([a_result(row)]))
        await until_a_session_waits(second_connection)
    [recorded] = recording.result()
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    assert await live_row(connection, row.id) is None
    assert await end_of(connection, row.id) is None


async def test_a_late_accepted_settles_nothing_of_a_row_that_is_claimed_meanwhile(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    await bury(other, store, row)
    pointers = await due(other)
    async with asyncio.TaskGroup() as group, in_transaction(other._connections.claim):
        assert len(await claim_all(other, pointers)) == 1
        recording = group.create_task(store.record([a_result(row)]))
        await until_a_session_waits(connection)
    [recorded] = recording.result()
    assert (recorded.status, recorded.late) == (None, True)
    live = await live_row(connection, row.id)
    assert live is not None
    assert (live["claimed_by"], live["claim"]) == (other.worker, 2)
    assert await attempts_of(connection, row.id) == [(1, "accepted", True)]


async def test_a_late_result_of_a_day_that_was_dropped_changes_nothing(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    item = a_notification(id_=NotificationId(await an_id_of(connection, yesterday)))
    [old, present] = await claimed(store, item, a_notification())
    await bury(other, store, old, status=Status.FAILED)
    assert await store.drop_day(yesterday) == "dropped"
    recorded = await store.record([a_result(old), a_result(present)])
    assert [(reply.status, reply.late) for reply in recorded] == [
        (None, True),
        (Status.SENT, False),
    ]
    assert await attempts_of(connection, old.id) == []


async def test_a_notification_sent_again_gets_a_claim_above_every_claim_before(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    given: list[int] = []
    [row] = await claimed(store, a_notification())
    for end_by in ("failed", "cancelled", "expired", "orphan", "given back", "rejected"):
        given.append(row.claim)
        match end_by:
            case "failed":
                await store.record([refused(row)])
            case "orphan":
                await bury(other, store, row, status=Status.FAILED)
            case "rejected":
                await store.give_back([request_of(row)])
                request = ClaimRequest(id=row.id, claim=row.claim)
                await store.fail_unclaimable(request, provider="smtp")
            case _:
                await store.give_back([request_of(row)])
                await end(connection, row, "expired" if end_by == "expired" else "cancelled")
        assert await retry_by(connection, row.id) == [row.id]
        [row] = await claim_all(store, await due(store))
        assert row.claim > max(given)


async def test_an_orphan_is_due_at_once_before_all_others_without_spending_a_try(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    before = await live_row(connection, row.id)
    assert await bury(other, store, row) == [Status.QUEUED]
    after = await live_row(connection, row.id)
    assert before is not None
    assert after is not None
    assert (after["claimed_by"], after["claim"], after["class"]) == (UNCLAIMED, 1, DueClass.BACK)
    assert (after["tries"], after["deaths"]) == (0, 1)
    assert after["due_at"] > before["claimed_at"]
    assert after["ready_at"] == before["ready_at"]
    [attempt] = await connection.fetch("SELECT * FROM attempts")
    assert (attempt["claim"], attempt["outcome"], attempt["code"]) == (
        1,
        "ambiguous",
        "worker_died",
    )
    assert (attempt["recorded_by"], attempt["tries"]) == (other.worker, 0)
    assert (attempt["started_at"], attempt["next_at"]) == (before["claimed_at"], after["due_at"])
    assert await bury(other, store, row) == []
    assert await live_row(connection, row.id) == after


async def test_an_orphan_that_fails_ends_with_its_reason(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    assert await bury(other, store, row, status=Status.FAILED) == [Status.FAILED]
    assert await live_row(connection, row.id) is None
    end_ = await end_of(connection, row.id)
    assert end_ is not None
    assert (end_["status"], end_["claim"], end_["queue"]) == ("failed", 1, "email.high")
    assert (end_["reason"], end_["provider"], end_["code"]) == ("ambiguous", "smtp", "worker_died")
    assert await attempts_of(connection, row.id) == [(1, "ambiguous", False)]
    assert await bury(other, store, row, status=Status.FAILED) == []


async def test_an_orphan_whose_time_is_over_expires(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    await connection.execute(EXPIRE_ALL)
    assert await bury(other, store, row) == [Status.EXPIRED]
    assert await live_row(connection, row.id) is None
    end_ = await end_of(connection, row.id)
    assert end_ is not None
    assert (end_["status"], end_["claim"], end_["reason"]) == ("expired", 1, "")


async def test_rows_of_a_process_that_lives_are_no_orphans(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [row] = await claimed(store, a_notification())
    await beat(connection, store, 7)
    decisions = [decision(row, store.worker, Status.QUEUED)]
    assert await other.settle_orphans(decisions, []) == []
    assert await other.settle_orphans(decisions, [DeadProcess(store.worker, 6)]) == []
    assert await attempts_of(connection, row.id) == []
    [settled] = await other.settle_orphans(decisions, [DeadProcess(store.worker, 7)])
    assert (settled.decision, settled.status) == (decisions[0], Status.QUEUED)
    assert settled.age_s > 0


async def test_an_orphan_is_settled_only_at_the_claim_and_of_the_worker_that_were_seen(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    [first] = await claimed(store, a_notification())
    [second] = [await retried(store, first)]
    before = await live_row(connection, first.id)
    assert await bury(other, store, first) == []
    assert await bury(store, other, second) == []
    assert await live_row(connection, first.id) == before


async def test_an_orphan_that_another_process_has_locked_is_left_out(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    locked, free = await claimed(store, a_notification(), a_notification())
    async with row_locked(connection, locked.id):
        assert await bury(other, store, locked, free) == [Status.QUEUED]
        assert await attempts_of(connection, locked.id) == []
    assert await bury(other, store, locked, free) == [Status.QUEUED]


async def test_of_two_burials_at_once_each_row_is_settled_by_one(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    rows = await claimed(store, *(a_notification() for _ in range(100)))
    async with asyncio.TaskGroup() as group:
        burials = [
            group.create_task(bury(other, store, *rows)),
            group.create_task(bury(store, store, *rows[::-1])),
        ]
    assert sum(len(burial.result()) for burial in burials) == len(rows)
    assert await connection.fetchval("SELECT array_agg(DISTINCT deaths) FROM live") == [1]


async def test_sweep_ends_waiting_rows_whose_time_is_over(
    store: PostgresStore, connection: Connection
) -> None:
    scheduled = a_notification(delay=timedelta(hours=1), ttl=timedelta(microseconds=1))
    [sending, unexpired] = await published(store, a_notification(), a_notification())
    await claim_all(store, [sending])
    await connection.execute("UPDATE live SET expires_at = now() WHERE id = $1", sending.id)
    await store.insert([scheduled])
    [row] = await sweep(store)
    assert row.queue == EMAIL_HIGH
    assert row.age_s > 0
    end_ = await end_of(connection, scheduled.id)
    assert end_ is not None
    assert (end_["status"], end_["claim"], end_["queue"], end_["tries"]) == (
        "expired",
        0,
        "email.high",
        0,
    )
    assert {row["id"] for row in await connection.fetch("SELECT id FROM live")} == {
        sending.id,
        unexpired.id,
    }
    assert await sweep(store) == []


async def test_sweep_leaves_rows_that_are_locked_or_claimed_meanwhile(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    locked, free = await published(store, a_notification(), a_notification())
    await connection.execute(EXPIRE_ALL)
    async with row_locked(connection, locked.id):
        assert len(await sweep(store)) == 1
    assert await end_of(connection, locked.id) is None
    assert await end_of(connection, free.id) is not None


async def test_cancel_waits_for_a_claim_under_way_and_leaves_its_row(
    store: PostgresStore, connection: Connection, second_connection: Connection
) -> None:
    pointers = await published(store, a_notification(), a_notification())
    async with asyncio.TaskGroup() as group, in_transaction(store._connections.claim):
        await claim_all(store, pointers[:1])
        cancelling = group.create_task(cancel_by(connection, *(pointer.id for pointer in pointers)))
        await until_a_session_waits(second_connection)
    assert cancelling.result() == [pointers[1].id]
    assert await live_row(connection, pointers[0].id) is not None
    end_ = await end_of(connection, pointers[1].id)
    assert end_ is not None
    assert (end_["status"], end_["claim"]) == ("cancelled", 0)


async def test_a_claim_waits_for_a_cancel_under_way_and_claims_nothing_of_it(
    store: PostgresStore, connection: Connection, second_connection: Connection
) -> None:
    pointers = await published(store, a_notification(), a_notification())
    async with asyncio.TaskGroup() as group, connection.transaction():
        assert await cancel_by(connection, pointers[0].id) == [pointers[0].id]
        claiming = group.create_task(claim_all(store, pointers))
        await until_a_session_waits(second_connection)
    assert [row.id for row in claiming.result()] == [pointers[1].id]
    assert await live_row(connection, pointers[0].id) is None


async def test_a_day_is_dropped_only_when_all_its_rows_are_final(
    store: PostgresStore, connection: Connection
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    ids = [NotificationId(await an_id_of(connection, yesterday)) for _ in range(2)]
    [sending, _] = await claimed(
        store, *(a_notification(id_=id_, ttl=timedelta(minutes=1)) for id_ in ids)
    )
    assert await store.drop_day(yesterday) == "kept"
    await store.record([a_result(sending)])
    assert await store.drop_day(yesterday) == "kept"
    await store.give_back([ClaimRequest(id=id_, claim=0) for id_ in ids])
    await connection.execute(EXPIRE_ALL)
    assert len(await sweep(store)) == 1
    assert await store.drop_day(yesterday) == "dropped"
    assert await store.drop_day(yesterday) == "absent"
    day = f"{yesterday:%Y%m%d}"
    assert day not in await store.days()
    for parent in ("notifications", "attempts", "ends"):
        assert await connection.fetchval("SELECT to_regclass($1)", f"{parent}_{day}") is None
    with pytest.raises(StoreRejected):
        await store.drop_day(datetime.now(UTC).date())


async def test_a_day_is_kept_if_a_row_of_it_is_sent_again_meanwhile(
    store: PostgresStore, connection: Connection, second_connection: Connection
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    id_ = NotificationId(await an_id_of(connection, yesterday))
    await store.insert([a_notification(id_=id_, ttl=timedelta(microseconds=1))])
    await sweep(store)
    # Longer than the 200 ms that the function waits for a lock.
    await second_connection.execute("ALTER FUNCTION drop_day(date) SET lock_timeout = '1 min'")
    async with asyncio.TaskGroup() as group, connection.transaction():
        assert await retry_by(connection, id_) == [id_]
        dropping = group.create_task(store.drop_day(yesterday))
        await until_a_session_waits(second_connection)
    assert dropping.result() == "kept"
    assert await live_row(connection, id_) is not None


async def test_the_partitions_of_the_coming_days_are_created_once(
    store: PostgresStore, connection: Connection
) -> None:
    days = await store.days()
    assert len(days) == 9
    assert await store.ensure_days() == 0
    assert await store.days() == days
    for parent in ("notifications", "attempts", "ends"):
        await connection.execute(f"DROP TABLE {parent}_{days[-1]}")
    assert await store.ensure_days() == 1
    assert await store.days() == days
    for parent in ("notifications", "attempts", "ends"):
        children = await connection.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
            " WHERE inhparent = $1::text::regclass",
            parent,
        )
        assert sorted(row["name"] for row in children) == [f"{parent}_{day}" for day in days]


async def test_a_connection_reconnects_after_the_server_closed_it(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await store.read_due(due_ranges())
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with suppress(StoreUnavailable):  # this call may be the first to notice
        await store.read_due(due_ranges())
    assert (await store.read_due(due_ranges())).rows == []
