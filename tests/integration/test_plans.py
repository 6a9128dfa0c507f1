"""Postgres reads only the rows of a batch, also when its statistics are older than a surge."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from benchmarks.prove.bulk import days
from harness.client import until
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.event_writing import WRITE_EVENTS
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import open_store
from notifier.delivery.group_commit import MAX_BATCH
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.due import BEGINNING, DueClass
from notifier.domain.holds import PauseParking
from notifier.domain.notification import Claimed, QueueKey, Status
from notifier.ports.store import ClaimRequest, DueRange
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    a_notification,
    a_result,
    claim_request,
    due_ranges,
    row_pointer,
    worker_id,
)
from tests.live_rows import claim_all, decision, sweep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from notifier.adapters.postgres.connection import PostgresConnection
    from notifier.adapters.postgres.store import PostgresStore
    from notifier.ports.broker import Pointer
    from notifier.ports.store import AttemptResult
    from tests.live_rows import Connection

SURGE, BATCH = 4_000, 50
MANY: Final = 100_000
EXECUTIONS_BEFORE_GENERIC_PLAN: Final = 10
"""Postgres plans the first five executions for their values; later it may keep a generic plan."""
ROWS_READ: Final = """SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)::integer
                      + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)::integer"""
PLANS: Final = """SELECT statement, sum(custom_plans)::integer AS custom,
                         sum(generic_plans)::integer AS generic
                  FROM pg_prepared_statements GROUP BY statement"""
SESSIONS: Final = """SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'notifier'"""
UPDATES_OF_LIVE: Final = """SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
                            WHERE relname = 'live'"""
# Autovacuum would bring the statistics up to date in the middle of a test.
STOP_AUTOVACUUM: Final = """
    DO $$ DECLARE child regclass; BEGIN
        FOR child IN SELECT oid FROM pg_class
                     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
            EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', child);
        END LOOP;
    END $$"""
INSERT_MANY: Final = """
    WITH new AS MATERIALIZED (
        SELECT (left(uuid_at(now())::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid
               AS id
        FROM generate_series(1, $1::integer)
    ), stored AS (
        INSERT INTO notifications (id, expires_at, queue, recipient, content, metadata)
        SELECT id, now() + interval '1 hour', 'email.low', 'a@example.com', '{}', '{}' FROM new
    )
    INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, queue)
    SELECT id, now(), now(), now(), now() + interval '1 hour', 2, 1, 'email.low' FROM new"""
PRIMARY_KEY: Final = ("Index Scan", "live_pkey")
DUE: Final = ("Index Scan", "live_due")
DUE_ONLY: Final = ("Index Only Scan", "live_due")
EXPIRES: Final = ("Index Scan", "live_expires")
CONNECTION_AND_SCANS: Final[Mapping[str, tuple[str, set[tuple[str, str]]]]] = {
    "claim": ("claim", {PRIMARY_KEY}),
    "claim_held": ("claim", {PRIMARY_KEY}),
    "park": ("give_back", {PRIMARY_KEY}),
    "record_sent": ("record", {PRIMARY_KEY}),
    "record": ("record", {PRIMARY_KEY}),
    "record_late": ("record", {PRIMARY_KEY}),
    "give_back": ("give_back", {PRIMARY_KEY}),
    "fail_unclaimable": ("claim", {PRIMARY_KEY}),
    "settle_orphans": ("maintenance", {PRIMARY_KEY}),
    "read_due": ("relay", {DUE}),
    "find_due": ("relay", {DUE_ONLY}),
    "find_expired": ("maintenance", {EXPIRES}),
    "sweep": ("maintenance", {PRIMARY_KEY}),
}
RECOVERIES: Final = ["settle_orphans", "record_late", "give_back", "sweep", "fail_unclaimable"]
NEEDS_CLAIMS: Final = {"settle_orphans", "record_late"}
EXPIRE_THE_BATCH: Final = "UPDATE live SET expires_at = now() WHERE queue = 'email.high'"


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """A connection to the test's database, of which autovacuum keeps away."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(STOP_AUTOVACUUM)
    yield connection
    await connection.close()


async def test_a_batch_reads_only_its_rows_while_statistics_are_older_than_a_surge(
    database_url: str, connection: Connection
) -> None:
    await connection.execute("ANALYZE")  # of empty tables
    before = await _read_by(database_url, connection, _surge)
    after = await _read_by(database_url, connection, lambda store: _send(store, EMAIL_HIGH, BATCH))
    assert 0 < after - before < SURGE


async def test_plans_made_on_an_empty_day_read_only_the_batch(
    database_url: str, connection: Connection
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _make_generic_plans(store)
        sessions = await connection.fetchval(SESSIONS)
        before = await _read_by(database_url, connection, _surge, other_sessions=sessions)
        await _send(store, EMAIL_HIGH, BATCH // 2)
        await _give_back(store, EMAIL_HIGH, BATCH // 2)
    after = await _read_by(database_url, connection, _do_nothing)
    assert 0 < after - before < SURGE


@pytest.mark.parametrize("analyzed", [False, True], ids=["old statistics", "present statistics"])
@pytest.mark.parametrize("name", RECOVERIES)
async def test_recovery_of_a_few_rows_reads_only_those_rows(
    name: str, database_url: str, connection: Connection, *, analyzed: bool
) -> None:
    await connection.execute("ANALYZE")
    recovery = await _break_batch(name, database_url, connection)
    if analyzed:
        await connection.execute("ANALYZE")
    before = await _read_by(database_url, connection, _do_nothing)
    after = await _read_by(database_url, connection, recovery.run)
    assert 0 < after - before < SURGE


@pytest.mark.parametrize("name", RECOVERIES)
async def test_recovery_with_plans_made_on_an_empty_day_reads_only_its_rows(
    name: str, database_url: str, connection: Connection
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _make_generic_plans(store)
        sessions = await connection.fetchval(SESSIONS)
        recovery = await _break_batch(name, database_url, connection)
        before = await _read_by(database_url, connection, _do_nothing, other_sessions=sessions)
        await recovery.run(store)
    after = await _read_by(database_url, connection, _do_nothing)
    assert 0 < after - before < SURGE


async def test_a_read_from_a_cursor_reads_only_what_is_behind_it_in_the_queue(
    database_url: str, connection: Connection
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _accept(store, EMAIL_HIGH, SURGE)
        read = await store.read_due([DueRange(EMAIL_HIGH, DueClass.FIRST, BEGINNING, SURGE)])
        position = read.rows[-BATCH - 1].position
    before = await _read_by(database_url, connection, _do_nothing)

    async def read_rest(store: PostgresStore) -> None:
        ranges = [DueRange(EMAIL_HIGH, DueClass.FIRST, position, SURGE)]
        for _ in range(2 * EXECUTIONS_BEFORE_GENERIC_PLAN):
            assert len((await store.read_due(ranges)).rows) == BATCH

    after = await _read_by(database_url, connection, read_rest)
    assert 0 < after - before < SURGE


async def test_a_batch_is_planned_once_with_a_month_of_partitions(
    database_url: str, connection: Connection
) -> None:
    await connection.execute(days(29))
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        for _ in range(2 * EXECUTIONS_BEFORE_GENERIC_PLAN):
            await _accept(store, EMAIL_HIGH, BATCH)
            await _send(store, EMAIL_HIGH, BATCH // 2)
            await _refuse(store, EMAIL_HIGH, BATCH // 2)
        connections = store._connections
        for connection_of_step, planned in (
            (connections.accept, [statement("insert")]),
            (connections.relay, [statement("read_due")]),
            (connections.claim, [statement("claim")]),
            (
                connections.record,
                [WRITE_EVENTS.statement("record_sent", 11), WRITE_EVENTS.statement("record", 18)],
            ),
        ):
            rows = await connection_of_step.fetch(PLANS)
            plans = {row["statement"]: (row["custom"], row["generic"]) for row in rows}
            for text in planned:
                custom, generic = plans[text]
                assert custom == 0
                assert generic >= 2 * EXECUTIONS_BEFORE_GENERIC_PLAN


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED])
async def test_a_record_with_a_month_of_partitions_reads_only_the_batch(
    status: Status, database_url: str, connection: Connection
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


@pytest.mark.parametrize("state", ["empty", "a month of partitions", "many rows"])
async def test_rows_are_locked_in_the_order_of_the_primary_key_and_read_in_that_of_the_queue(
    state: str, database_url: str, connection: Connection
) -> None:
    """Two statements that lock the same rows in different orders are a deadlock.

    An index scan for an array of ids reads them in their order. A bitmap reads in that of the heap.
    """
    if state == "a month of partitions":
        await connection.execute(days(29))
    if state == "many rows":
        await connection.execute(INSERT_MANY, MANY)
    await connection.execute("ANALYZE")
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        for name, (kind, scans) in CONNECTION_AND_SCANS.items():
            session: PostgresConnection = getattr(store._connections, kind)
            plan = await _generic_plan(session, name)
            found = [node for node in _nodes(plan) if node.get("Relation Name") == "live"]
            read = [node for node in found if node["Node Type"] != "ModifyTable"]
            assert {(node["Node Type"], node.get("Index Name")) for node in read} == scans, name
            for node in read:
                _check_condition(name, node)
            assert not any(node["Node Type"] == "Seq Scan" for node in _nodes(plan)), name


def _check_condition(name: str, node: Mapping[str, Any]) -> None:
    condition = node.get("Index Cond", "")
    match node["Index Name"]:
        case "live_pkey":
            assert re.search(r"\bid = (ANY \(|[$\w.]+)", condition), name
        case "live_due":
            assert "(ROW(due_at, id) > ROW(" in condition or "due_at >=" in condition, name
            for column in ("queue", "turn", "class", "due_at <="):
                assert column in condition, name
            assert "Filter" not in node, name
        case _:
            assert "expires_at <=" in condition, name


@pytest.mark.parametrize("is_snapshot_held", [False, True], ids=["no snapshot", "held snapshot"])
async def test_claims_and_records_of_a_drain_write_no_index_of_live(
    database_url: str, connection: Connection, *, is_snapshot_held: bool
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _accept(store, EMAIL_HIGH, SURGE)
    transaction = connection.transaction(isolation="repeatable_read")
    if is_snapshot_held:
        await transaction.start()
        await connection.fetchval("SELECT count(*) FROM live")
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _send(store, EMAIL_HIGH, SURGE)
    if is_snapshot_held:
        await transaction.rollback()
    await _read(connection)
    row = await connection.fetchrow(UPDATES_OF_LIVE)
    assert row is not None
    assert row["n_tup_upd"] == SURGE
    assert row["n_tup_hot_upd"] > 0.95 * SURGE


async def test_a_claim_beside_a_pause_writes_no_index_of_live_for_what_it_claims(
    database_url: str, connection: Connection
) -> None:
    pauses = [PauseParking(Scope(ScopeKind.TAG, "sale"), 60.0)]
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await _accept(store, EMAIL_HIGH, BATCH)
        requests = [claim_request(pointer) for pointer in await _due(store, EMAIL_HIGH, BATCH)]
        replies = await store.claim(requests, pauses=pauses)
        assert all(isinstance(reply, Claimed) for reply in replies)
    await _read(connection)
    row = await connection.fetchrow(UPDATES_OF_LIVE)
    assert row is not None
    assert (row["n_tup_upd"], row["n_tup_hot_upd"]) == (BATCH, BATCH)


async def _generic_plan(session: PostgresConnection, name: str) -> Mapping[str, Any]:
    """Return the plan of a statement for any values, in a session of the store."""
    text = statement(name)
    count = max(int(number) for number in re.findall(r"\$(\d+)", re.sub(r"--.*", "", text)))
    async with session.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE planned AS {text}")
        values = ", ".join(["NULL"] * count)
        [row] = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE planned ({values})")
        await connection.execute("DEALLOCATE planned")
    plan: Mapping[str, Any] = json.loads(row[0])[0]["Plan"]
    return plan


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


@dataclass
class Recovery:
    """A batch of rows that needs recovery, beside a surge of other rows."""

    name: str
    dead: PostgresStore
    pointers: Sequence[Pointer]
    claims: Sequence[Claimed] = field(default_factory=list)

    async def run(self, store: PostgresStore) -> None:
        match self.name:
            case "settle_orphans":
                decisions = [decision(row, self.dead.worker, Status.QUEUED) for row in self.claims]
                assert len(await store.settle_orphans(decisions, [])) == BATCH
            case "record_late":
                recorded = await store.record([a_result(claimed) for claimed in self.claims])
                assert all(result.late for result in recorded)
            case "give_back":
                requests = [claim_request(pointer) for pointer in self.pointers]
                assert len(await store.give_back(requests)) == BATCH
            case "fail_unclaimable":
                for pointer in self.pointers:
                    reply = await store.fail_unclaimable(claim_request(pointer), provider="smtp")
                    assert reply.status is Status.FAILED
            case "sweep":
                assert len(await sweep(store)) == BATCH
            case _:
                raise AssertionError(self.name)


async def _break_batch(name: str, url: str, connection: Connection) -> Recovery:
    async with open_store(ConnectionSettings(url=url), worker_id()) as dead:
        await _surge(dead)
        pointers = await _due(dead, EMAIL_HIGH, BATCH)
        claims = await claim_all(dead, pointers) if name in NEEDS_CLAIMS else []
    if name == "sweep":
        await connection.execute(EXPIRE_THE_BATCH)
    return Recovery(name, dead, pointers, claims)


async def _surge(store: PostgresStore) -> None:
    """Many sent and many waiting rows, with ids between those of a small batch of another queue."""
    await _accept(store, EMAIL_HIGH, BATCH // 2)
    await _accept(store, EMAIL_LOW, SURGE)
    await _send(store, EMAIL_LOW, SURGE)
    await _accept(store, EMAIL_LOW, SURGE)
    await _accept(store, EMAIL_HIGH, BATCH // 2)


async def _accept(store: PostgresStore, queue: QueueKey, count: int) -> None:
    for size in _batches(count):
        await store.insert([a_notification(queue) for _ in range(size)])


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
    for size in _batches(count):
        claims = await claim_all(store, await _due(store, queue, size))
        assert len(claims) == size
        await store.record([result_of(claimed) for claimed in claims])


def _batches(count: int) -> Sequence[int]:
    return [min(MAX_BATCH, count - start) for start in range(0, count, MAX_BATCH)]


async def _due(store: PostgresStore, queue: QueueKey, limit: int) -> Sequence[Pointer]:
    """Return the pointers of the first rows of a queue that are due for the first time."""
    read = await store.read_due([DueRange(queue, DueClass.FIRST, BEGINNING, limit)])
    return [row_pointer(row) for row in read.rows]


async def _give_back(store: PostgresStore, queue: QueueKey, count: int) -> None:
    pointers = await _due(store, queue, count)
    assert len(await store.give_back([claim_request(pointer) for pointer in pointers])) == count


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
    request = ClaimRequest(id=unknown.id, claim=0)
    for _ in range(EXECUTIONS_BEFORE_GENERIC_PLAN):
        await store.read_due(due_ranges(limit=BATCH))
        await store.claim([request])
        await store.record([a_result(unknown), _refused(unknown)])
        await store.give_back([request])
        await store.fail_unclaimable(request, provider="smtp")
        await sweep(store)
        await store.settle_orphans([decision(unknown, worker_id(), Status.QUEUED)], [])


async def _do_nothing(store: PostgresStore) -> None:
    del store


async def _read_by(
    url: str,
    connection: Connection,
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


async def _read(connection: Connection, other_sessions: int = 0) -> int:
    await until(lambda: connection.fetchval(SESSIONS), lambda count: count == other_sessions)
    await connection.execute("SELECT pg_stat_force_next_flush()")  # of what the test has read
    return int(await connection.fetchval(ROWS_READ))
