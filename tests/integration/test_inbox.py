"""Inboxes in Postgres: what providers write, users mark and streams read."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from harness.client import until
from notifier.adapters.postgres import inbox as inbox_module
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.inbox import (
    Inboxes,
    PostgresInboxWriter,
    open_inbox_writer,
    open_inboxes,
)
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreRejected
from notifier.domain.inbox import MAX_UNREAD, Inbox
from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.inbox import Entry, InboxCursor, NewEntry
from tests.builders import EMAIL_HIGH, a_notification, new_id, worker_id
from tests.live_rows import SESSIONS_THAT_WAIT_FOR_A_LOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.live_rows import Connection

INBOX: Final = QueueKey(Channel("inbox"), Priority.HIGH)
TEST: Final = QueueKey(Channel("test"), Priority.HIGH)
SHOP: Final = TenantId("shop")
ADA: Final = Inbox(DEFAULT_TENANT, Mode.LIVE, "ada")
KEEP_S: Final = 3600.0
INSERT: Final = """
    INSERT INTO inbox_entries (id, tenant, mode, user_id, body, created_at, expires_at)
    SELECT gen_random_uuid(), '', 'live', $1, $2, now() - n * interval '1 second', now() + '1 hour'
    FROM generate_series(1, $3::integer) AS n"""


@dataclass(frozen=True, kw_only=True)
class Place:
    store: PostgresStore
    writer: PostgresInboxWriter
    inboxes: Inboxes

    async def notify(
        self,
        recipient: str = "ada",
        tenant: TenantId = DEFAULT_TENANT,
        queue: QueueKey = INBOX,
        test_channel: str = "",
    ) -> NotificationId:
        new = a_notification(queue, recipient=recipient, tenant=tenant, test_channel=test_channel)
        await self.store.insert([new])
        return new.id

    async def add(self, *bodies: str, inbox: Inbox = ADA) -> list[NotificationId]:
        """Add entries, one transaction each; return their ids, oldest first."""
        ids = []
        for body in bodies:
            id_ = await self.notify(inbox.user, inbox.tenant)
            await self.writer.add(NewEntry(id_, None, body, None))
            ids.append(id_)
        return ids

    async def entries(self, inbox: Inbox = ADA, *, is_unread: bool = False) -> list[Entry]:
        page = await self.inboxes.store.page(inbox, before=None, limit=200, is_unread=is_unread)
        return list(page.entries)

    async def unread(self, inbox: Inbox = ADA) -> int:
        page = await self.inboxes.store.page(inbox, before=None, limit=1, is_unread=False)
        return page.unread


@asynccontextmanager
async def open_place(url: str) -> AsyncIterator[Place]:
    settings = ConnectionSettings(url=url)
    async with (
        open_store(settings, worker_id()) as store,
        open_inbox_writer(settings, KEEP_S) as writer,
        open_inboxes(settings) as inboxes,
    ):
        yield Place(store=store, writer=writer, inboxes=inboxes)


@pytest.fixture
async def place(database_url: str) -> AsyncIterator[Place]:
    async with open_place(database_url) as place:
        yield place


async def test_an_entry_is_for_the_recipient_tenant_and_mode_of_its_notification(
    place: Place,
) -> None:
    at = datetime.now(UTC)
    for tenant, queue, test_channel, mode in (
        (DEFAULT_TENANT, INBOX, "", Mode.LIVE),
        (SHOP, INBOX, "", Mode.LIVE),
        (SHOP, TEST, "inbox", Mode.TEST),
    ):
        id_ = await place.notify("ada", tenant, queue, test_channel)
        await place.writer.add(NewEntry(id_, "S", "B", '{"n": 1}'))
        [entry] = await place.entries(Inbox(tenant, mode, "ada"))
        assert (entry.id, entry.subject, entry.body, entry.data) == (id_, "S", "B", '{"n": 1}')
        assert (entry.read_at, entry.expires_at - entry.created_at) == (
            None,
            timedelta(seconds=KEEP_S),
        )
        assert abs(entry.created_at - at) < timedelta(minutes=5)
    assert await place.entries(Inbox(DEFAULT_TENANT, Mode.TEST, "ada")) == []
    assert await place.entries(Inbox(SHOP, Mode.LIVE, "Ada")) == []


async def test_only_notifications_of_inboxes_have_entries(place: Place) -> None:
    for queue, test_channel in ((EMAIL_HIGH, ""), (TEST, "email")):
        id_ = await place.notify("ada", DEFAULT_TENANT, queue, test_channel)
        await place.writer.add(NewEntry(id_, None, "b", None))
    await place.writer.add(NewEntry(new_id(), None, "unknown", None))
    assert await place.entries() == []
    assert await place.entries(Inbox(DEFAULT_TENANT, Mode.TEST, "ada")) == []


async def test_sending_again_changes_nothing(place: Place) -> None:
    [id_] = await place.add("first")
    await place.inboxes.store.mark_read(ADA, [id_])
    [before] = await place.entries()
    await place.writer.add(NewEntry(id_, "other", "second", None))
    assert await place.entries() == [before]
    assert await place.unread() == 0


async def test_two_workers_that_add_the_same_entries_store_each_once(database_url: str) -> None:
    async with open_place(database_url) as one, open_place(database_url) as other:
        ids = [await one.notify() for _ in range(20)]
        async with asyncio.TaskGroup() as group:
            for id_ in ids:
                group.create_task(one.writer.add(NewEntry(id_, None, "one", None)))
            for id_ in reversed(ids):
                group.create_task(other.writer.add(NewEntry(id_, None, "other", None)))
        assert sorted(entry.id for entry in await one.entries()) == sorted(ids)


async def test_one_rejected_entry_does_not_hinder_those_beside_it(place: Place) -> None:
    good, bad = await place.notify(), await place.notify()
    async with asyncio.TaskGroup() as group:
        group.create_task(place.writer.add(NewEntry(good, None, "b", None)))
        with pytest.raises(StoreRejected):
            await place.writer.add(NewEntry(bad, None, "b\0", None))
    assert [entry.id for entry in await place.entries()] == [good]


async def test_an_erased_notification_gets_no_entry_and_one_being_added_is_found(
    place: Place, connection: Connection
) -> None:
    """Statement by statement as an erasure works: it locks, wipes, and removes the entries."""
    erased, adding = await place.notify(), await place.notify()
    [kept] = await place.add("for another", inbox=Inbox(SHOP, Mode.LIVE, "ada"))
    async with asyncio.TaskGroup() as group, connection.transaction():
        await connection.execute(
            "SELECT FROM notifications WHERE id = ANY ($1) FOR NO KEY UPDATE", [erased, adding]
        )
        group.create_task(place.writer.add(NewEntry(erased, None, "b", None)))
        await until(lambda: _is_waiting(connection), bool)
        await connection.execute("UPDATE notifications SET recipient = '' WHERE id = $1", erased)
    assert await place.entries() == []
    await place.writer.add(NewEntry(adding, None, "b", None))
    removed = await connection.execute(statement("inbox_erase"), [erased, adding])
    assert removed == "DELETE 1"
    assert await place.entries() == []
    assert [entry.id for entry in await place.entries(Inbox(SHOP, Mode.LIVE, "ada"))] == [kept]


async def _is_waiting(connection: Connection) -> bool:
    return bool(await connection.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK))


async def _ids(connection: Connection) -> list[NotificationId]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM inbox_entries")]


async def test_pages_have_each_entry_once_newest_first(
    place: Place, connection: Connection
) -> None:
    ids = await place.add(*map(str, range(7)))
    # Some at the same instant.
    await connection.execute("UPDATE inbox_entries SET created_at = now() WHERE body < '4'")
    found: list[Entry] = []
    before, count = None, 0
    while before or not count:
        page = await place.inboxes.store.page(ADA, before=before, limit=2, is_unread=False)
        found += page.entries
        before, count = page.following, count + 1
    assert count == 4
    assert sorted(entry.id for entry in found) == sorted(ids)
    order = [(entry.created_at, entry.id) for entry in found]
    assert order == sorted(order, reverse=True)


async def test_a_page_is_limited_in_bytes_and_has_at_least_one_entry(
    place: Place, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_PAGE_BYTES", 1000)
    await connection.execute(INSERT, "ada", "x" * 600, 3)
    page = await place.inboxes.store.page(ADA, before=None, limit=3, is_unread=True)
    assert len(page.entries) == 2
    page = await place.inboxes.store.page(ADA, before=page.following, limit=3, is_unread=True)
    assert (len(page.entries), page.following) == (1, None)


async def test_entries_are_marked_once_and_only_in_their_own_inbox(place: Place) -> None:
    ids = await place.add("a", "b", "c")
    bob = ADA._replace(user="bob")
    [other] = await place.add("d", inbox=bob)
    store = place.inboxes.store
    assert await store.mark_read(ADA, [ids[0], other, new_id()]) == 2
    assert await store.mark_read(ADA._replace(mode=Mode.TEST), ids) == 0
    assert await store.mark_read(ADA._replace(tenant=SHOP), ids) == 0
    assert (await place.unread(), await place.unread(bob)) == (2, 1)
    first = {entry.id: entry.read_at for entry in await place.entries()}
    assert await store.mark_read(ADA, ids) == 0
    again = {entry.id: entry.read_at for entry in await place.entries()}
    assert again[ids[0]] == first[ids[0]]
    assert await place.entries(is_unread=True) == []


async def test_all_until_an_instant_are_marked_however_many(
    place: Place, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_MARKED_AT_ONCE", 2)
    await connection.execute(INSERT, "ada", "b", 5)
    newest = (await place.entries())[0]
    [later] = await place.add("later")
    assert await place.inboxes.store.mark_read_until(ADA, newest.created_at) == 1
    assert [entry.id for entry in await place.entries(is_unread=True)] == [later]


async def test_two_that_mark_the_same_at_once_do_not_stop_each_other(database_url: str) -> None:
    async with open_place(database_url) as one, open_place(database_url) as other:
        ids = await one.add(*map(str, range(30)))
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(one.inboxes.store.mark_read(ADA, ids))
                group.create_task(other.inboxes.store.mark_read(ADA, ids[::-1]))
                group.create_task(one.inboxes.store.mark_read_until(ADA, datetime.now(UTC)))
        assert await one.unread() == 0


async def test_all_are_marked_beside_others_that_mark_some_of_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_MARKED_AT_ONCE", 3)
    async with open_place(database_url) as one, open_place(database_url) as other:
        ids = await one.add(*map(str, range(60)))
        async with asyncio.TaskGroup() as group:
            marking = group.create_task(one.inboxes.store.mark_read_until(ADA, datetime.now(UTC)))
            for id_ in ids[::2]:
                group.create_task(other.inboxes.store.mark_read(ADA, [id_]))
        assert marking.result() == 0
        assert await one.unread() == 0


async def test_the_count_of_unread_entries_is_bounded(place: Place, connection: Connection) -> None:
    await connection.execute(INSERT, "ada", "b", MAX_UNREAD + 5)
    assert await place.unread() == MAX_UNREAD


async def test_expired_entries_are_not_seen_and_are_pruned(
    place: Place, connection: Connection
) -> None:
    old, kept = await place.add("old", "kept")
    await connection.execute("UPDATE inbox_entries SET expires_at = now() WHERE id = $1", old)
    assert [entry.id for entry in await place.entries()] == [kept]
    assert await place.unread() == 1
    assert await place.store.prune_inbox() == 1
    assert await place.store.prune_inbox() == 0
    assert await _ids(connection) == [kept]


async def test_changes_are_read_once_also_those_that_are_committed_late(
    place: Place, connection: Connection
) -> None:
    reader = place.inboxes.reader
    cursor = await reader.now()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(INSERT, "ada", "late", 1)
    [early] = await place.add("early")
    found = await reader.changes(cursor, [ADA])
    assert [(each.entry.id, each.is_new) for each in found.changes[ADA]] == [(early, True)]
    assert found.unread == {ADA: 1}
    await transaction.commit()
    found = await reader.changes(found.cursor, [ADA])
    assert [(each.entry.body, each.is_new) for each in found.changes[ADA]] == [("late", True)]
    assert found.unread == {ADA: 2}
    await place.inboxes.store.mark_read(ADA, [early])
    found = await reader.changes(found.cursor, [ADA])
    assert [(each.entry.id, each.is_new) for each in found.changes[ADA]] == [(early, False)]
    assert found.unread == {ADA: 1}
    found = await reader.changes(found.cursor, [ADA])
    assert (found.changes, found.unread) == ({}, {})


async def test_changes_are_those_of_the_inboxes_that_are_asked_for(place: Place) -> None:
    reader, cursor = place.inboxes.reader, await place.inboxes.reader.now()
    bob, shop = ADA._replace(user="bob"), ADA._replace(tenant=SHOP)
    await place.add("a")
    [of_bob] = await place.add("b", inbox=bob)
    found = await reader.changes(cursor, [shop, bob])
    assert {inbox: [each.entry.id for each in some] for inbox, some in found.changes.items()} == {
        bob: [of_bob]
    }


async def test_an_inbox_with_too_many_changes_is_cut(
    place: Place, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = ADA._replace(user="bob")
    monkeypatch.setattr(inbox_module, "MAX_CHANGES_OF_INBOX", 3)
    reader, cursor = place.inboxes.reader, await place.inboxes.reader.now()
    await connection.execute(INSERT, "ada", "b", 4)
    await connection.execute(INSERT, "bob", "b", 3)
    found = await reader.changes(cursor, [ADA, bob])
    assert found.cut == {ADA}
    monkeypatch.setattr(inbox_module, "MAX_CHANGES", 5)
    nobody = ADA._replace(user="zoe")
    assert (await reader.changes(cursor, [ADA, bob])).cut == {ADA, bob}
    found = await reader.changes(cursor, [bob, ADA, nobody])
    assert (found.cut, len(found.changes[bob])) == ({ADA, nobody}, 3)


async def test_after_a_restore_every_inbox_is_cut(place: Place) -> None:
    ahead, timeline = 2**40 + 1000, (await place.inboxes.reader.now()).timeline
    cursor = InboxCursor(f"{ahead}:{ahead}:", timeline)
    found = await place.inboxes.reader.changes(cursor, [ADA])
    assert found.cut == {ADA}
    assert (await place.inboxes.reader.changes(found.cursor, [ADA])).cut == set()


async def test_after_a_standby_took_over_every_inbox_is_cut(place: Place) -> None:
    cursor = (await place.inboxes.reader.now())._replace(timeline="00000000")
    found = await place.inboxes.reader.changes(cursor, [ADA])
    assert found.cut == {ADA}
    assert (await place.inboxes.reader.changes(found.cursor, [ADA])).cut == set()


async def test_rows_of_another_cluster_that_were_restored_are_no_changes(
    place: Place, connection: Connection
) -> None:
    cursor = await place.inboxes.reader.now()
    await connection.execute(INSERT, "ada", "restored", 1)
    ahead = "(pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000)::text::xid8"
    await connection.execute(f"UPDATE inbox_entries SET added = {ahead}, changed = {ahead}")
    assert (await place.inboxes.reader.changes(cursor, [ADA])).changes == {}


async def test_an_inbox_of_a_deleted_tenant_is_removed(
    place: Place, connection: Connection
) -> None:
    await place.add("a", inbox=ADA._replace(tenant=SHOP))
    [kept] = await place.add("b")
    await connection.execute(
        "INSERT INTO deleted_tenants (name, deleted_at) VALUES ('shop', now() - interval '9 days')"
    )
    for _ in range(2):
        await place.store.prune_tenants(datetime.now(UTC).date())
    assert await _ids(connection) == [kept]
    assert await connection.fetchval("SELECT count(*) FROM deleted_tenants") == 0


async def test_pages_counts_and_changes_read_only_what_they_need(
    place: Place, connection: Connection
) -> None:
    await connection.execute(INSERT, "ada", "b", 3000)
    await connection.execute("UPDATE inbox_entries SET read_at = now()")
    await connection.execute(INSERT, "ada", "b", 3)
    await connection.execute(INSERT, "bob", "b", 3000)
    await connection.execute("VACUUM ANALYZE inbox_entries")
    arguments = {
        "inbox_read": (*ADA, datetime.max.replace(tzinfo=UTC), new_id(), 51, 1_000_000),
        "inbox_read_unread": (*ADA, datetime.max.replace(tzinfo=UTC), new_id(), 51, 1_000_000),
        "inbox_unread": ([""], ["live"], ["ada"], 1000),
        "inbox_changes": (
            (await place.inboxes.reader.now()).snapshot,
            [""],
            ["live"],
            ["ada"],
            51,
            99,
        ),
        "inbox_mark_until": (*ADA, datetime.now(UTC), 100),
        "inbox_prune": (100,),
    }
    await connection.execute("SET enable_seqscan TO off")
    for name, values in arguments.items():
        for kind in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode TO {kind}")
            async with _rolled_back(connection):
                before = await _read_by(connection)
                await connection.fetch(statement(name), *values)
                assert await _read_by(connection) - before < 400, (name, kind)


@asynccontextmanager
async def _rolled_back(connection: Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    yield
    await transaction.rollback()


async def _read_by(connection: Connection) -> int:
    """The rows that this transaction has read, by any index or none."""
    count: int = await connection.fetchval("""
        SELECT sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid))
        FROM pg_class WHERE relname LIKE 'inbox_entries%'""")
    return count
