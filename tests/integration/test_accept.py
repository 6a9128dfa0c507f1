"""Accept, on a real Postgres: the failure of one submit does not affect another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery import accept as accept_module
from notifier.delivery.accept import Accept
from notifier.domain.due import DueClass
from notifier.domain.errors import (
    FeatureUnavailable,
    Overloaded,
    StoreRejected,
    StoreUnavailable,
)
from notifier.domain.notification import (
    NewNotification,
    NotificationId,
    QueueKey,
    Status,
)
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import WorkerFigures
from notifier.ports.queries import Filter
from notifier.ports.store import NO_TURNS, ExpiredRow, KeyedInsert, KeyOwner
from notifier.scheduling.cluster.worker_features import WorkerFeatures
from tests.builders import EMAIL_HIGH, QUEUES, SMS_HIGH, a_notification, due_ranges, worker_id


class GatedStore:
    """The real store behind a gate, so that a test can act while a batch is being written."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.batches: list[int] = []

    async def insert(
        self,
        items: Sequence[NewNotification],
        *,
        direct: Collection[NotificationId] = (),
        turns: Mapping[NotificationId, int] = NO_TURNS,
    ) -> Sequence[Pointer]:
        self.batches.append(len(items))
        self.entered.set()
        await self.gate.wait()
        return await self._store.insert(items, direct=direct, turns=turns)

    async def insert_keyed(
        self,
        items: Sequence[NewNotification],
        *,
        direct: Collection[NotificationId] = (),
        turns: Mapping[NotificationId, int] = NO_TURNS,
    ) -> KeyedInsert:
        self.batches.append(len(items))
        self.entered.set()
        await self.gate.wait()
        return await self._store.insert_keyed(items, direct=direct, turns=turns)

    async def collapse(self, newer: Collection[NotificationId]) -> Sequence[ExpiredRow]:
        return await self._store.collapse(newer)

    async def key_owner(self, digest: UUID) -> KeyOwner | None:
        return await self._store.key_owner(digest)

    async def estimate_backlog(self) -> int:
        return await self._store.estimate_backlog()


class RecordingPublisher:
    """Has `room` places for each queue and records the calls."""

    def __init__(self) -> None:
        self.room = 0
        self.enqueued = list[NotificationId]()
        self.reserved = Counter[QueueKey]()

    def reserve(self, wanted: Mapping[QueueKey, int]) -> dict[QueueKey, int]:
        reserved = {queue: min(self.room, count) for queue, count in wanted.items()}
        self.reserved.update(reserved)
        return reserved

    def release(self, reserved: Mapping[QueueKey, int]) -> None:
        self.reserved.subtract(reserved)

    def enqueue(self, pointers: Sequence[Pointer]) -> None:
        self.enqueued += [pointer.id for pointer in pointers]
        self.reserved.subtract(pointer.queue for pointer in pointers)


class Accepting:
    """An Accept, its store and its publisher."""

    def __init__(self, store: GatedStore, *, deadline_s: float, max_backlog: int) -> None:
        self.store = store
        self.publisher = RecordingPublisher()
        self.features = WorkerFeatures(Metrics(QUEUES, {}, version="0"))
        self.features.beat_succeeded([])
        self.accept = Accept(
            store=store,
            observer=Metrics(QUEUES, {}, version="0"),
            publisher=self.publisher,
            features=self.features,
            deadline_s=deadline_s,
            max_backlog=max_backlog,
        )


@asynccontextmanager
async def open_accepting(
    url: str, *, deadline_s: float = 5.0, max_backlog: int = 1000
) -> AsyncIterator[Accepting]:
    async with open_store(
        ConnectionSettings(url=url, statement_timeout_s=0.5), worker_id()
    ) as store:
        accepting = Accepting(GatedStore(store), deadline_s=deadline_s, max_backlog=max_backlog)
        async with asyncio.TaskGroup() as group:
            group.create_task(accepting.accept.run())
            yield accepting
            accepting.accept.close()


async def wait_until_refused(accepting: Accepting) -> str:
    """Wait until submits are refused; returns the reason."""
    while True:
        try:
            await accepting.accept.submit([])
        except Overloaded as error:
            return str(error)
        await asyncio.sleep(0.01)


async def wait_until_accepted(accepting: Accepting) -> None:
    """Wait until submits are accepted again."""
    while True:
        try:
            await accepting.accept.submit([])
        except Overloaded:
            await asyncio.sleep(0.01)
        else:
            return


async def stored_ids(url: str) -> set[object]:
    async with open_reader(ConnectionSettings(url=url)) as reader:
        page = await reader.notifications(Filter(limit=200))
    return {view.id for view in page.views}


async def due_classes(url: str) -> dict[object, DueClass]:
    """The class of each row that is due."""
    async with open_store(ConnectionSettings(url=url), worker_id()) as store:
        read = await store.read_due(due_ranges())
    return {row.position.id: row.due_class for row in read.rows}


async def test_a_submit_returns_after_the_commit(database_url: str) -> None:
    async with open_accepting(database_url) as accepting:
        item = a_notification()
        assert await accepting.accept.submit([item]) == [Status.QUEUED]
        assert await stored_ids(database_url) == {item.id}
        assert accepting.publisher.enqueued == []


async def test_rows_with_a_reserved_place_are_published_directly_and_a_relay_publishes_the_others(
    database_url: str,
) -> None:
    first, second = a_notification(), a_notification()
    later = a_notification(SMS_HIGH, delay=timedelta(minutes=1), ttl=timedelta(hours=1))
    async with open_accepting(database_url) as accepting:
        accepting.publisher.room = 1
        statuses = await accepting.accept.submit([later, first, second])
        assert statuses == [Status.SCHEDULED, Status.QUEUED, Status.QUEUED]
        assert accepting.publisher.enqueued == [first.id]
        assert accepting.publisher.reserved.total() == 0
    assert await due_classes(database_url) == {
        first.id: DueClass.DIRECT,
        second.id: DueClass.FIRST,
    }


async def test_rows_that_were_stored_before_are_not_published_again(database_url: str) -> None:
    old, new = a_notification(), a_notification()
    async with open_accepting(database_url) as accepting:
        await accepting.accept.submit([old])
        accepting.publisher.room = 10
        assert await accepting.accept.submit([old, new]) == [Status.QUEUED, Status.QUEUED]
        assert accepting.publisher.enqueued == [new.id]
        assert accepting.publisher.reserved.total() == 0


async def test_the_places_of_rows_that_are_not_stored_are_released(database_url: str) -> None:
    invalid, good = a_notification(recipient="nul\0@example.com"), a_notification()
    async with open_accepting(database_url) as accepting:
        accepting.publisher.room = 10
        rejected, stored = await accepting.accept.submit([invalid, good])
        assert isinstance(rejected, StoreRejected)
        assert stored is Status.QUEUED
        assert accepting.publisher.enqueued == [good.id]
        assert accepting.publisher.reserved[EMAIL_HIGH] == 0


async def test_what_a_worker_does_not_understand_is_not_stored_and_the_others_are(
    database_url: str,
) -> None:
    copied, plain = a_notification(features=frozenset({"copies"})), a_notification()
    old = WorkerFigures(
        id=worker_id(), kind="worker", host="h", pid=1, beat=1, age_s=0.0, queues={}, providers={}
    )
    async with open_accepting(database_url) as accepting:
        accepting.features.beat_succeeded([old])
        refused, stored = await accepting.accept.submit([copied, plain])
        assert isinstance(refused, FeatureUnavailable)
        assert stored is Status.QUEUED
        (refused,) = await accepting.accept.submit([copied])
        assert isinstance(refused, FeatureUnavailable)
        assert await stored_ids(database_url) == {plain.id}
        accepting.features.beat_succeeded([])
        assert await accepting.accept.submit([copied]) == [Status.QUEUED]


async def test_a_rejected_row_fails_alone(database_url: str) -> None:
    invalid = a_notification(recipient="nul\0@example.com")
    good = [a_notification() for _ in range(20)]
    async with open_accepting(database_url) as accepting:
        accepting.store.gate.clear()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(accepting.accept.submit([a_notification()]))
            await accepting.store.entered.wait()  # the others share the next batch
            mixed = group.create_task(accepting.accept.submit([*good[:10], invalid]))
            other = group.create_task(accepting.accept.submit(good[10:]))
            await asyncio.sleep(0)
            accepting.store.gate.set()
        assert first.result() == [Status.QUEUED]
        assert other.result() == [Status.QUEUED] * 10
        assert mixed.result()[:10] == [Status.QUEUED] * 10
        assert isinstance(mixed.result()[10], StoreRejected)
        assert 21 in accepting.store.batches
    assert {item.id for item in good} < await stored_ids(database_url)
    assert invalid.id not in await stored_ids(database_url)


async def test_a_caller_that_disconnects_during_a_submit_does_not_disturb_the_others(
    database_url: str,
) -> None:
    cancelled, kept = a_notification(), a_notification()
    async with open_accepting(database_url) as accepting:
        accepting.store.gate.clear()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(accepting.accept.submit([cancelled]))
            await accepting.store.entered.wait()
            second = group.create_task(accepting.accept.submit([kept]))
            first.cancel()
            await asyncio.sleep(0)
            accepting.store.gate.set()
        assert second.result() == [Status.QUEUED]
        assert await accepting.accept.submit([a_notification()]) == [Status.QUEUED]
    # The cancelled item was being written: it is stored once, and will be sent as any other.
    assert {cancelled.id, kept.id} < await stored_ids(database_url)


async def test_a_batch_whose_reply_is_lost_is_repeated_and_stored_once(
    database_url: str,
) -> None:
    item = a_notification()
    async with (
        open_proxy_for(database_url) as proxy,
        open_accepting(proxy.url(database_url), deadline_s=30) as accepting,
        asyncio.TaskGroup() as group,
    ):
        await accepting.accept.submit([a_notification()])
        proxy.swallow_replies()
        waiting = group.create_task(accepting.accept.submit([item]))
        await proxy.swallowed.wait()
        proxy.heal()
        assert await waiting == [Status.QUEUED]
        assert len(accepting.store.batches) >= 3
    assert len(await stored_ids(database_url)) == 2


async def test_a_submit_fails_at_its_deadline_while_postgres_is_away(database_url: str) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_accepting(proxy.url(database_url), deadline_s=0.3) as accepting,
    ):
        proxy.cut()
        with pytest.raises(StoreUnavailable, match=r"not stored within 0\.3 s"):
            await accepting.accept.submit([a_notification()])
        proxy.heal()
        accepting.accept._deadline_s = 30
        assert await accepting.accept.submit([a_notification()]) == [Status.QUEUED]


async def test_more_items_than_the_process_may_hold_are_refused_at_once(database_url: str) -> None:
    async with open_accepting(database_url) as accepting:
        with pytest.raises(Overloaded):
            await accepting.accept.submit([a_notification()] * (accept_module.MAX_PENDING + 1))
    assert await stored_ids(database_url) == set()


async def test_a_submit_is_refused_while_others_wait_and_the_commit_delay_is_too_long(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept_module, "MAX_COMMIT_DELAY_S", 0.0)
    async with open_accepting(database_url) as accepting, asyncio.TaskGroup() as group:
        await accepting.accept.submit([a_notification()])
        accepting.store.gate.clear()
        accepting.store.entered.clear()
        waiting = group.create_task(accepting.accept.submit([a_notification()]))
        await accepting.store.entered.wait()
        with pytest.raises(Overloaded) as caught:
            await accepting.accept.submit([a_notification()])
        assert caught.value.retry_after_s == 1
        accepting.store.gate.set()
        await waiting
        await accepting.accept.submit([a_notification()])


async def test_a_backlog_over_the_limit_is_refused_until_it_shrinks(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept_module, "ESTIMATE_INTERVAL_S", 0.01)
    connection = await asyncpg.connect(database_url)
    async with (
        open_accepting(database_url, max_backlog=10) as accepting,
        asyncio.TaskGroup() as group,
    ):
        stop = asyncio.Event()
        group.create_task(accepting.accept.watch_backlog(stop))
        await accepting.accept.submit([a_notification() for _ in range(50)])
        await connection.execute("ANALYZE live")
        assert "about 50 notifications wait" in await wait_until_refused(accepting)
        await connection.execute("DELETE FROM live")
        await connection.execute("ANALYZE live")
        await wait_until_accepted(accepting)
        stop.set()
    await connection.close()
