"""A row whose data Postgres rejects harms no other row, on a real Postgres."""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Final

import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.delivery.batch_write import write_batch
from notifier.domain.errors import StoreRejected
from notifier.domain.notification import Claimed, QueueKey, Status
from notifier.ports.store import (
    ClaimRequest,
    NotClaimed,
    OrphanDecision,
    Recorded,
    SettledOrphan,
)
from tests.builders import a_notification, a_result, claim_request, worker_id
from tests.live_rows import (
    attempts_of,
    claim_all,
    claimed,
    decision,
    due,
    end_of,
    live_row,
    published,
    sweep,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from notifier.domain.notification import NewNotification
    from tests.live_rows import Connection

MAX_SMALLINT: Final = 2**15 - 1
MAX_INTEGER: Final = 2**31 - 1
NOW: Final = timedelta(0)
BATCH: Final = 8
SQLSTATES: Final = ("21000", "22003", "23514")
"""One error of each class that the data of a row causes."""
REJECT: Final = """
    CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END) = '{id}' THEN
            RAISE EXCEPTION 'rejected' USING ERRCODE = '{sqlstate}';
        END IF;
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END $$;
    CREATE TRIGGER reject BEFORE {write} FOR EACH ROW EXECUTE FUNCTION reject()
"""


async def reject(connection: Connection, id_: UUID, write: str, sqlstate: str) -> None:
    """Let Postgres raise this error for this row, such as at `DELETE ON live`."""
    await connection.execute(REJECT.format(id=id_, write=write, sqlstate=sqlstate))


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[PostgresStore]:
    """The store of another worker."""
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


async def one_claimed(store: PostgresStore) -> Claimed:
    """A notification that the store's worker has claimed."""
    [row] = await claimed(store, a_notification())
    return row


async def batch_of_claimed(store: PostgresStore) -> Sequence[Claimed]:
    rows = await claimed(store, *(a_notification() for _ in range(BATCH)))
    assert len(rows) == BATCH
    return rows


@pytest.mark.parametrize("sqlstate", SQLSTATES)
@pytest.mark.parametrize("write", ["INSERT ON notifications", "INSERT ON live"])
async def test_a_row_whose_insert_is_rejected_is_not_stored_and_the_others_are(
    store: PostgresStore, connection: Connection, write: str, sqlstate: str
) -> None:
    items = [a_notification() for _ in range(BATCH)]
    await reject(connection, items[3].id, write, sqlstate)

    async def insert(batch: Sequence[NewNotification]) -> Sequence[NewNotification]:
        await store.insert(batch)
        return batch

    replies = await write_batch("insert", items, insert)
    assert [isinstance(reply, StoreRejected) for reply in replies] == [n == 3 for n in range(BATCH)]
    for table in ("notifications", "live"):
        stored = await connection.fetch(f"SELECT id FROM {table}")
        assert {row["id"] for row in stored} == {item.id for item in items} - {items[3].id}


@pytest.mark.parametrize("sqlstate", SQLSTATES)
async def test_a_row_whose_claim_is_rejected_fails_and_the_others_of_its_batch_are_claimed(
    store: PostgresStore, connection: Connection, sqlstate: str
) -> None:
    pointers = await published(store, *(a_notification() for _ in range(BATCH)))
    await reject(connection, pointers[3].id, "UPDATE ON live", sqlstate)
    requests = [claim_request(pointer) for pointer in pointers]
    replies = await write_batch("claim", requests, store.claim)
    [request] = [
        request
        for request, reply in zip(requests, replies, strict=True)
        if isinstance(reply, StoreRejected)
    ]
    assert request.id == pointers[3].id
    assert sum(isinstance(reply, Claimed) for reply in replies) == BATCH - 1
    reply = await store.fail_unclaimable(request, provider="smtp")
    assert reply.status is Status.FAILED
    assert reply.age_s > 0
    assert await live_row(connection, request.id) is None
    end = await end_of(connection, request.id)
    assert end is not None
    assert (end["status"], end["claim"], end["queue"], end["tries"]) == (
        "failed",
        0,
        "email.high",
        0,
    )
    assert (end["provider"], end["reason"], end["code"]) == ("smtp", "poison", "claim_rejected")
    assert await attempts_of(connection, request.id) == []


@pytest.mark.parametrize("sqlstate", SQLSTATES)
@pytest.mark.parametrize("write", ["DELETE ON live", "INSERT ON attempts"])
async def test_a_sent_row_whose_record_is_rejected_stays_claimed_and_the_others_are_recorded(
    store: PostgresStore, connection: Connection, write: str, sqlstate: str
) -> None:
    rows = await batch_of_claimed(store)
    await reject(connection, rows[3].id, write, sqlstate)
    replies = await write_batch("record", [a_result(row) for row in rows], store.record)
    await check_all_but_the_fourth(connection, rows, replies, Status.SENT)


@pytest.mark.parametrize("sqlstate", SQLSTATES)
@pytest.mark.parametrize("write", ["DELETE ON live", "INSERT ON attempts", "INSERT ON ends"])
async def test_a_failed_row_whose_record_is_rejected_stays_claimed_and_the_others_are_recorded(
    store: PostgresStore, connection: Connection, write: str, sqlstate: str
) -> None:
    rows = await batch_of_claimed(store)
    await reject(connection, rows[3].id, write, sqlstate)
    results = [a_result(row, Status.FAILED, outcome="refused", reason="refused") for row in rows]
    replies = await write_batch("record", results, store.record)
    await check_all_but_the_fourth(connection, rows, replies, Status.FAILED)


@pytest.mark.parametrize("sqlstate", SQLSTATES)
@pytest.mark.parametrize("write", ["UPDATE ON live", "INSERT ON attempts"])
async def test_a_retry_whose_record_is_rejected_stays_claimed_and_the_others_are_recorded(
    store: PostgresStore, connection: Connection, write: str, sqlstate: str
) -> None:
    rows = await batch_of_claimed(store)
    await reject(connection, rows[3].id, write, sqlstate)
    results = [
        a_result(row, Status.RETRYING, outcome="unavailable", after=timedelta(minutes=1))
        for row in rows
    ]
    replies = await write_batch("record", results, store.record)
    await check_all_but_the_fourth(connection, rows, replies, Status.RETRYING)


async def check_all_but_the_fourth(
    connection: Connection,
    rows: Sequence[Claimed],
    replies: Sequence[Recorded | Exception],
    status: Status,
) -> None:
    """Check that one row is as it was claimed, and that the results of the others are recorded."""
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        live = await live_row(connection, row.id)
        if number == 3:
            assert isinstance(reply, StoreRejected)
            assert live is not None
            assert live["claim"] == row.claim
            assert live["claimed_by"].int != 0
            assert await attempts_of(connection, row.id) == []
        else:
            assert isinstance(reply, Recorded)
            assert (reply.status, reply.late) == (status, False)
            assert (live is not None) is (status is Status.RETRYING)
            assert len(await attempts_of(connection, row.id)) == 1


@pytest.mark.parametrize("sqlstate", SQLSTATES)
@pytest.mark.parametrize("write", ["DELETE ON live", "INSERT ON attempts"])
async def test_a_late_result_that_is_rejected_changes_nothing_and_the_others_are_recorded(
    store: PostgresStore, other: PostgresStore, connection: Connection, write: str, sqlstate: str
) -> None:
    rows = await batch_of_claimed(store)
    await other.settle_orphans([decision(row, store.worker, Status.QUEUED) for row in rows], [])
    # The burial has written the attempts: correcting one is an update.
    corrected = write.replace("INSERT", "UPDATE")
    await reject(connection, rows[3].id, corrected, sqlstate)
    replies = await write_batch("record", [a_result(row) for row in rows], store.record)
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        if number == 3:
            assert isinstance(reply, StoreRejected)
            assert await live_row(connection, row.id) is not None
            assert await attempts_of(connection, row.id) == [(1, "ambiguous", False)]
        else:
            assert isinstance(reply, Recorded)
            assert (reply.status, reply.late) == (Status.SENT, True)
            assert await live_row(connection, row.id) is None


@pytest.mark.parametrize("sqlstate", SQLSTATES)
async def test_a_row_whose_give_back_is_rejected_stays_and_the_others_are_given_back(
    store: PostgresStore, connection: Connection, sqlstate: str
) -> None:
    rows = await batch_of_claimed(store)
    await reject(connection, rows[3].id, "UPDATE ON live", sqlstate)

    async def give_back(requests: Sequence[ClaimRequest]) -> Sequence[QueueKey | None]:
        return [*await store.give_back(requests), *[None] * len(requests)][: len(requests)]

    requests = [ClaimRequest(id=row.id, claim=0) for row in rows]
    replies = await write_batch("give_back", requests, give_back)
    assert [isinstance(reply, StoreRejected) for reply in replies] == [n == 3 for n in range(BATCH)]
    assert {pointer.id for pointer in await due(store)} == {row.id for row in rows} - {rows[3].id}


@pytest.mark.parametrize("sqlstate", SQLSTATES)
@pytest.mark.parametrize(
    ("write", "status"),
    [
        ("UPDATE ON live", Status.QUEUED),
        ("INSERT ON attempts", Status.QUEUED),
        ("DELETE ON live", Status.FAILED),
        ("INSERT ON ends", Status.FAILED),
    ],
)
async def test_an_orphan_whose_burial_is_rejected_stays_and_the_others_are_settled(
    store: PostgresStore,
    other: PostgresStore,
    connection: Connection,
    write: str,
    status: Status,
    sqlstate: str,
) -> None:
    rows = await batch_of_claimed(store)
    await reject(connection, rows[3].id, write, sqlstate)

    async def settle(decisions: Sequence[OrphanDecision]) -> Sequence[SettledOrphan | None]:
        settled = {
            reply.decision.orphan.id: reply for reply in await other.settle_orphans(decisions, [])
        }
        return [settled.get(decision.orphan.id) for decision in decisions]

    decisions = [decision(row, store.worker, status, "ambiguous") for row in rows]
    replies = await write_batch("settle_orphans", decisions, settle)
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        live = await live_row(connection, row.id)
        if number == 3:
            assert isinstance(reply, StoreRejected)
            assert live is not None
            assert (live["claimed_by"], live["deaths"]) == (store.worker, 0)
        else:
            assert isinstance(reply, SettledOrphan)
            assert reply.status is status
            assert (live is not None) is (status is Status.QUEUED)


async def test_a_row_at_the_greatest_claim_cannot_be_claimed_and_fails(
    store: PostgresStore, connection: Connection
) -> None:
    [pointer] = await published(store, a_notification())
    await connection.execute("UPDATE live SET claim = $1", MAX_INTEGER)
    request = ClaimRequest(id=pointer.id, claim=MAX_INTEGER)
    with pytest.raises(StoreRejected):
        await store.claim([request])
    reply = await store.fail_unclaimable(request, provider="smtp")
    assert reply.status is Status.FAILED


async def test_a_row_with_infinite_times_fails_too(
    store: PostgresStore, connection: Connection
) -> None:
    [pointer] = await published(store, a_notification())
    await connection.execute("UPDATE live SET created_at = '-infinity', ready_at = 'infinity'")
    reply = await store.fail_unclaimable(claim_request(pointer), provider="smtp")
    assert reply == NotClaimed(Status.FAILED, 0.0)


async def test_failing_a_row_again_or_one_that_has_moved_on_changes_nothing(
    store: PostgresStore, connection: Connection
) -> None:
    [pointer] = await published(store, a_notification())
    assert (await store.fail_unclaimable(claim_request(pointer), provider="smtp")).status
    before = await end_of(connection, pointer.id)
    again = await store.fail_unclaimable(claim_request(pointer), provider="http")
    assert again == NotClaimed()
    assert await end_of(connection, pointer.id) == before
    sending = await one_claimed(store)
    row = await live_row(connection, sending.id)
    for claim in (0, 1):
        request = ClaimRequest(id=sending.id, claim=claim)
        assert await store.fail_unclaimable(request, provider="smtp") == NotClaimed()
    assert await live_row(connection, sending.id) == row


async def test_a_late_accepted_settles_a_row_whose_next_claim_was_rejected(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    before = await one_claimed(store)
    await other.settle_orphans([decision(before, store.worker, Status.QUEUED)], [])
    request = ClaimRequest(id=before.id, claim=before.claim)
    assert (await store.fail_unclaimable(request, provider="smtp")).status is Status.FAILED
    [recorded] = await store.record([a_result(before)])
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    assert await end_of(connection, before.id) is None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(Status.SENT, "accepted"), (Status.RETRYING, "unavailable"), (Status.FAILED, "refused")],
)
async def test_a_result_is_recorded_at_the_greatest_number_of_tries(
    store: PostgresStore, connection: Connection, status: Status, outcome: str
) -> None:
    row = await one_claimed(store)
    await connection.execute("UPDATE live SET tries = $1", MAX_SMALLINT)
    [recorded] = await store.record([a_result(row, status, outcome=outcome, after=NOW)])
    assert (recorded.status, recorded.late) == (status, False)
    assert await connection.fetchval("SELECT tries FROM attempts") == MAX_SMALLINT


async def claimed_after_throttled(store: PostgresStore) -> Claimed:
    """The second claim of a notification whose first attempt was throttled."""
    first = await one_claimed(store)
    await store.record(
        [a_result(first, Status.RETRYING, outcome="throttled", spends=False, after=NOW)]
    )
    [second] = await claim_all(store, await due(store))
    return second


async def test_a_throttled_attempt_is_recorded_at_the_greatest_number_of_repeats(
    store: PostgresStore, connection: Connection
) -> None:
    row = await claimed_after_throttled(store)
    await connection.execute("UPDATE attempts SET repeats = $1", MAX_INTEGER)
    [recorded] = await store.record(
        [a_result(row, Status.RETRYING, outcome="throttled", spends=False, after=NOW)]
    )
    assert recorded.status is Status.RETRYING
    [attempt] = await connection.fetch("SELECT claim, repeats FROM attempts")
    assert (attempt["claim"], attempt["repeats"]) == (2, MAX_INTEGER)


async def test_a_throttled_attempt_is_recorded_if_its_claim_has_an_attempt_already(
    store: PostgresStore, connection: Connection
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
    assert [claim for claim, _, _ in await attempts_of(connection, row.id)] == [1, 2]


async def test_an_orphan_is_settled_at_the_greatest_number_of_deaths(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    row = await one_claimed(store)
    await connection.execute("UPDATE live SET deaths = $1", MAX_SMALLINT)
    decisions = [decision(row, store.worker, Status.QUEUED, deaths=MAX_SMALLINT)]
    [settled] = await other.settle_orphans(decisions, [])
    assert settled.status is Status.QUEUED
    assert await connection.fetchval("SELECT deaths FROM live") == MAX_SMALLINT


async def test_giving_back_a_pointer_with_the_greatest_claim_changes_nothing(
    store: PostgresStore,
) -> None:
    row = await one_claimed(store)
    request = ClaimRequest(id=row.id, claim=MAX_INTEGER)
    assert await store.give_back([request]) == []


async def test_the_same_late_result_twice_in_a_batch_is_recorded_once(
    store: PostgresStore, other: PostgresStore, connection: Connection
) -> None:
    row = await one_claimed(store)
    await other.settle_orphans([decision(row, store.worker, Status.QUEUED)], [])
    result = a_result(row)
    replies = await store.record([result, result])
    assert [(reply.status, reply.late) for reply in replies] == [(Status.SENT, True)] * 2
    assert await attempts_of(connection, row.id) == [(1, "accepted", True)]


@pytest.mark.parametrize("sqlstate", [*SQLSTATES, "40001"])
async def test_a_claimed_row_without_a_notification_that_cannot_end_harms_no_other(
    store: PostgresStore, connection: Connection, sqlstate: str
) -> None:
    pointers = await published(store, *(a_notification() for _ in range(BATCH)))
    await connection.execute("DELETE FROM notifications WHERE id = $1", pointers[0].id)
    await reject(connection, pointers[0].id, "DELETE ON live", sqlstate)
    requests = [claim_request(pointer) for pointer in pointers]
    replies = await write_batch("claim", requests, store.claim)
    assert replies[0] == NotClaimed()
    assert all(isinstance(reply, Claimed) for reply in replies[1:])


async def test_the_sweep_ends_a_row_without_a_finite_age(
    store: PostgresStore, connection: Connection
) -> None:
    await published(store, *(a_notification(ttl=timedelta(microseconds=1)) for _ in range(2)))
    await connection.execute(
        "UPDATE live SET created_at = '-infinity' WHERE id = (SELECT id FROM live LIMIT 1)"
    )
    first, second = sorted(row.age_s for row in await sweep(store))
    assert first == 0  # Postgres 16 and older raise where later ones return infinity
    assert second < inf


@pytest.mark.parametrize("time", ["infinity", "-infinity"])
async def test_a_row_without_a_finite_time_is_counted_with_the_others(
    store: PostgresStore, connection: Connection, time: str
) -> None:
    first, _ = await published(store, a_notification(), a_notification())
    await connection.execute(f"UPDATE live SET ready_at = '{time}' WHERE id = '{first.id}'")
    for count in (store.waiting, store.count_waiting):
        waiting = (await count([first.queue]))[first.queue]
        assert waiting.due == 2
        assert timedelta(0) <= waiting.oldest_wait < timedelta(days=1)
