"""The contracts of the store and the reader, on a real Postgres."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate, revisions
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.errors import ConfigError, StoreRejected, StoreUnavailable
from notifier.domain.notification import Claimed, Status
from notifier.ports.broker import Pointer
from notifier.ports.queries import Filter
from notifier.ports.store import ClaimRequest, NotClaimed
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    QUEUES,
    a_notification,
    a_result,
    claim_request,
    new_id,
    quotas,
    worker_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.adapters.postgres.reader import PostgresReader
    from notifier.domain.notification import NewNotification, NotificationView


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
async def reader(database_url: str) -> AsyncIterator[PostgresReader]:
    async with open_reader(ConnectionSettings(url=database_url)) as reader:
        yield reader


async def published(store: PostgresStore, *items: NewNotification) -> Sequence[Pointer]:
    await store.insert(items)
    return [pointer for pointer, _ in await store.take_due(quotas(), 500)]


async def claimed(store: PostgresStore, *items: NewNotification) -> Sequence[Claimed]:
    replies = await store.claim(
        [claim_request(pointer) for pointer in await published(store, *items)]
    )
    return [reply for reply in replies if isinstance(reply, Claimed)]


async def read_view(reader: PostgresReader, item: NewNotification | Claimed) -> NotificationView:
    view = await reader.get(item.id)
    assert view is not None
    return view


async def test_a_second_migration_applies_nothing(empty_database_url: str) -> None:
    assert await asyncio.to_thread(migrate, empty_database_url) == revisions()
    assert await asyncio.to_thread(migrate, empty_database_url) == []


async def test_a_database_without_tables_is_a_config_error_that_names_the_command(
    empty_database_url: str,
) -> None:
    async with open_store(ConnectionSettings(url=empty_database_url), worker_id()) as store:
        with pytest.raises(ConfigError, match="notifier migrate"):
            await store.waiting(QUEUES)


async def test_an_inserted_notification_is_due_at_once(
    store: PostgresStore, reader: PostgresReader
) -> None:
    item = a_notification()
    assert await store.insert([item]) == []
    assert (await store.waiting(QUEUES))[EMAIL_HIGH].due == 1
    view = await read_view(reader, item)
    assert (view.status, view.content, view.tries) == (Status.QUEUED, item.content, 0)
    assert view.expires_at - view.created_at == item.ttl


async def test_inserting_a_batch_twice_stores_each_notification_once(
    store: PostgresStore, reader: PostgresReader
) -> None:
    items = [a_notification() for _ in range(3)]
    await store.insert(items)
    await store.insert(items)
    assert len(await reader.notifications(Filter())) == 3


async def test_a_row_stored_as_published_is_not_due_and_can_be_claimed(
    store: PostgresStore, reader: PostgresReader
) -> None:
    taken, due = a_notification(), a_notification()
    (pointer,) = await store.insert([due, taken], published={taken.id})
    assert (pointer.id, pointer.queue, pointer.claim) == (taken.id, EMAIL_HIGH, 0)
    assert [pointer.id for pointer, _ in await store.take_due(quotas(), 500)] == [due.id]
    (reply,) = await store.claim([claim_request(pointer)])
    assert isinstance(reply, Claimed)
    assert (await read_view(reader, taken)).status is Status.SENDING


async def test_a_pointer_carries_the_size_of_the_content_and_the_deaths(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    direct, due = a_notification(content=b"{}"), a_notification(content=b"x" * 200_000)
    (pointer,) = await store.insert([direct, due], published={direct.id})
    assert (pointer.size, pointer.deaths) == (2, 0)
    await connection.execute("UPDATE notifications SET deaths = 2")
    ((taken, _),) = await store.take_due(quotas(), 500)
    assert (taken.id, taken.size, taken.deaths) == (due.id, 200_000, 2)


async def test_a_row_stored_as_published_is_due_after_an_unconfirmed_publish(
    store: PostgresStore,
) -> None:
    item = a_notification()
    await store.unpublish(await store.insert([item], published={item.id}))
    assert [pointer.id for pointer, _ in await store.take_due(quotas(), 500)] == [item.id]


async def test_a_repeated_insert_decides_again_which_rows_are_published(
    store: PostgresStore,
) -> None:
    item = a_notification()
    await store.insert([item], published={item.id})
    pointers = await store.insert([item], published={item.id})
    await store.unpublish(pointers)  # those of the second insert, by their time of publishing
    assert (await store.waiting(QUEUES))[EMAIL_HIGH].due == 1
    ((pointer, _),) = await store.take_due(quotas(), 500)
    await store.insert([item])
    assert (await store.waiting(QUEUES))[EMAIL_HIGH].due == 1
    ((pointer, _),) = await store.take_due(quotas(), 500)
    assert pointer.published_at > pointers[0].published_at
    await store.claim([claim_request(pointer)])
    await store.insert([item], published={item.id})
    await store.insert([item])
    assert await store.take_due(quotas(), 500) == []


async def test_a_repeated_insert_leaves_rows_that_another_process_published(
    store: PostgresStore, database_url: str
) -> None:
    item = a_notification()
    await store.insert([item])
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as other:
        assert len(await other.take_due(quotas(), 500)) == 1
    await store.insert([item])
    assert await store.take_due(quotas(), 500) == []


async def test_a_scheduled_notification_is_not_due_before_its_time(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    item = a_notification(delay=timedelta(hours=1), ttl=timedelta(hours=2))
    await store.insert([item])
    assert item.status is Status.SCHEDULED
    assert await store.take_due(quotas(), 500) == []
    await connection.execute("UPDATE notifications SET due_at = now(), ready_at = now()")
    assert [pointer.id for pointer, _ in await store.take_due(quotas(), 500)] == [item.id]


async def test_take_due_takes_each_row_once_and_the_most_urgent_first(
    store: PostgresStore,
) -> None:
    low, high = a_notification(EMAIL_LOW), a_notification(EMAIL_HIGH)
    pointers = await published(store, low, high)
    assert [pointer.id for pointer in pointers] == [high.id, low.id]
    assert await store.take_due(quotas(), 500) == []


async def test_take_due_takes_no_more_than_the_quota(store: PostgresStore) -> None:
    await store.insert([a_notification() for _ in range(5)])
    assert len(await store.take_due(quotas(EMAIL_HIGH, limit=2), 500)) == 2
    assert (await store.waiting(QUEUES))[EMAIL_HIGH].due == 3


async def test_the_next_quota_gets_what_the_first_leaves_of_the_limit(store: PostgresStore) -> None:
    items = [a_notification(queue) for queue in QUEUES for _ in range(2)]
    await store.insert(items)
    taken = [await store.take_due(quotas(limit=500), 7) for _ in range(3)]
    assert [len(pointers) for pointers in taken] == [7, 7, 4]
    first = [pointer.queue for pointer, _ in taken[0]]
    assert first == [queue for queue in QUEUES[:3] for _ in range(2)] + [QUEUES[3]]


async def test_two_copies_of_a_pointer_in_one_batch_are_claimed_once(
    store: PostgresStore,
) -> None:
    [pointer] = await published(store, a_notification())
    replies = await store.claim([claim_request(pointer), claim_request(pointer)])
    assert [type(reply) for reply in replies] == [Claimed, NotClaimed]


async def test_the_highest_of_two_claims_in_one_batch_wins(store: PostgresStore) -> None:
    [pointer] = await published(store, a_notification())
    [first] = await store.claim([claim_request(pointer)])
    assert isinstance(first, Claimed)
    await store.give_back([claim_request(pointer)])
    [(again, _)] = await store.take_due(quotas(), 500)
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


async def test_a_claim_expires_a_row_whose_time_is_over(
    store: PostgresStore, reader: PostgresReader
) -> None:
    item = a_notification(ttl=timedelta(microseconds=1))
    [pointer] = await published(store, item)
    [reply] = await store.claim([claim_request(pointer)])
    assert isinstance(reply, NotClaimed)
    assert reply.status is Status.EXPIRED
    view = await read_view(reader, item)
    assert (view.status, view.attempts) == (Status.EXPIRED, ())


async def test_record_settles_the_row_and_keeps_the_attempt(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [claimed_row] = await claimed(store, a_notification())
    [recorded] = await store.record([a_result(claimed_row)])
    assert (recorded.status, recorded.late) == (Status.SENT, False)
    view = await read_view(reader, claimed_row)
    assert (view.status, view.tries, view.due_at) == (Status.SENT, 1, None)
    [attempt] = view.attempts
    assert (attempt.claim, attempt.outcome, attempt.code) == (1, "accepted", "250")
    assert attempt.finished_at > attempt.started_at


async def test_a_repeated_record_changes_nothing(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [claimed_row] = await claimed(store, a_notification())
    result = a_result(claimed_row, Status.RETRYING, outcome="unavailable", after=timedelta(0))
    await store.record([result])
    before = await read_view(reader, claimed_row)
    [again] = await store.record([result])
    assert (again.status, again.late) == (Status.RETRYING, False)
    assert await read_view(reader, claimed_row) == before


async def test_accepted_and_other_results_of_one_batch_are_answered_in_their_order(
    store: PostgresStore, reader: PostgresReader
) -> None:
    rows = await claimed(store, *(a_notification() for _ in range(4)))
    late_sent, failed, sent, retried = rows
    await store.give_back([ClaimRequest(id=late_sent.id, claim=0)])
    wait = timedelta(seconds=5)
    recorded = await store.record(
        [
            a_result(late_sent),
            a_result(failed, Status.FAILED, outcome="refused", reason="refused", code="550"),
            a_result(sent),
            a_result(retried, Status.RETRYING, outcome="unavailable", after=wait, code="421"),
        ]
    )
    assert [(reply.status, reply.late) for reply in recorded] == [
        (Status.SENT, True),
        (Status.FAILED, False),
        (Status.SENT, False),
        (Status.RETRYING, False),
    ]
    for row, code in ((late_sent, "250"), (failed, "550"), (sent, "250"), (retried, "421")):
        [attempt] = (await read_view(reader, row)).attempts
        assert (attempt.claim, attempt.code) == (1, code)


async def test_a_record_that_was_interrupted_between_its_statements_is_completed(
    store: PostgresStore, reader: PostgresReader
) -> None:
    sent, refused = await claimed(store, a_notification(), a_notification())
    unstorable = a_result(refused, Status.FAILED, outcome="refused", reason="refused", code="nul\0")
    with pytest.raises(StoreRejected):
        await store.record([unstorable, a_result(sent)])
    before = await read_view(reader, sent)
    assert before.status is Status.SENT
    assert (await read_view(reader, refused)).status is Status.SENDING
    repaired = a_result(refused, Status.FAILED, outcome="refused", reason="refused")
    recorded = await store.record([repaired, a_result(sent)])
    assert [(reply.status, reply.late) for reply in recorded] == [
        (Status.FAILED, False),
        (Status.SENT, False),
    ]
    assert await read_view(reader, sent) == before


async def test_an_accepted_retry_keeps_its_last_error_and_counts_its_tries(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [first] = await claimed(store, a_notification())
    unavailable = a_result(
        first, Status.RETRYING, outcome="unavailable", after=timedelta(0), code="421"
    )
    await store.record([unavailable])
    [(pointer, _)] = await store.take_due(quotas(), 500)
    [second] = await store.claim([claim_request(pointer)])
    assert isinstance(second, Claimed)
    await store.record([a_result(second)])
    view = await read_view(reader, first)
    assert (view.status, view.tries, view.last_error) == (Status.SENT, 2, "unavailable 421")


async def test_a_repeated_record_leaves_the_next_claim_alone(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [claimed_row] = await claimed(store, a_notification())
    result = a_result(
        claimed_row, Status.RETRYING, outcome="throttled", spends=False, after=timedelta(0)
    )
    await store.record([result])
    [(pointer, is_retry)] = await store.take_due(quotas(), 500)
    assert is_retry
    [second] = await store.claim([claim_request(pointer)])
    assert isinstance(second, Claimed)
    await store.record([result])
    assert (await read_view(reader, claimed_row)).status is Status.SENDING


async def test_a_rejected_row_stores_nothing_of_its_batch(
    store: PostgresStore, reader: PostgresReader
) -> None:
    with pytest.raises(StoreRejected):
        await store.insert([a_notification(), a_notification(recipient="nul\0@example.com")])
    assert await reader.notifications(Filter()) == []


async def test_throttled_repeats_are_counted_on_one_attempt(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [claimed_row] = await claimed(store, a_notification())
    for _ in range(3):
        wait = timedelta(0)
        await store.record(
            [a_result(claimed_row, Status.RETRYING, outcome="throttled", spends=False, after=wait)]
        )
        [(pointer, _)] = await store.take_due(quotas(), 500)
        [reply] = await store.claim([claim_request(pointer)])
        assert isinstance(reply, Claimed)
        claimed_row = reply
    await store.record([a_result(claimed_row)])
    view = await read_view(reader, claimed_row)
    assert [(a.claim, a.outcome, a.repeats) for a in view.attempts] == [
        (3, "throttled", 2),
        (4, "accepted", 0),
    ]
    assert view.tries == 1


async def test_a_failure_is_logged_with_its_first_and_last_attempt(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [claimed_row] = await claimed(store, a_notification())
    wait = timedelta(0)
    await store.record([a_result(claimed_row, Status.RETRYING, outcome="unavailable", after=wait)])
    [(pointer, _)] = await store.take_due(quotas(), 500)
    [second] = await store.claim([claim_request(pointer)])
    assert isinstance(second, Claimed)
    failed = a_result(second, Status.FAILED, outcome="unavailable", reason="exhausted", code="503")
    await store.record([failed])
    [failure] = await reader.failures(Filter())
    assert (failure.id, failure.reason, failure.code) == (claimed_row.id, "exhausted", "503")
    assert failure.tries == 2
    first, last = (await read_view(reader, claimed_row)).attempts
    assert (failure.first_at, failure.last_at) == (first.started_at, last.finished_at)


async def test_a_retry_after_the_expiry_expires_at_once(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [claimed_row] = await claimed(store, a_notification(ttl=timedelta(minutes=1)))
    late = a_result(claimed_row, Status.RETRYING, outcome="unavailable", after=timedelta(minutes=2))
    [recorded] = await store.record([late])
    assert recorded.status is Status.EXPIRED
    assert (await read_view(reader, claimed_row)).due_at is None


async def test_a_row_that_is_given_back_keeps_its_place_and_its_tries(
    store: PostgresStore, reader: PostgresReader
) -> None:
    first, second = a_notification(), a_notification()
    [a, _] = await published(store, first, second)
    await store.claim([claim_request(a)])
    assert [row.status for row in await store.give_back([claim_request(a)])] == [Status.QUEUED]
    third = a_notification()
    await store.insert([third])
    assert [pointer.id for pointer, _ in await store.take_due(quotas(), 500)] == [a.id, third.id]
    assert (await read_view(reader, first)).tries == 0


async def test_a_row_that_is_given_back_after_its_time_expires(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    [pointer] = await published(store, a_notification())
    await connection.execute("UPDATE notifications SET expires_at = now()")
    [row] = await store.give_back([claim_request(pointer)])
    assert (row.queue, row.status) == (EMAIL_HIGH, Status.EXPIRED)


async def test_the_highest_claim_of_two_copies_is_given_back(store: PostgresStore) -> None:
    [old] = await published(store, a_notification())
    await store.claim([claim_request(old)])
    await store.give_back([claim_request(old)])
    [(new, _)] = await store.take_due(quotas(), 500)
    assert len(await store.give_back([claim_request(new), claim_request(old)])) == 1


async def test_giving_back_leaves_rows_that_another_worker_sends(
    store: PostgresStore, other: PostgresStore, reader: PostgresReader
) -> None:
    [pointer] = await published(store, a_notification())
    [claimed_by_other] = await other.claim([claim_request(pointer)])
    assert await store.give_back([claim_request(pointer)]) == []
    assert isinstance(claimed_by_other, Claimed)
    assert (await read_view(reader, claimed_by_other)).status is Status.SENDING


async def test_giving_back_a_final_row_changes_nothing(store: PostgresStore) -> None:
    [claimed_row] = await claimed(store, a_notification())
    await store.record([a_result(claimed_row)])
    assert await store.give_back([ClaimRequest(id=claimed_row.id, claim=0)]) == []
    assert await store.give_back([ClaimRequest(id=claimed_row.id, claim=1)]) == []


async def test_a_late_accepted_settles_a_row_that_is_still_at_its_claim(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [claimed_row] = await claimed(store, a_notification())
    await store.give_back([ClaimRequest(id=claimed_row.id, claim=0)])
    [recorded] = await store.record([a_result(claimed_row)])
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    view = await read_view(reader, claimed_row)
    assert (view.status, view.due_at) == (Status.SENT, None)
    assert [attempt.late for attempt in view.attempts] == [True]


async def test_a_late_accepted_for_an_older_claim_is_kept_but_settles_nothing(
    store: PostgresStore, reader: PostgresReader
) -> None:
    [claimed_row] = await claimed(store, a_notification())
    await store.give_back([ClaimRequest(id=claimed_row.id, claim=0)])
    [(pointer, _)] = await store.take_due(quotas(), 500)
    await store.claim([claim_request(pointer)])
    [recorded] = await store.record([a_result(claimed_row)])
    assert (recorded.status, recorded.late) == (None, True)
    view = await read_view(reader, claimed_row)
    assert view.status is Status.SENDING
    assert [(attempt.claim, attempt.late) for attempt in view.attempts] == [(1, True)]


async def test_a_late_accepted_removes_the_failure(
    store: PostgresStore, reader: PostgresReader, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    [claimed_row] = await claimed(store, a_notification())
    failed = a_result(claimed_row, Status.FAILED, outcome="ambiguous", reason="ambiguous")
    await store.record([failed])
    await connection.execute("UPDATE attempts SET recorded_by = gen_random_uuid()")
    [recorded] = await store.record([a_result(claimed_row)])
    assert recorded.status is Status.SENT
    assert await reader.failures(Filter()) == []


async def test_unconfirmed_pointers_are_due_again_unless_they_are_claimed(
    store: PostgresStore,
) -> None:
    kept, lost = a_notification(), a_notification()
    pointers = await published(store, kept, lost)
    await store.claim([claim_request(pointers[0])])
    await store.unpublish(pointers)
    assert [pointer.id for pointer, _ in await store.take_due(quotas(), 500)] == [lost.id]


async def test_the_rows_that_this_worker_sends_can_be_listed(store: PostgresStore) -> None:
    [claimed_row] = await claimed(store, a_notification())
    assert await store.claimed_by_me() == [ClaimRequest(id=claimed_row.id, claim=0)]
    await store.record([a_result(claimed_row)])
    assert await store.claimed_by_me() == []


async def test_only_old_messages_are_rescued_and_each_time_after_a_longer_wait(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await published(store, a_notification())
    now = await store.database_now()
    assert await store.rescue(EMAIL_HIGH, now + 60) == 0  # published less than 10 s ago
    age = "UPDATE notifications SET published_at = now() - interval '{} s' WHERE due_at IS NULL"
    await connection.execute(age.format(11))
    assert await store.rescue(EMAIL_LOW, now) == 0
    assert await store.rescue(EMAIL_HIGH, now - 12) == 0
    assert await store.rescue(EMAIL_HIGH, now) == 1
    [(pointer, _)] = await store.take_due(quotas(), 500)
    assert pointer.claim == 0
    await connection.execute(age.format(11))
    assert await store.rescue(EMAIL_HIGH, now) == 0  # the second time after 20 s
    await connection.execute(age.format(21))
    assert await store.rescue(EMAIL_HIGH, now) == 1


async def test_sweep_expires_waiting_rows_whose_time_is_over(
    store: PostgresStore, reader: PostgresReader
) -> None:
    overdue = a_notification(delay=timedelta(hours=1), ttl=timedelta(microseconds=1))
    unexpired = a_notification()
    await store.insert([overdue, unexpired])
    assert [queue for queue, _ in await store.sweep()] == [EMAIL_HIGH]
    assert (await read_view(reader, overdue)).status is Status.EXPIRED
    assert (await read_view(reader, unexpired)).status is Status.QUEUED


async def test_sweep_leaves_recently_published_rows_to_the_claim(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await store.insert([a_notification(), a_notification()])
    recent, _ = [pointer for pointer, _ in await store.take_due(quotas(EMAIL_HIGH), 2)]
    await connection.execute("UPDATE notifications SET expires_at = now()")
    await connection.execute(
        "UPDATE notifications SET published_at = now() - interval '61 s' WHERE id <> $1", recent.id
    )
    assert [queue for queue, _ in await store.sweep()] == [EMAIL_HIGH]
    (reply,) = await store.claim([claim_request(recent)])
    assert isinstance(reply, NotClaimed)
    assert reply.status is Status.EXPIRED


async def test_a_day_is_dropped_only_when_all_its_rows_are_final(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    id_ = await connection.fetchval("SELECT uuid_at(day_start($1) + interval '1 hour')", yesterday)
    await store.insert([a_notification(id_=id_, ttl=timedelta(microseconds=1))])
    assert await store.drop_day(yesterday) == "kept"
    await store.sweep()
    assert await store.drop_day(yesterday) == "dropped"
    assert await store.drop_day(yesterday) == "absent"
    with pytest.raises(StoreRejected):
        await store.drop_day(datetime.now(UTC).date())


async def test_the_partitions_of_the_coming_days_are_created_once(store: PostgresStore) -> None:
    days = await store.days()
    assert len(days) == 9
    assert await store.ensure_days() == 0
    assert await store.days() == days


async def test_pages_are_newest_first_and_follow_the_cursor(
    store: PostgresStore, reader: PostgresReader
) -> None:
    items = [a_notification(EMAIL_LOW if n % 2 else EMAIL_HIGH) for n in range(6)]
    await store.insert(items)
    newest = sorted((item.id for item in items), reverse=True)
    first = await reader.notifications(Filter(limit=4))
    assert [view.id for view in first] == newest[:4]
    rest = await reader.notifications(Filter(limit=4, before=first[-1].id))
    assert [view.id for view in rest] == newest[4:]
    low = await reader.notifications(Filter(channel="email", priority="low"))
    assert {view.queue for view in low} == {EMAIL_LOW}
    assert len(low) == 3
    assert await reader.notifications(Filter(channel="e%")) == []
    assert await reader.notifications(Filter(status=Status.SENT)) == []


async def test_an_unknown_id_is_none(reader: PostgresReader) -> None:
    assert await reader.get(new_id()) is None


async def test_requeue_all_makes_published_rows_due_again(store: PostgresStore) -> None:
    await published(store, a_notification())
    await store.requeue_all()
    assert len(await store.take_due(quotas(), 500)) == 1


async def test_a_connection_reconnects_after_the_server_closed_it(
    store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await store.waiting(QUEUES)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with suppress(StoreUnavailable):  # this call may be the first to notice
        await store.waiting(QUEUES)
    assert len(await store.waiting(QUEUES)) == 9
