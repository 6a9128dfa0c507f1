"""Receipts are stored once, matched, and settle statuses in any order, on a real Postgres."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.events import open_events
from notifier.adapters.postgres.statements import statement
from notifier.delivery.receipt_matcher import ReceiptMatcher
from notifier.domain.lookups import LookupScope
from notifier.domain.notification import NotificationId
from notifier.domain.operations import OperationKind
from notifier.domain.receipts import ReceiptEvent, ReceiptResult, UndeliveredReason
from notifier.domain.suppressions import SuppressionReason
from notifier.ports.events import EventPage
from notifier.ports.queries import Filter
from notifier.ports.suppressions import Recipient
from tests.builders import a_notification, a_result
from tests.integration.test_operations import opened
from tests.live_rows import (
    SESSIONS_THAT_WAIT_FOR_A_LOCK,
    claim_all,
    claim_new,
    due,
    end_of,
    live_row,
    retry_by,
)
from tests.memory_receipts import MemoryReceipts
from tests.receipts import PROVIDER, Receiving, a_receipt, all_due, receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.domain.notification import NewNotification
    from notifier.domain.receipts import NewReceipt
    from tests.live_rows import Connection

DELIVERED, DEFERRED, BOUNCED, REJECTED, COMPLAINED, UNSUBSCRIBED = ReceiptEvent
RECEIPTS: Final = 5_000
UNMATCHED: Final = "SELECT count(*) FROM receipts_unmatched"
KEPT: Final = "SELECT count(*) FROM receipts"
SUPPRESSIONS: Final = (
    "SELECT recipient, tenant, mode, channel, topic, reason, notification FROM suppressions "
    "ORDER BY tenant, channel, topic"
)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Receiving]:
    async with receiving(database_url) as opened:
        yield opened


@pytest.mark.parametrize(
    ("event", "status", "reason"),
    [
        (DELIVERED, "delivered", None),
        (BOUNCED, "undelivered", "bounced"),
        (REJECTED, "undelivered", "rejected"),
        (DEFERRED, "sent", None),
        (COMPLAINED, "sent", None),
        (UNSUBSCRIBED, "sent", None),
    ],
)
async def test_a_receipt_settles_a_sent_notification(
    db: Receiving, event: ReceiptEvent, status: str, reason: str | None
) -> None:
    id_ = await db.accept("r-1")
    before = await db.reader.get(id_)
    receipt = a_receipt("r-1", event, at_s=5, code="5.1.1", detail="no such mailbox")
    [ended] = await db.receive(receipt)
    assert ended == (PROVIDER, event, ReceiptResult.MATCHED)
    view = await db.reader.get(id_, with_receipts=True)
    assert before is not None
    assert view is not None
    assert view.receipts is not None
    assert (view.status, view.sent_at) == (status, before.sent_at)
    [shown] = view.receipts
    assert (shown.provider, shown.event, shown.code, shown.detail, shown.provider_at) == (
        PROVIDER,
        event,
        "5.1.1",
        "no such mailbox",
        receipt.provider_at,
    )
    if status == "sent":
        assert view.result == before.result
    else:
        assert view.result is not None
        assert (view.result.reason or None, view.result.at) == (reason, receipt.provider_at)
        assert (view.result.provider, view.result.code) == (PROVIDER, "5.1.1")


async def test_each_change_of_a_status_by_receipts_is_an_event(
    db: Receiving, database_url: str
) -> None:
    id_ = await db.accept("m-1")
    async with open_events(ConnectionSettings(url=database_url)) as events:
        start = await events.now()
        await db.receive(a_receipt("m-1", at_s=1.0))
        await db.receive(a_receipt("m-1", at_s=2.0), a_receipt("m-1", at_s=1.5))
        bounced = a_receipt(
            "m-1",
            ReceiptEvent.BOUNCED,
            at_s=3.0,
            reason=UndeliveredReason.BOUNCED,
            code="5.1.1",
        )
        await db.receive(bounced)
        page = await events.read(start, 100)
    assert isinstance(page, EventPage)
    shown = [(each.event.type, each.event.notification) for each in page.events]
    statuses = [
        (type_, state.id, state.result and (state.result.reason, state.result.code))
        for type_, state in shown
        if state is not None
    ]
    assert statuses == [
        ("notification.delivered", id_, (None, None)),
        ("notification.undelivered", id_, ("bounced", "5.1.1")),
    ]


async def test_the_first_complaint_about_a_notification_is_an_event(
    db: Receiving, database_url: str
) -> None:
    sent, delivered, unknown = await db.accept("m-1"), await db.accept("m-2"), a_receipt("m-3")
    async with open_events(ConnectionSettings(url=database_url)) as events:
        start = await events.now()
        complaint = a_receipt("m-1", COMPLAINED, at_s=1.0)
        await db.receive(complaint, a_receipt("m-1", COMPLAINED, at_s=2.0), unknown)
        await db.receive(complaint)
        await db.receive(a_receipt("m-1", COMPLAINED, at_s=3.0))
        await db.receive(a_receipt("m-2"), a_receipt("m-2", COMPLAINED, at_s=4.0))
        page = await events.read(start, 100)
    assert isinstance(page, EventPage)
    shown = [
        (state.id, each.event.type, state.status, state.result and state.result.reason)
        for each in page.events
        if (state := each.event.notification) is not None
    ]
    assert shown == [
        (sent, "notification.complained", "sent", "complaint"),
        (delivered, "notification.delivered", "delivered", None),
        (delivered, "notification.complained", "delivered", "complaint"),
    ]


async def test_of_two_complaints_that_two_processes_keep_at_once_one_is_an_event(
    db: Receiving, database_url: str
) -> None:
    ids = [await db.accept(f"m-{n}") for n in range(20)]
    async with open_events(ConnectionSettings(url=database_url)) as events:
        start = await events.now()
        async with receiving(database_url) as other:
            for process, at_s in ((db, 1.0), (other, 2.0)):
                await process.receipts.add(
                    PROVIDER, [a_receipt(f"m-{n}", COMPLAINED, at_s=at_s) for n in range(20)]
                )
            async with asyncio.TaskGroup() as group:
                for process in (db, other):
                    for _ in range(20):
                        group.create_task(process.matching.match(2))
        page = await events.read(start, 100)
    assert isinstance(page, EventPage)
    shown = [state.id for each in page.events if (state := each.event.notification) is not None]
    assert sorted(shown) == sorted(ids)


FALLBACK: Final = """
    INSERT INTO fallbacks (id, after_s, channel, unless, at, look_at, submit, needs)
    VALUES ($1, 7200, 'sms', 'delivered', now() + interval '2 hours', now() + $2::interval,
            '{}', '{}')"""
DUE_AND_KEPT: Final = (
    "SELECT look_at <= now() AS is_due, submit IS NOT NULL AS is_kept FROM fallbacks WHERE id = $1"
)


@pytest.mark.parametrize(
    ("event", "look_in_s", "is_due", "is_kept"),
    [
        (DELIVERED, 3600, True, True),
        (BOUNCED, 3600, True, True),
        (BOUNCED, 20, False, True),  # perhaps held
        (DEFERRED, 3600, False, True),
        (COMPLAINED, 3600, None, False),
        (UNSUBSCRIBED, 3600, None, False),
    ],
)
async def test_a_receipt_wakes_the_fallback_that_waits_for_it_or_drops_it(
    db: Receiving,
    connection: Connection,
    event: ReceiptEvent,
    look_in_s: int,
    is_due: bool | None,
    is_kept: bool,
) -> None:
    id_ = await db.accept("m-1")
    await connection.execute(FALLBACK, id_, timedelta(seconds=look_in_s))
    await db.receive(a_receipt("m-1", event))
    row = await connection.fetchrow(DUE_AND_KEPT, id_)
    assert row is not None
    assert tuple(row) == (is_due, is_kept)


async def test_a_provider_may_say_more_of_the_reason(db: Receiving) -> None:
    id_ = await db.accept("r-1")
    await db.receive(a_receipt("r-1", BOUNCED, reason=UndeliveredReason.UNREACHABLE))
    view = await db.reader.get(id_)
    assert view is not None
    assert view.result is not None
    assert (view.status, view.result.reason) == ("undelivered", "unreachable")


async def test_lists_find_what_was_delivered_and_not(db: Receiving) -> None:
    ids = [await db.accept(f"r-{n}") for n in range(3)]
    await db.receive(a_receipt("r-0"), a_receipt("r-1", REJECTED, code="30003"))

    async def found(**fields: tuple[str, ...]) -> list[NotificationId]:
        page = await db.reader.notifications(Filter(**fields))  # type: ignore[arg-type]
        return [view.id for view in page.views]

    assert await found(status=("delivered",)) == [ids[0]]
    assert await found(status=("undelivered",)) == [ids[1]]
    assert await found(status=("sent",)) == [ids[2]]
    assert await found(status=("sent", "delivered")) == [ids[2], ids[0]]
    assert await found(status=("undelivered",), reason=("rejected",)) == [ids[1]]
    assert await found(status=("undelivered",), reason=("bounced",)) == []
    assert await found(status=("undelivered",), code=("30003",)) == [ids[1]]
    assert await found(reference=("r-0",)) == [ids[0]]
    assert await found(reference=("r-0",), status=("delivered",)) == [ids[0]]
    assert await found(reference=("r-0",), status=("sent",)) == []


async def test_a_copy_of_a_receipt_is_kept_once_and_settles_nothing_again(
    db: Receiving, connection: Connection
) -> None:
    id_ = await db.accept("r-1")
    key = uuid4()
    bounce = a_receipt("r-1", BOUNCED, key=key, recipient="ok@example.com")
    await db.receive(bounce, bounce)
    await connection.execute("DELETE FROM suppressions")
    await db.receive(a_receipt("r-1", DELIVERED, at_s=1))
    await db.receive(bounce)
    assert await connection.fetchval(KEPT) == 2
    assert await connection.fetchval(UNMATCHED) == 0
    assert await db.status(id_) == "delivered"
    assert await connection.fetch(SUPPRESSIONS) == [], "a copy suppresses nobody again"


async def test_a_receipt_before_the_record_of_its_send_waits_for_it(
    db: Receiving, connection: Connection
) -> None:
    item = a_notification()
    await db.store.insert([item])
    row = await claim_new(db.store, item)
    assert await db.receive(a_receipt("r-1")) == []
    assert await db.match() == [], "it is tried again only after some seconds"
    await db.record(row, "r-1")
    await all_due(connection)
    assert [each.result for each in await db.match()] == [ReceiptResult.MATCHED]
    assert await db.status(item.id) == "delivered"


async def test_a_receipt_for_a_late_accepted_finds_its_notification(
    db: Receiving, connection: Connection
) -> None:
    """The lookup is stored with a late result, too."""
    item = a_notification()
    await db.store.insert([item])
    row = await claim_new(db.store, item)
    await connection.execute(
        "UPDATE live SET claimed_by = DEFAULT, claim = claim + 5 WHERE id = $1", item.id
    )
    await db.record(row, "r-late")
    assert await db.status(item.id) == "sent"
    await db.receive(a_receipt("r-late", REJECTED))
    assert await db.status(item.id) == "undelivered"
    end = await end_of(connection, item.id)
    assert end is not None
    assert end["claim"] > row.claim + 5, "a retry must begin above every claim ever given"


async def test_another_provider_with_the_same_reference_is_not_taken(
    db: Receiving, connection: Connection
) -> None:
    id_ = await db.accept("r-1")
    await db.receipts.add("other", [a_receipt("r-1")])
    assert await db.match() == []
    assert await db.status(id_) == "sent"
    assert await connection.fetchval(UNMATCHED) == 1


async def test_a_receipt_without_a_notification_is_given_up_in_time(
    database_url: str, connection: Connection
) -> None:
    async with receiving(database_url, keep_unmatched_s=3600) as db:
        assert await db.receive(a_receipt("unknown")) == []
        await connection.execute(
            "UPDATE receipts_unmatched SET received_at = now() - interval '59 min', next_at = now()"
        )
        assert await db.match() == []
        await connection.execute(
            "UPDATE receipts_unmatched SET received_at = now() - interval '61 min', next_at = now()"
        )
        assert await db.match() == [(PROVIDER, DELIVERED, ReceiptResult.UNMATCHED)]
        assert await connection.fetchval(UNMATCHED) == 0


async def test_an_old_receipt_is_tried_less_often(db: Receiving, connection: Connection) -> None:
    waits = []
    for age in ("0 s", "1 hour", "7 days - 1 min"):
        await db.receive(a_receipt("unknown"))
        await connection.execute(
            "UPDATE receipts_unmatched"
            " SET received_at = now() - $1::text::interval, next_at = now()",
            age,
        )
        await db.match()
        waits.append(
            await connection.fetchval(
                "DELETE FROM receipts_unmatched RETURNING "
                "round(date_part('epoch', next_at - now()))::integer"
            )
        )
    assert waits == [10, 10, 1680]


@pytest.mark.parametrize("status", ["delivered", "undelivered"])
async def test_a_receipt_of_an_earlier_life_does_not_settle_the_present_one(
    db: Receiving, connection: Connection, status: str
) -> None:
    id_ = await db.accept("r-1")
    await db.receive(a_receipt("r-1", BOUNCED))
    assert await retry_by(connection, id_) == [id_]
    event = DELIVERED if status == "delivered" else REJECTED
    [ended] = await db.receive(a_receipt("r-1", event, at_s=50))
    assert ended.result is ReceiptResult.LATE
    assert await end_of(connection, id_) is None
    [row] = await claim_all(db.store, await due(db.store))
    await db.record(row, "r-2")
    await db.receive(a_receipt("r-1", event, at_s=60))
    assert await db.status(id_) == "sent"
    await db.receive(a_receipt("r-2", event, at_s=1))
    assert await db.status(id_) == status
    view = await db.reader.get(id_, with_receipts=True)
    assert view is not None
    assert view.receipts is not None
    assert len(view.receipts) == 4, "all are shown"


async def test_a_retry_between_the_search_and_the_end_keeps_its_new_life(
    database_url: str, db: Receiving, connection: Connection
) -> None:
    """The end that another process wrote and a person removed meanwhile is not written again."""
    id_ = await db.accept("r-1")
    # What a receipt of another process and a retry leave, in a moment that no receipt sees: the end
    # is written, and removed by the retry while the match waits for it.
    other = await asyncpg.connect(database_url)
    async with asyncio.TaskGroup() as group, other.transaction():
        await other.execute(
            "INSERT INTO ends (id, claim, status, queue, tries, first_at, at)"
            " VALUES ($1, 1, 'undelivered', 'email.high', 1, now(), now())",
            id_,
        )
        group.create_task(db.receive(a_receipt("r-1", BOUNCED)))
        await until_a_session_waits(connection)
        await other.execute("DELETE FROM ends WHERE id = $1", id_)
        await other.execute(
            "INSERT INTO retries (id, claim, operation, at) VALUES ($1, 2, NULL, now())", id_
        )
        await other.execute(
            "INSERT INTO live (id, created_at, due_at, ready_at, expires_at, claim, size, class,"
            " max_tries, queue) VALUES ($1, now(), now(), now(), now() + interval '1 hour', 2, 1,"
            " 2, 0, 'email.high')",
            id_,
        )
    await other.close()
    assert await end_of(connection, id_) is None
    assert await live_row(connection, id_) is not None


async def until_a_session_waits(connection: Connection) -> None:
    while not await connection.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK):
        await asyncio.sleep(0.01)


async def test_what_is_being_sent_again_is_settled_by_its_own_send(
    db: Receiving, connection: Connection
) -> None:
    """An accepted attempt, and a later one that runs: the receipt waits for the end of that."""
    item = a_notification()
    await db.store.insert([item])
    first = await claim_new(db.store, item)
    await connection.execute("UPDATE live SET claim = 2 WHERE id = $1", item.id)
    second = msgspec.structs.replace(first, claim=2)
    await db.record(first, "r-1")
    assert await db.receive(a_receipt("r-1")) == []
    await db.record(second, "r-2")
    await all_due(connection)
    await db.match()
    assert await db.status(item.id) == "delivered"


async def test_a_failed_notification_keeps_its_result(
    db: Receiving, connection: Connection
) -> None:
    id_ = await db.accept("r-1")
    await connection.execute(
        "INSERT INTO ends (id, claim, status, queue, reason, tries, first_at, at)"
        " VALUES ($1, 2, 'failed', 'email.high', 'refused', 2, now(), now())",
        id_,
    )
    await db.receive(a_receipt("r-1"), a_receipt("r-1", BOUNCED))
    assert await db.status(id_) == "failed"


async def test_a_complaint_a_hard_bounce_and_an_unsubscribe_suppress_the_recipient(
    db: Receiving, connection: Connection
) -> None:
    items = {
        COMPLAINED: a_notification(recipient="Ada@Example.com", topic="news"),
        BOUNCED: a_notification(recipient="bob@example.com", tenant="shop"),  # type: ignore[arg-type]
        UNSUBSCRIBED: a_notification(recipient="eve@example.com", topic="news"),
    }
    for event, item in items.items():
        await db.accept(f"r-{event}", item)
    await db.receive(*(a_receipt(f"r-{event}", event) for event in items))
    rows = {row["recipient"]: tuple(row)[1:] for row in await connection.fetch(SUPPRESSIONS)}
    ids = {event: item.id for event, item in items.items()}
    assert rows == {
        "ada@example.com": ("", "live", "email", "", "complaint", ids[COMPLAINED]),
        "bob@example.com": ("shop", "live", "email", "", "bounce", ids[BOUNCED]),
        "eve@example.com": ("", "live", "email", "news", "unsubscribe", ids[UNSUBSCRIBED]),
    }


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (DELIVERED, None),
        (DEFERRED, None),
        (REJECTED, None),
        (BOUNCED, UndeliveredReason.UNREACHABLE),
    ],
)
async def test_other_receipts_suppress_nobody(
    db: Receiving, connection: Connection, event: ReceiptEvent, reason: UndeliveredReason | None
) -> None:
    await db.accept("r-1")
    await db.receive(a_receipt("r-1", event, reason=reason))
    assert await connection.fetch(SUPPRESSIONS) == []


async def test_a_test_keys_receipt_suppresses_only_in_tests(
    db: Receiving, connection: Connection
) -> None:
    await db.accept("r-1", a_notification(test_channel="sms", recipient="+15005550006"))
    await db.receive(a_receipt("r-1", COMPLAINED))
    [row] = await connection.fetch(SUPPRESSIONS)
    assert (row["mode"], row["channel"]) == ("test", "sms")


async def test_the_bounce_of_a_copy_suppresses_the_copys_recipient_only(
    db: Receiving, connection: Connection
) -> None:
    id_ = await db.accept("r-1", a_notification(recipient="ada@example.com"))
    await db.receive(a_receipt("r-1", BOUNCED, recipient="copy@example.com"))
    assert await db.status(id_) == "sent"
    assert [row["recipient"] for row in await connection.fetch(SUPPRESSIONS)] == [
        "copy@example.com"
    ]


async def test_the_bounce_of_an_erased_copy_suppresses_nobody_else(
    db: Receiving, database_url: str, connection: Connection
) -> None:
    """The mail to Ada had a copy to Eve, who is erased before the mail's send is recorded."""
    item = a_notification(recipient="ada@example.com")
    bounced = a_receipt("r-1", BOUNCED, recipient="eve@example.com", detail="eve is unknown")
    assert await db.receive(bounced) == []
    async with opened(database_url) as operations:
        selection = Filter(recipient=("eve@example.com",))
        erase = await operations.create(
            OperationKind.ERASE, selection=selection, shown={}, note="asked by letter"
        )
        await operations.run(erase)
    await db.accept("r-1", item)
    await all_due(connection)
    await db.match()
    assert await db.status(item.id) == "sent"
    assert await connection.fetch(SUPPRESSIONS) == []


async def test_a_receipt_of_an_erased_recipient_settles_what_is_sent_to_it_later(
    db: Receiving, database_url: str, connection: Connection
) -> None:
    item = a_notification(recipient="ada@example.com")
    assert await db.receive(a_receipt("r-1", BOUNCED, recipient="Ada@example.com")) == []
    async with opened(database_url) as operations:
        selection = Filter(recipient=("ada@example.com",))
        await operations.run(
            await operations.create(OperationKind.ERASE, selection=selection, shown={}, note="")
        )
    await db.accept("r-1", item)
    await all_due(connection)
    await db.match()
    assert await db.status(item.id) == "undelivered"


async def test_a_match_waits_for_an_erasure_and_keeps_no_text_of_it(
    db: Receiving, database_url: str, connection: Connection
) -> None:
    id_ = await db.accept("r-1", a_notification(recipient="ada@example.com"))
    await db.receipts.add(
        PROVIDER, [a_receipt("r-1", BOUNCED, recipient="ada@example.com", detail="no ada here")]
    )
    other = await asyncpg.connect(database_url)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group, other.transaction():
        await other.fetch(statement("erase_lock"), [id_], id_, id_, tomorrow)
        matched = group.create_task(db.match())
        await until_a_session_waits(connection)
        await other.fetch(statement("erase_wipe"), [id_], id_, id_)
    await matched
    await other.close()
    assert await connection.fetch("SELECT FROM receipts WHERE detail <> ''") == []
    assert await connection.fetch("SELECT FROM ends WHERE detail <> ''") == []
    assert await connection.fetch("SELECT FROM suppressions WHERE recipient IS NOT NULL") == []
    assert await db.status(id_) == "undelivered"


async def test_a_complaint_suppresses_even_when_its_day_was_dropped(
    db: Receiving, connection: Connection
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    old = NotificationId(await _an_id_of(connection, yesterday))
    await db.accept("r-old", a_notification(id_=old, recipient="ada@example.com"))
    assert await db.store.drop_day(yesterday) == "dropped"
    assert await db.receive(a_receipt("r-old", COMPLAINED, recipient="Ada@example.com")) == []
    assert await connection.fetch(SUPPRESSIONS) == [], "its notification may be recorded yet"
    await connection.execute(
        "UPDATE receipts_unmatched SET received_at = now() - interval '61 min', next_at = now()"
    )
    await db.match()
    [row] = await connection.fetch(SUPPRESSIONS)
    assert tuple(row) == ("ada@example.com", "", "live", "email", "", "complaint", None)
    await connection.execute("DELETE FROM suppressions")
    await all_due(connection)
    await db.match()
    assert await connection.fetch(SUPPRESSIONS) == [], "once for each receipt"


async def test_with_several_tenants_only_the_hash_of_an_unknown_notifications_recipient_is_stored(
    db: Receiving, connection: Connection
) -> None:
    await connection.execute("INSERT INTO tenants (name) VALUES ('shop')")
    await db.receive(a_receipt("gone", COMPLAINED, recipient="ada@example.com"))
    await connection.execute(
        "UPDATE receipts_unmatched SET received_at = now() - interval '61 min', next_at = now()"
    )
    await db.match()
    rows = await connection.fetch(SUPPRESSIONS)
    assert [(row["tenant"], row["recipient"]) for row in rows] == [("", None), ("shop", None)]


async def test_a_suppression_that_a_receipt_made_stops_the_next_submit(
    db: Receiving, connection: Connection
) -> None:
    await db.accept("r-1", a_notification(recipient="ada@example.com"))
    await db.receive(a_receipt("r-1", COMPLAINED))
    recipient = Recipient(LookupScope("", "live"), "ada@example.com")
    [[entry]] = (await db.store.suppressed([recipient])).values()
    assert (entry.channel, entry.reason) == ("email", SuppressionReason.COMPLAINT)


async def test_a_time_ahead_counts_as_the_time_of_arrival(
    db: Receiving, connection: Connection
) -> None:
    id_ = await db.accept("r-1")
    await db.receive(a_receipt("r-1", BOUNCED, at_s=1_000_000))
    end = await end_of(connection, id_)
    assert end is not None
    assert end["at"] <= await connection.fetchval("SELECT now()")


async def test_a_receipt_that_is_put_off_lets_others_pass(
    db: Receiving, connection: Connection
) -> None:
    """Postgres rejects one of them, whatever is tried."""
    ids = [await db.accept(f"r-{n}") for n in range(2)]
    await connection.execute("ALTER TABLE receipts ADD CONSTRAINT refused CHECK (code <> 'poison')")
    await db.receipts.add(PROVIDER, [a_receipt("r-0", code="poison")])
    await db.receipts.add(PROVIDER, [a_receipt("r-1")])
    observer = MemoryReceipts()
    await ReceiptMatcher(store=db.matching, observer=observer).run_once()
    assert [await db.status(id_) for id_ in ids] == ["sent", "delivered"]
    assert observer.ended == {(PROVIDER, ReceiptResult.MATCHED): 1}
    assert await connection.fetchval(UNMATCHED) == 1


async def test_an_event_of_a_later_version_is_left_to_its_processes(
    db: Receiving, connection: Connection
) -> None:
    ids = [await db.accept("r-0"), await db.accept("r-1"), await db.accept("r-2")]
    await db.receipts.add(PROVIDER, [a_receipt(f"r-{n}", REJECTED) for n in range(3)])
    await connection.execute(
        "UPDATE receipts_unmatched SET event = 'opened' WHERE reference = 'r-0'"
    )
    await connection.execute(
        "UPDATE receipts_unmatched SET reason = 'asleep' WHERE reference = 'r-1'"
    )
    await db.match()
    assert [await db.status(id_) for id_ in ids] == ["sent", "sent", "undelivered"]
    assert await connection.fetchval(UNMATCHED) == 2


async def test_two_processes_share_the_receipts(database_url: str, connection: Connection) -> None:
    async with receiving(database_url) as db, receiving(database_url) as other:
        ids = [await db.accept(f"r-{n}") for n in range(40)]
        receipts = [
            a_receipt(f"r-{n}", event, at_s=at_s)
            for n in range(40)
            for event, at_s in ((DELIVERED, 1), (BOUNCED, 2), (DEFERRED, 3))
        ]
        random.Random(4).shuffle(receipts)
        async with asyncio.TaskGroup() as group:
            group.create_task(db.receipts.add(PROVIDER, receipts[:60]))
            group.create_task(other.receipts.add(PROVIDER, receipts))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.match(7)) for each in (db, other) * 3]
        await db.match()
        assert sum(len(task.result()) for task in tasks) >= 7
        assert await connection.fetchval(KEPT) == 120
        assert {await db.status(id_) for id_ in ids} == {"undelivered"}


async def _an_id_of(connection: Connection, day: object) -> UUID:
    """Return an id of a day: the first of it, and some random bits."""
    first: UUID = await connection.fetchval("SELECT uuid_at(day_start($1))", day)
    return UUID(int=first.int | uuid4().int & (1 << 62) - 1)


async def test_5000_receipts_in_any_order_settle_what_they_settle_in_theirs(
    db: Receiving, connection: Connection
) -> None:
    """Shuffled, doubled, before their record and after their day: the same final statuses."""
    chance = random.Random(20)
    count = RECEIPTS // 2
    plans = [_plan(chance) for _ in range(count)]
    receipts = {
        run: [
            a_receipt(f"{run}-{n}", event, at_s=at_s, code=code, recipient=f"{run}-{n}@example.com")
            for n, plan in enumerate(plans)
            for event, at_s, code in plan
        ]
        for run in ("ordered", "shuffled")
    }
    assert len(receipts["ordered"]) >= RECEIPTS

    # Yesterday's are dropped at the end; in the shuffled run most of their receipts come after.
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    items = {
        run: [await _item(connection, run, n, yesterday) for n in range(count)] for run in receipts
    }
    await _send_all(db, items["ordered"], "ordered")
    receipts["ordered"].sort(key=lambda receipt: (receipt.provider_at, receipt.key))
    await _receive_all(db, receipts["ordered"])

    shuffled = receipts["shuffled"] * 2
    chance.shuffle(shuffled)
    await _receive_all(db, shuffled[: len(shuffled) // 3])
    await _send_all(db, items["shuffled"], "shuffled")
    await all_due(connection)
    await _receive_all(db, shuffled[len(shuffled) // 3 : -200])
    before = await _statuses(connection)
    assert await db.store.drop_day(yesterday) == "dropped"
    await _receive_all(db, shuffled[-200:])

    statuses = await _statuses(connection)
    ordered, other = (
        {n: statuses[item.id] for n, item in enumerate(items[run]) if item.id in statuses}
        for run in receipts
    )
    assert len(ordered) == count - count // 10
    assert other == ordered
    expected = {n: _expected(plans[n]) for n in ordered}
    assert ordered == expected
    assert set(ordered.values()) == {"sent", "delivered", "undelivered"}
    assert before.keys() > statuses.keys()
    left = await connection.fetch("SELECT reference FROM receipts_unmatched")
    gone = {f"shuffled-{n}" for n in range(0, count, 10)}
    assert {row["reference"] for row in left} <= gone, "only of what was dropped"
    kept = await connection.fetchval(KEPT)
    assert kept == 2 * sum(len(plan) for n, plan in enumerate(plans) if n % 10)

    # A complaint or bounce of what is gone suppresses its recipient all the same.
    await connection.execute(
        "UPDATE receipts_unmatched SET received_at = now() - interval '61 min', next_at = now()"
    )
    await db.match()
    suppressed = Counter(
        row["recipient"].partition("-")[0] for row in await connection.fetch(SUPPRESSIONS)
    )
    assert suppressed["ordered"] == suppressed["shuffled"] > RECEIPTS // 20


_Plan = list[tuple[ReceiptEvent, float, str]]


def _plan(chance: random.Random) -> _Plan:
    """Return events of one message with their times: two with the same time are frequent."""
    events = chance.choices(
        (DELIVERED, BOUNCED, REJECTED, DEFERRED, COMPLAINED), (6, 3, 1, 2, 0.5), k=2
    ) + chance.choices((DELIVERED, BOUNCED), k=chance.choice((0, 0, 0, 1)))
    return [(event, float(chance.randrange(3)), chance.choice(("", "1", "2"))) for event in events]


def _expected(plan: _Plan) -> str:
    """Return the status that the rule in words gives."""
    about = [
        (at_s, event is DELIVERED)
        for event, at_s, _ in plan
        if event in {DELIVERED, BOUNCED, REJECTED}
    ]
    if not about:
        return "sent"
    return "delivered" if max(about)[1] else "undelivered"


async def _item(connection: Connection, run: str, n: int, yesterday: object) -> NewNotification:
    recipient = f"{run}-{n}@example.com"
    if n % 10:
        return a_notification(recipient=recipient)
    id_ = NotificationId(await _an_id_of(connection, yesterday))
    return a_notification(recipient=recipient, id_=id_)


async def _send_all(db: Receiving, items: Sequence[NewNotification], run: str) -> None:
    numbers = {item.id: n for n, item in enumerate(items)}
    for start in range(0, len(items), 250):
        batch = items[start : start + 250]
        await db.store.insert(batch)
        rows = await claim_all(db.store, await due(db.store))
        results = [
            (msgspec.structs.replace(result, reference=f"{run}-{numbers[result.id]}"), age_s)
            for result, age_s in map(a_result, rows)
        ]
        await db.store.record(results)


async def _receive_all(db: Receiving, receipts: Sequence[NewReceipt]) -> None:
    for start in range(0, len(receipts), 500):
        await db.receive(*receipts[start : start + 500])


async def _statuses(connection: Connection) -> dict[UUID, str]:
    rows = await connection.fetch(
        "SELECT n.id, coalesce(e.status::text, 'sent') AS status"
        " FROM notifications n LEFT JOIN ends e ON e.id = n.id"
    )
    return {row["id"]: row["status"] for row in rows}
