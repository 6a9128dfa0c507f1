"""Notifications are found by their lookups, on a real Postgres."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.finding import MAX_CANDIDATES
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.lookups import Lookup, metadata_lookups
from notifier.domain.notification import EndReason, Status
from notifier.domain.recipients import recipient_identity
from notifier.ports.queries import Filter
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    SMS_HIGH,
    a_key,
    a_notification,
    a_result,
    worker_id,
)
from tests.live_rows import DAYS, claim_new

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.adapters.postgres.reader import PostgresReader
    from notifier.domain.notification import NewNotification, NotificationId
    from tests.live_rows import Connection


class Opened(NamedTuple):
    store: PostgresStore
    reader: PostgresReader

    async def found(self, **fields: Any) -> list[NotificationId]:
        page = await self.reader.notifications(Filter(**fields))
        assert page.next_before is None
        return [view.id for view in page.views]

    async def send(self, item: NewNotification, *, reference: str = "") -> None:
        claimed = await claim_new(self.store, item)
        result, age_s = a_result(claimed)
        await self.store.record([(msgspec.structs.replace(result, reference=reference), age_s)])

    async def refuse(self, item: NewNotification) -> None:
        claimed = await claim_new(self.store, item)
        result = a_result(
            claimed, Status.FAILED, outcome="refused", reason=EndReason.REFUSED, code="550"
        )
        await self.store.record([result])


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Opened]:
    settings = ConnectionSettings(url=url)
    async with (
        open_store(settings, worker_id(), keeps_references=True) as store,
        open_reader(settings) as reader,
    ):
        yield Opened(store, reader)


def found_by(
    item: NewNotification, *, tag: str | None = None, metadata: dict[str, object] | None = None
) -> NewNotification:
    """The notification with all lookups that it can have."""
    encoded = msgspec.json.encode(metadata or {})
    lookups = [Lookup("recipient", recipient_identity(item.recipient))]
    if tag is not None:
        lookups.append(Lookup("tag", tag))
    lookups += metadata_lookups(encoded, list(metadata or {}))
    return msgspec.structs.replace(item, tag=tag, metadata=encoded, lookups=tuple(lookups))


async def count(connection: Connection) -> int:
    number: int = await connection.fetchval("SELECT count(*) FROM lookups")
    return number


async def test_notifications_are_found_by_each_lookup_and_by_all_together(
    database_url: str,
) -> None:
    ada = found_by(a_notification(recipient="Ada@Example.com"), tag="t", metadata={"order": 17})
    bob = found_by(a_notification(SMS_HIGH, recipient="+1500"), tag="t", metadata={"order": "17"})
    eve = found_by(a_notification(EMAIL_LOW, recipient="eve@example.com"), tag="u")
    async with opened(database_url) as db:
        await db.store.insert([ada, bob])
        await db.store.insert([eve, a_notification()])
        assert await db.found(tag=("t",)) == [bob.id, ada.id]
        assert await db.found(tag=("t", "u")) == [eve.id, bob.id, ada.id]
        assert await db.found(recipient=("ada@example.com",)) == [ada.id]
        assert await db.found(metadata=(("order", ("17",)),)) == [bob.id, ada.id]
        assert await db.found(tag=("t",), recipient=("eve@example.com",)) == []
        assert await db.found(tag=("u",), recipient=("eve@example.com",)) == [eve.id]
        assert await db.found(tag=("t",), channel=("sms",)) == [bob.id]
        assert await db.found(tag=("t",), metadata=(("order", ("17", "18")),), limit=2) == [
            bob.id,
            ada.id,
        ]
        assert await db.found(q="ADA@example.com") == [ada.id]
        assert await db.found(id=eve.id) == [eve.id]
        assert await db.found(id=eve.id, status=("failed",)) == []
        assert await db.found(tag=("t",), before=bob.id) == [ada.id]
        (view,) = (await db.reader.notifications(Filter(id=ada.id))).views
        assert view.tag == "t"


async def test_a_status_and_the_fields_of_a_result_select_among_what_was_found(
    database_url: str,
) -> None:
    items = [
        found_by(a_notification(EMAIL_HIGH), tag="t"),
        found_by(a_notification(EMAIL_HIGH), tag="t"),
        found_by(a_notification(EMAIL_HIGH, delay=timedelta(hours=1)), tag="t"),
        found_by(a_notification(EMAIL_HIGH), tag="t"),
        found_by(a_notification(EMAIL_HIGH), tag="t"),
    ]
    sent, failed, scheduled, queued, sending = items
    async with opened(database_url) as db:
        await db.store.insert(items)
        await db.send(sent, reference="ref-1")
        await db.refuse(failed)
        await claim_new(db.store, sending)
        for status, item in [
            ("sent", sent),
            ("failed", failed),
            ("scheduled", scheduled),
            ("queued", queued),
            ("sending", sending),
        ]:
            assert await db.found(tag=("t",), status=(status,)) == [item.id], status
        assert await db.found(tag=("t",), status=("failed",), reason=("refused",)) == [failed.id]
        assert await db.found(tag=("t",), status=("failed",), reason=("exhausted",)) == []
        both = ("failed", "sent")
        assert await db.found(tag=("t",), status=both, provider=("smtp",)) == [failed.id, sent.id]
        assert await db.found(tag=("t",), status=both, code=("550",)) == [failed.id]
        assert await db.found(reference=("ref-1",)) == [sent.id]
        assert await db.found(q="ref-1") == [sent.id]
        assert await db.found(reference=("ref-2",)) == []


async def test_a_write_that_is_repeated_stores_its_lookups_once(
    database_url: str, connection: Connection
) -> None:
    item = found_by(a_notification(), tag="t")
    keyed = msgspec.structs.replace(found_by(a_notification(), tag="t"), key=a_key())
    replay = msgspec.structs.replace(found_by(a_notification(), tag="t"), key=a_key())
    async with opened(database_url) as db:
        for _ in range(2):
            await db.store.insert([item])
            await db.store.insert_keyed([keyed])
        await db.store.insert_keyed([replay])
        assert await db.found(tag=("t",)) == [keyed.id, item.id]
    assert await count(connection) == 2 * 2


async def test_a_notification_without_lookups_writes_none(
    database_url: str, connection: Connection
) -> None:
    item = a_notification()
    async with opened(database_url) as db:
        await db.store.insert([item])
        await db.store.insert_keyed([a_notification(key=a_key())])
        await db.send(item)
    assert await count(connection) == 0


async def test_a_row_that_has_another_value_than_its_hash_is_not_returned(
    database_url: str, connection: Connection
) -> None:
    item = found_by(a_notification(recipient="ada@example.com"), tag="t", metadata={"a": 1})
    other = found_by(a_notification(recipient="eve@example.com"), tag="u", metadata={"a": 2})
    async with opened(database_url) as db:
        await db.store.insert([item, other])
        await connection.execute(
            "INSERT INTO lookups (hash, id) SELECT hash, $2 FROM lookups WHERE id = $1",
            item.id,
            other.id,
        )
        assert await db.found(tag=("t",)) == [item.id]
        assert await db.found(recipient=("ada@example.com",)) == [item.id]
        assert await db.found(metadata=(("a", ("1",)),)) == [item.id]
        assert await db.found(q="ada@example.com") == [item.id]


async def test_a_page_reads_a_bounded_number_and_its_cursor_goes_on(
    database_url: str, connection: Connection
) -> None:
    first = found_by(a_notification(), tag="t")
    later = [found_by(a_notification(), tag="t") for _ in range(MAX_CANDIDATES + 10)]
    async with opened(database_url) as db:
        await db.store.insert([first])
        await db.refuse(first)
        await insert_all(db.store, later)
        selection = Filter(tag=("t",), status=("failed",))
        page = await db.reader.notifications(selection)
        assert (page.views, page.next_before) == ([], later[10].id)
        page = await db.reader.notifications(replace(selection, before=page.next_before))
        assert [view.id for view in page.views] == [first.id]
        assert page.next_before is None


async def insert_all(store: PostgresStore, items: Sequence[NewNotification]) -> None:
    for start in range(0, len(items), 500):
        await store.insert(items[start : start + 500])


async def test_days_have_a_partition_of_lookups_that_is_dropped_with_them(
    database_url: str, connection: Connection
) -> None:
    async with opened(database_url) as db:
        await connection.execute("SELECT ensure_days(9)")
        assert await connection.fetchval(DAYS, "lookups") == await connection.fetchval(
            DAYS, "notifications"
        )
        yesterday = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date - 1")
        assert await db.store.drop_day(yesterday) == "dropped"
        assert await connection.fetchval(DAYS, "lookups") == await connection.fetchval(DAYS, "ends")


async def test_the_key_of_the_hashes_is_made_once(connection: Connection) -> None:
    key = await connection.fetchval("SELECT value FROM secrets WHERE name = 'lookups'")
    assert len(key) == 32
