"""A recipient gets at most so many notifications of a channel and day, on a real Postgres."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.delivery.recipient_cap_check import RecipientCapCheck
from notifier.domain.notification import Channel, EndReason
from tests.builders import QUEUES, SMS_HIGH, a_key, a_notification, worker_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.domain.notification import NewNotification
    from tests.live_rows import Connection

EMAIL = Channel("email")


class Submitting(RecipientCapCheck):
    """Checks and stores, as an accept does."""

    def __init__(self, store: PostgresStore, cap: int) -> None:
        super().__init__(store, {EMAIL: cap})
        self.store = store

    async def submit(self, *items: NewNotification) -> Sequence[str | None]:
        checked = await self.apply(items)
        if any(item.key for item in checked):
            await self.store.insert_keyed(checked)
        else:
            await self.store.insert(checked)
        return [item.suppressed for item in checked]


@asynccontextmanager
async def open_submitting(url: str, cap: int) -> AsyncIterator[Submitting]:
    async with open_store(ConnectionSettings(url=url), worker_id()) as store:
        yield Submitting(store, cap)


async def test_what_is_beyond_the_cap_is_suppressed(
    database_url: str, connection: Connection
) -> None:
    async with open_submitting(database_url, 3) as api:
        assert await api.submit(a_notification(), a_notification()) == [None, None]
        over = await api.submit(*(a_notification() for _ in range(3)))
        assert over == [None, EndReason.RECIPIENT_CAP, EndReason.RECIPIENT_CAP]
        assert await api.submit(a_notification(recipient="OK@EXAMPLE.COM")) == ["recipient_cap"]
        assert await connection.fetchval("SELECT count(*) FROM live") == 3
        rows = await connection.fetch("SELECT status::text, reason FROM ends")
        assert Counter(map(tuple, rows)) == {("suppressed", "recipient_cap"): 3}


async def test_other_recipients_and_channels_are_counted_by_themselves(database_url: str) -> None:
    async with open_submitting(database_url, 1) as api:
        items = [
            a_notification(),
            a_notification(recipient="eve@example.com"),
            *(a_notification(SMS_HIGH, recipient="+15005550006") for _ in range(3)),
        ]
        assert set(await api.submit(*items)) == {None}
        assert await api.submit(a_notification(QUEUES[2])) == ["recipient_cap"]


async def test_the_next_day_begins_anew_and_old_counts_are_removed(
    database_url: str, connection: Connection
) -> None:
    async with open_submitting(database_url, 1) as api:
        await api.submit(a_notification())
        await connection.execute("UPDATE recipient_counts SET day = day - 2")
        assert await api.submit(a_notification()) == [None]
        await api.store.prune_recipient_counts()
        assert await connection.fetchval("SELECT count(*) FROM recipient_counts") == 1


async def test_a_repeated_insert_and_a_replayed_submit_count_once(database_url: str) -> None:
    async with open_submitting(database_url, 2) as api:
        first = a_notification(key=a_key())
        checked = await api.apply([first])
        for _ in range(3):  # as after lost answers
            await api.store.insert_keyed(checked)
        assert await api.submit(a_notification(key=a_key())) == [None]
        assert await api.submit(a_notification()) == [None]
        assert await api.submit(a_notification()) == ["recipient_cap"]


async def test_without_caps_nothing_is_read_and_nothing_counted(
    database_url: str, connection: Connection
) -> None:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        items = [a_notification()]
        assert await RecipientCapCheck(store, {}).apply(items) is items
        assert await RecipientCapCheck(store, {Channel("sms"): 1}).apply(items) is items
        await store.insert(items)
        assert await connection.fetchval("SELECT count(*) FROM recipient_counts") == 0
