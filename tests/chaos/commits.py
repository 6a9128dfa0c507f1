"""Faults between a commit and what reads its rows: held back, answered too late, expired."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from benchmarks.prove.bulk import insert_waiting
from harness.client import QUEUES, submit_body
from harness.judge import percentile
from harness.run import MIN_IN_FLIGHT, TooFewInFlight
from harness.statuses import on_statuses
from notifier.adapters.postgres.store import PostgresStore, StoreConnections
from notifier.domain.notification import QueueKey
from tests.builders import a_notification, worker_id
from tests.chaos.backlog import backlog_bodies
from tests.chaos.processes import PROCESS_S
from tests.chaos.round import Fault, Round
from tests.chaos.trace import Kind, of_kind
from tests.chaos.traced import FAST, FULL

BATCH: Final = 30
BRIEF_S, LONG_S = 4.0, 10.0
"""Spans of a held back commit: shorter and longer than the 6 s after which the snapshots of a
stalled Postgres no longer count."""
LONG_LOOK_S: Final = 75.0
"""Bound for what a stalled proof leaves to the long look, which runs once a minute."""
FOREIGN_S: Final = 60.0
CUTS, SWALLOWED_S, BETWEEN_S = 3, 4.0, 3.0
"""The rows of a swallowed answer are published and sent before the insert is repeated."""
EXPIRING: Final = 100_000
TTL_S: Final = 8.0
FRESH: Final = 100
FRESH_AFTER_S, FRESH_WITHIN_S = 1.0, 5.0


class _OpenTransaction:
    """A connection of a store whose statements run in a transaction that is not committed yet."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *values: Any) -> Sequence[asyncpg.Record]:
        return await self._connection.fetch(sql, *values)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        yield self._connection


@asynccontextmanager
async def _transaction(
    round_: Round,
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A transaction that has a number and is committed at the end."""
    connection = await asyncpg.connect(round_.arena.place.database)
    try:
        async with connection.transaction():
            await connection.fetch("SELECT pg_current_xact_id()")
            yield connection
    finally:
        await connection.close()


async def _hold_back(round_: Round, span_s: float) -> tuple[list[str], float]:
    """Insert a batch as an API does and commit it after a while; return ids and time of commit."""
    bodies = [submit_body(QUEUES[number % len(QUEUES)]) for number in range(BATCH)]
    items = [
        a_notification(
            QueueKey.parse(f"{body['channel']}.{body['priority']}"), recipient=body["recipient"]
        )
        for body in bodies
    ]
    ids, began_at = [str(item.id) for item in items], time.time()
    async with _transaction(round_) as connection:
        held: Any = [_OpenTransaction(connection)] * len(StoreConnections._fields)
        await PostgresStore(worker_id(), StoreConnections(*held)).insert(items)
        await asyncio.sleep(span_s)
    committed_at = time.time()
    round_.load.accepted |= dict.fromkeys(ids, "ok")
    round_.load.asked_at |= dict.fromkeys(ids, began_at)
    return ids, committed_at


async def commit_held_back(round_: Round) -> float:
    """Hold back a commit while later rows are published. Recovery counts from the commit."""
    ids, committed_at = await _hold_back(round_, LONG_S)
    round_.hit(ids)
    return committed_at


async def foreign_transaction(round_: Round) -> float:
    """Keep a write transaction open that is not ours, and hold back commits beside it."""
    began_at = time.time()
    async with _transaction(round_):
        late, late_at = await _hold_back(round_, LONG_S)
        while time.time() < began_at + FOREIGN_S - BRIEF_S:
            ids, committed_at = await _hold_back(round_, BRIEF_S)
            round_.hit(ids)
            await asyncio.sleep(PROCESS_S)
            took_s = await _sent_after_s(round_, ids, committed_at)
            text = f"a commit held back for {BRIEF_S:g} s: all sent after {took_s:.1f} s"
            round_.found.append(text)
            round_.require(text, holds=took_s <= PROCESS_S)
        ended_at = time.time()
        await asyncio.sleep(max(0.0, late_at + LONG_LOOK_S - time.time()))
    took_s = await _sent_after_s(round_, late, late_at)
    text = f"a commit held back for {LONG_S:g} s: all sent after {took_s:.1f} s"
    round_.found.append(text)
    round_.require(text, holds=took_s <= LONG_LOOK_S)
    return ended_at


async def _sent_after_s(round_: Round, ids: Sequence[str], committed_at: float) -> float:
    """Return the seconds until the last of these was sent, infinity if one is not."""
    sql = on_statuses("""SELECT max(CASE status WHEN 'sent' THEN at ELSE 'infinity' END)
                         FROM statuses WHERE id = ANY($1)""")
    return await round_.arena.run.number(sql, [UUID(which) for which in ids]) - committed_at


async def accept_cut_after_commit(round_: Round) -> float:
    """Lose the answers of Postgres to the API for a while, then its connections, several times."""
    assert round_.arena.links, "the fault needs linked=True"
    proxy, began = round_.arena.links.api.postgres, datetime.now(UTC)
    await round_.aim("queued", "sending", more=round_.load.in_flight_submits)
    stored = set[str]()
    for _ in range(CUTS):
        swallowed_at = datetime.now(UTC)
        proxy.swallow_replies()
        await asyncio.sleep(SWALLOWED_S)
        stored |= await _stored(round_, swallowed_at, datetime.now(UTC))
        proxy.cut()
        proxy.heal()
        await asyncio.sleep(BETWEEN_S)
    if len(stored) < MIN_IN_FLIGHT:
        raise TooFewInFlight(f"{len(stored)} rows were stored without an answer")
    answered = len(stored & set(round_.load.accepted))
    round_.found.append(f"{len(stored)} stored without an answer, {answered} answered later")
    calls = await round_.load.client.log(since=began.isoformat().replace("+00:00", "Z"))
    times = [call["notification_id"] for call in calls if call["accepted"]]
    twice = {which for which in stored if times.count(which) > 1}
    unmarked = twice - await round_.arena.run.ambiguous()
    round_.require(f"{len(unmarked)} of them were sent twice, unmarked", holds=not unmarked)
    return time.time()


async def _stored(round_: Round, since: datetime, until: datetime) -> set[str]:
    sql = "SELECT id FROM notifications WHERE created_at BETWEEN $1 AND $2"
    return {str(row["id"]) for row in await round_.arena.run.rows(sql, since, until)}


async def expired_at_the_cursor(round_: Round) -> float:
    """Resume a queue whose first 100,000 rows have expired; fresh rows must not wait for them."""
    run, client = round_.arena.run, round_.load.client
    (copied,) = await round_.load.submit(backlog_bodies(1, 5))
    await client.hold("pause", "queue", str(FULL))
    try:
        await insert_waiting(run, [UUID(copied)], EXPIRING, timedelta(seconds=TTL_S))
        await asyncio.sleep(TTL_S)
        await round_.aim("queued", "sending")
    finally:
        await client.hold("resume", "queue", str(FULL))
    resumed_at = time.time()
    due_at = datetime.now(UTC) + timedelta(seconds=FRESH_AFTER_S)
    body = submit_body(str(FULL), recipient=f"{FAST}5", send_at=due_at.isoformat())
    fresh = set(await round_.load.submit([body] * FRESH))
    round_.hit(fresh)
    await asyncio.sleep(FRESH_AFTER_S + PROCESS_S)
    called = {
        event.keys[0].id: event.at - due_at.timestamp()
        for event in of_kind(round_.trace.events(), Kind.CALLED)
        if event.keys[0].id in fresh
    }
    waits = [called.get(which, float("inf")) for which in fresh]
    text = f"p99 of the fresh rows' waits {percentile(waits, 0.99):.2f} s"
    round_.found.append(text)
    round_.require(text, holds=percentile(waits, 0.99) <= FRESH_WITHIN_S)
    return resumed_at


COMMITS: Final = (
    Fault(
        strike=commit_held_back,
        timeout_s=PROCESS_S,
        text=f"The commit of an accepted batch is held back for {LONG_S:g} s while later rows are "
        "published. Counted from the commit.",
    ),
    Fault(
        strike=foreign_transaction,
        timeout_s=PROCESS_S,
        text=f"A write transaction of another client is open for {FOREIGN_S:g} s, and commits of "
        f"accepted batches are held back beside it: for {BRIEF_S:g} s, sent within "
        f"{PROCESS_S:g} s, and for {LONG_S:g} s, sent within {LONG_LOOK_S:g} s.",
    ),
    Fault(
        strike=accept_cut_after_commit,
        timeout_s=PROCESS_S,
        linked=True,
        text=f"The answers of Postgres to the API are lost for {SWALLOWED_S:g} s, {CUTS} times, "
        "then its connections: the API repeats inserts that were committed, and whose rows were "
        "sent meanwhile.",
    ),
    Fault(
        strike=expired_at_the_cursor,
        timeout_s=PROCESS_S,
        traced=True,
        text=f"A queue is paused until {EXPIRING:,} rows have expired in it. Rows that "
        f"become due afterwards are called within {FRESH_WITHIN_S:g} s.",
    ),
)
