"""A row whose data Postgres rejects harms no other row, on a real Postgres."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.delivery.batch_write import write_batch
from notifier.domain.errors import StoreRejected
from notifier.domain.notification import Claimed, Status
from notifier.ports.heartbeat import DeadProcess
from notifier.ports.queries import Filter
from notifier.ports.store import ClaimRequest, NotClaimed, OrphanDecision
from tests.builders import (
    EMAIL_HIGH,
    a_notification,
    a_result,
    claim_request,
    quotas,
    worker_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import asyncpg

    from notifier.adapters.postgres.reader import PostgresReader
    from notifier.domain.notification import NewNotification
    from notifier.ports.broker import Pointer

MAX_SMALLINT = 2**15 - 1
MAX_INTEGER = 2**31 - 1
NOW = timedelta(0)
REJECTED = "rejected@example.com"
REJECT_ITS_CLAIM = """
    CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'rejected' USING ERRCODE = '{}'; END $$;
    CREATE TRIGGER reject BEFORE UPDATE ON notifications FOR EACH ROW
        WHEN (NEW.status = 'sending' AND NEW.recipient = 'rejected@example.com')
        EXECUTE FUNCTION reject()
"""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[PostgresReader]:
    async with open_reader(ConnectionSettings(url=database_url)) as reader:
        yield reader


async def published(store: PostgresStore, *items: NewNotification) -> Sequence[Pointer]:
    await store.insert(items)
    return [pointer for pointer, _ in await store.take_due(quotas(), 500)]


async def claimed(store: PostgresStore) -> Claimed:
    """A notification that the store's worker has claimed."""
    [pointer] = await published(store, a_notification())
    [reply] = await store.claim([claim_request(pointer)])
    assert isinstance(reply, Claimed)
    return reply


@pytest.mark.parametrize("sqlstate", ["21000", "22003", "23514"])
async def test_a_row_whose_claim_is_rejected_fails_and_the_others_of_its_batch_are_claimed(
    store: PostgresStore,
    reader: PostgresReader,
    connection: asyncpg.Connection[asyncpg.Record],
    sqlstate: str,
) -> None:
    await connection.execute(REJECT_ITS_CLAIM.format(sqlstate))
    items = [a_notification(recipient=REJECTED if n == 3 else "ok@example.com") for n in range(8)]
    requests = [claim_request(pointer) for pointer in await published(store, *items)]
    replies = await write_batch("claim", requests, store.claim)
    [request] = [
        request
        for request, reply in zip(requests, replies, strict=True)
        if isinstance(reply, StoreRejected)
    ]
    assert request.id == items[3].id
    assert sum(isinstance(reply, Claimed) for reply in replies) == len(items) - 1
    reply = await store.fail_unclaimable(request, provider="smtp")
    assert reply.status is Status.FAILED
    assert reply.age_s > 0
    [failure] = await reader.failures(Filter())
    assert (failure.id, failure.queue, failure.provider, failure.tries) == (
        items[3].id,
        EMAIL_HIGH,
        "smtp",
        0,
    )
    assert (failure.reason, failure.code) == ("poison", "claim_rejected")
    view = await reader.get(items[3].id)
    assert view is not None
    assert (view.status, view.due_at, view.last_error, view.attempts) == (
        Status.FAILED,
        None,
        "claim_rejected",
        (),
    )


async def test_a_row_at_the_greatest_claim_cannot_be_claimed_and_fails(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    [pointer] = await published(store, a_notification())
    await connection.execute("UPDATE notifications SET claim = $1", MAX_INTEGER)
    request = ClaimRequest(id=pointer.id, claim=MAX_INTEGER)
    with pytest.raises(StoreRejected):
        await store.claim([request])
    reply = await store.fail_unclaimable(request, provider="smtp")
    assert reply.status is Status.FAILED


async def test_a_row_with_infinite_times_fails_too(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    [pointer] = await published(store, a_notification())
    await connection.execute(
        "UPDATE notifications SET created_at = '-infinity', ready_at = 'infinity'"
    )
    reply = await store.fail_unclaimable(claim_request(pointer), provider="smtp")
    assert reply == NotClaimed(Status.FAILED, 0.0)


async def test_failing_a_row_again_or_one_that_has_moved_on_changes_nothing(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [pointer] = await published(store, a_notification())
    assert (await store.fail_unclaimable(claim_request(pointer), provider="smtp")).status
    failures = await reader.failures(Filter())
    again = await store.fail_unclaimable(claim_request(pointer), provider="http")
    assert again == NotClaimed()
    assert await reader.failures(Filter()) == failures
    sending = await claimed(store)
    for claim in (0, 1):
        request = ClaimRequest(id=sending.id, claim=claim)
        assert await store.fail_unclaimable(request, provider="smtp") == NotClaimed()
    view = await reader.get(sending.id)
    assert view is not None
    assert view.status is Status.SENDING


async def test_a_late_accepted_settles_a_row_whose_next_claim_was_rejected(
    store: PostgresStore, reader: PostgresReader
) -> None:
    before = await claimed(store)
    request = ClaimRequest(id=before.id, claim=before.claim)
    await store.give_back([ClaimRequest(id=before.id, claim=0)])
    assert (await store.fail_unclaimable(request, provider="smtp")).status is Status.FAILED
    [recorded] = await store.record([a_result(before)])
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    assert await reader.failures(Filter()) == []


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(Status.SENT, "accepted"), (Status.RETRYING, "unavailable"), (Status.FAILED, "refused")],
)
async def test_a_result_is_recorded_at_the_greatest_number_of_tries(
    store: PostgresStore,
    reader: PostgresReader,
    connection: asyncpg.Connection[asyncpg.Record],
    status: Status,
    outcome: str,
) -> None:
    row = await claimed(store)
    await connection.execute("UPDATE notifications SET tries = $1", MAX_SMALLINT)
    [recorded] = await store.record([a_result(row, status, outcome=outcome, after=NOW)])
    assert (recorded.status, recorded.late) == (status, False)
    view = await reader.get(row.id)
    assert view is not None
    assert view.tries == MAX_SMALLINT


async def claimed_after_throttled(store: PostgresStore) -> Claimed:
    """The second claim of a notification whose first attempt was throttled."""
    first = await claimed(store)
    await store.record(
        [a_result(first, Status.RETRYING, outcome="throttled", spends=False, after=NOW)]
    )
    [(pointer, _)] = await store.take_due(quotas(), 1)
    [second] = await store.claim([claim_request(pointer)])
    assert isinstance(second, Claimed)
    return second


async def test_a_throttled_attempt_is_recorded_at_the_greatest_number_of_repeats(
    store: PostgresStore, reader: PostgresReader, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    row = await claimed_after_throttled(store)
    await connection.execute("UPDATE attempts SET repeats = $1", MAX_INTEGER)
    [recorded] = await store.record(
        [a_result(row, Status.RETRYING, outcome="throttled", spends=False, after=NOW)]
    )
    assert recorded.status is Status.RETRYING
    view = await reader.get(row.id)
    assert view is not None
    assert [(attempt.claim, attempt.repeats) for attempt in view.attempts] == [(2, MAX_INTEGER)]


async def test_a_throttled_attempt_is_recorded_if_its_claim_has_an_attempt_already(
    store: PostgresStore, reader: PostgresReader, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    row = await claimed_after_throttled(store)
    await connection.execute(
        """
        INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s,
                              provider, outcome, code, detail, reference)
        SELECT id, 2, recorded_by, started_at, finished_at, 0, provider, 'ambiguous', '', '', ''
        FROM attempts
        """
    )
    [recorded] = await store.record(
        [a_result(row, Status.RETRYING, outcome="throttled", spends=False, after=NOW)]
    )
    assert recorded.status is Status.RETRYING
    view = await reader.get(row.id)
    assert view is not None
    assert [attempt.claim for attempt in view.attempts] == [1, 2]


async def test_rows_are_rescued_at_the_greatest_number_of_rescues(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    age = "UPDATE notifications SET rescues = $1, published_at = now() - interval '1 day'"
    await published(store, a_notification())
    await connection.execute(age, MAX_SMALLINT)
    assert await store.rescue(EMAIL_HIGH, await store.database_now()) == 1
    assert len(await store.take_due(quotas(), 1)) == 1
    await connection.execute(
        """
        INSERT INTO workers (id, kind, host, pid, beat, figures)
        VALUES ($1, 'worker', 'h', 1, 1, '{}')
        """,
        store.worker,
    )
    dead = [DeadProcess(store.worker, 1)]
    assert await store.rescue_from(dead, [EMAIL_HIGH]) == {EMAIL_HIGH: 1}
    assert await connection.fetchval("SELECT rescues FROM notifications") == MAX_SMALLINT


async def test_an_orphan_is_settled_at_the_greatest_number_of_deaths(
    store: PostgresStore, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await claimed(store)
    await connection.execute("UPDATE notifications SET deaths = $1", MAX_SMALLINT)
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as other:
        [orphan] = await other.claimed_by_dead([])
        assert orphan.deaths == MAX_SMALLINT
        decision = OrphanDecision(orphan=orphan, provider="smtp", status=Status.QUEUED, reason="")
        [settled] = await other.settle_orphans([decision], [])
    assert settled.status is Status.QUEUED
    assert await connection.fetchval("SELECT deaths FROM notifications") == MAX_SMALLINT


async def test_giving_back_a_pointer_with_the_greatest_claim_changes_nothing(
    store: PostgresStore,
) -> None:
    row = await claimed(store)
    request = ClaimRequest(id=row.id, claim=MAX_INTEGER)
    assert await store.give_back([request]) == []


async def test_the_same_late_result_twice_in_a_batch_is_recorded_once(
    store: PostgresStore, reader: PostgresReader
) -> None:
    row = await claimed(store)
    await store.give_back([ClaimRequest(id=row.id, claim=0)])
    result = a_result(row)
    replies = await store.record([result, result])
    assert [(reply.status, reply.late) for reply in replies] == [(Status.SENT, True)] * 2
    view = await reader.get(row.id)
    assert view is not None
    assert len(view.attempts) == 1
