"""A newer notification with the same collapse key replaces one that waits, on a real Postgres."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.accept import Accept
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import NewNotification, NotificationId, Status
from notifier.recovery.collapser import Collapser
from notifier.scheduling.cluster.worker_features import WorkerFeatures
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES, a_key, a_notification, worker_id
from tests.integration.test_accept import RecordingPublisher
from tests.live_rows import claim_all, due

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from notifier.domain.notification import NotificationView
    from notifier.ports.store import ExpiredRow
    from tests.live_rows import Connection

KEY = "order-17"


class Submitting:
    """An Accept on a real store, and a reader."""

    def __init__(self, store: PostgresStore, reader: PostgresReader) -> None:
        self.store = store
        self._reader = reader
        self.metrics = Metrics(QUEUES, {}, version="0")
        features = WorkerFeatures(self.metrics)
        features.beat_succeeded([])
        self.publisher = RecordingPublisher()
        self.publisher.room = 1000
        self.accept = Accept(
            store=store,
            observer=self.metrics,
            publisher=self.publisher,
            features=features,
            deadline_s=5.0,
            max_backlog=1000,
        )

    async def submit(self, *items: NewNotification) -> None:
        for reply in await self.accept.submit(items):
            assert reply is Status.QUEUED

    async def view(self, item: NewNotification) -> NotificationView:
        view = await self._reader.get(item.id)
        assert view is not None
        return view

    async def status(self, item: NewNotification) -> Status:
        return (await self.view(item)).status


@asynccontextmanager
async def open_submitting(url: str) -> AsyncIterator[Submitting]:
    link = ConnectionSettings(url=url)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(link, worker_id()))
        reader = await stack.enter_async_context(open_reader(link))
        submitting = Submitting(store, reader)
        async with asyncio.TaskGroup() as group:
            group.create_task(submitting.accept.run())
            yield submitting
            submitting.accept.close()


async def test_the_newer_one_replaces_the_one_that_waits(database_url: str) -> None:
    async with open_submitting(database_url) as api:
        first, second, third = (a_notification(collapse_key=KEY) for _ in range(3))
        await api.submit(first)
        await api.submit(second)
        view = await api.view(first)
        assert view.result is not None
        assert (view.status, view.result.reason) == (Status.CANCELLED, "collapsed")
        assert view.replaced_by == second.id
        await api.submit(third)
        assert (await api.view(second)).replaced_by == third.id
        assert (await api.view(first)).replaced_by == second.id
        assert (await api.view(third)).replaced_by is None
        assert [pointer.id for pointer in await due(api.store)] == [third.id]


async def test_the_last_of_a_batch_stays(database_url: str) -> None:
    async with open_submitting(database_url) as api:
        before = a_notification(collapse_key=KEY)
        await api.submit(before)
        batch = [a_notification(collapse_key=KEY) for _ in range(4)]
        await api.submit(*batch)
        assert await api.status(batch[-1]) is Status.QUEUED
        for item in (before, *batch[:-1]):
            assert (await api.view(item)).replaced_by == batch[-1].id


async def test_another_recipient_channel_tenant_or_key_is_another_notification(
    database_url: str,
) -> None:
    async with open_submitting(database_url) as api:
        items = [
            a_notification(collapse_key=KEY),
            a_notification(collapse_key=KEY, recipient="eve@example.com"),
            a_notification(collapse_key="order-18"),
            a_notification(collapse_key=None),
            a_notification(QUEUES[3], collapse_key=KEY),
        ]
        for item in items:
            await api.submit(item)
        assert {await api.status(item) for item in items} == {Status.QUEUED}
        again = a_notification(EMAIL_LOW, collapse_key=KEY, recipient="OK@Example.com")
        await api.submit(again)
        assert (await api.view(items[0])).replaced_by == again.id, "the same mailbox"


async def test_what_is_being_sent_stays_and_is_ended_when_it_would_be_tried_again(
    database_url: str, connection: Connection
) -> None:
    async with open_submitting(database_url) as api:
        first, second = (a_notification(collapse_key=KEY) for _ in range(2))
        await api.submit(first)
        assert len(await claim_all(api.store, await due(api.store))) == 1
        await api.submit(second)
        assert await api.status(first) is Status.SENDING
        collapser = Collapser(store=api.store, observer=api.metrics)
        assert await collapser.run_once() == 0
        await connection.execute(
            "UPDATE live SET claimed_by = '00000000-0000-0000-0000-000000000000', class = 2"
            " WHERE id = $1",
            first.id,
        )
        assert await collapser.run_once() == 1
        assert (await api.view(first)).replaced_by == second.id
        assert await connection.fetchval("SELECT count(*) FROM collapsed") == 0


async def test_what_was_sent_is_forgotten(database_url: str, connection: Connection) -> None:
    async with open_submitting(database_url) as api:
        first, second = (a_notification(collapse_key=KEY) for _ in range(2))
        await api.submit(first)
        await connection.execute("DELETE FROM live")
        await api.submit(second)
        assert await connection.fetchval("SELECT count(*) FROM collapsed") == 0
        assert await api.status(second) is Status.QUEUED


async def test_an_api_that_dies_after_its_commit_leaves_the_end_to_the_others(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_submitting(database_url) as api:
        first, second = (a_notification(collapse_key=KEY) for _ in range(2))
        await api.submit(first)

        async def fail(newer: Collection[NotificationId] | None = None) -> Sequence[ExpiredRow]:
            del newer
            raise StoreUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(api.store, "collapse", fail)
            await api.submit(second)
            assert await api.status(first) is Status.QUEUED
            assert await Collapser(store=api.store, observer=api.metrics).run_once() == 0
        assert await Collapser(store=api.store, observer=api.metrics).run_once() == 1
        assert await api.status(first) is Status.CANCELLED
        assert second.id in api.publisher.enqueued


async def test_of_many_at_once_by_two_processes_one_stays(
    database_url: str, connection: Connection
) -> None:
    async with open_submitting(database_url) as one, open_submitting(database_url) as two:
        items = [a_notification(collapse_key=f"key-{number % 7}") for number in range(140)]
        async with asyncio.TaskGroup() as group:
            for number, item in enumerate(items):
                group.create_task((one, two)[number % 2].submit(item))
                if number % 10 == 9:
                    await asyncio.sleep(0)
        waiting = [item for item in items if await one.status(item) is Status.QUEUED]
        assert len(waiting) == 7
        assert {item.collapse_key for item in waiting} == {f"key-{number}" for number in range(7)}
        ends = await connection.fetch("SELECT status::text, reason FROM ends")
        assert {tuple(row) for row in ends} == {("cancelled", "collapsed")}
        assert len(ends) == 133


async def test_a_replayed_submit_replaces_nothing(database_url: str) -> None:
    async with open_submitting(database_url) as api:
        first = a_notification(collapse_key=KEY, key=a_key())
        newer = a_notification(EMAIL_HIGH, collapse_key=KEY)
        await api.submit(first)
        await api.submit(newer)
        replay = a_notification(collapse_key=KEY, key=a_key())
        await api.accept.submit([replay])
        assert await api.status(newer) is Status.QUEUED
        mixed = a_notification(collapse_key=KEY), a_notification(collapse_key=KEY, key=a_key())
        await api.accept.submit(mixed)
        assert await api.status(mixed[0]) is Status.QUEUED, "the replay behind it was not stored"


async def test_without_a_collapse_key_an_accept_makes_one_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_submitting(database_url) as api:

        async def fail(newer: Collection[NotificationId] | None = None) -> Sequence[ExpiredRow]:
            raise AssertionError(newer)

        monkeypatch.setattr(api.store, "collapse", fail)
        await api.submit(a_notification())


async def test_old_keys_are_pruned(database_url: str, connection: Connection) -> None:
    async with open_submitting(database_url) as api:
        await api.submit(a_notification(collapse_key=KEY))
        await connection.execute(
            "INSERT INTO collapse_keys VALUES"
            " (gen_random_uuid(), uuid_at(now() - interval '40 days'))"
        )
        await api.store.prune_collapse_keys(timedelta(days=30))
        assert await connection.fetchval("SELECT count(*) FROM collapse_keys") == 1
