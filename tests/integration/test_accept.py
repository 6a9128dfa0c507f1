"""Accept, on a real Postgres: one caller's trouble is not another's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery import accept as accept_module
from notifier.delivery.accept import Accept
from notifier.domain.errors import Overloaded, StoreRejected, StoreUnavailable
from notifier.domain.notification import (
    NewNotification,
    NotificationId,
    Priority,
    QueueKey,
    Status,
)
from notifier.ports.broker import Pointer
from notifier.ports.queries import Filter
from tests.builders import EMAIL_HIGH, QUEUES, SMS_HIGH, a_notification, quotas, worker_id


class Gated:
    """The real store behind a gate, so that a test can act while a batch is on its way."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.batches: list[int] = []

    async def insert(
        self, items: Sequence[NewNotification], *, published: Collection[NotificationId] = ()
    ) -> Sequence[Pointer]:
        self.batches.append(len(items))
        self.entered.set()
        await self.gate.wait()
        return await self._store.insert(items, published=published)

    async def estimate_backlog(self) -> int:
        return await self._store.estimate_backlog()


class RecordingPublisher:
    """Has `room` places for each queue and records the calls."""

    def __init__(self) -> None:
        self.room = 0
        self.woken = 0
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

    def wake(self, priorities: Collection[Priority]) -> None:
        self.woken += len(priorities)


class Accepting:
    """An accept at work, and what it told the relays."""

    def __init__(self, store: Gated, *, deadline_s: float, max_backlog: int) -> None:
        self.store = store
        self.publisher = RecordingPublisher()
        self.accept = Accept(
            store=store,
            observer=Metrics(QUEUES, {}, version="0"),
            publisher=self.publisher,
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
        accepting = Accepting(Gated(store), deadline_s=deadline_s, max_backlog=max_backlog)
        async with asyncio.TaskGroup() as group:
            group.create_task(accepting.accept.run())
            yield accepting
            accepting.accept.close()


async def refused(accepting: Accepting) -> str:
    """Why it refuses, once it does."""
    while True:
        try:
            await accepting.accept.submit([])
        except Overloaded as error:
            return str(error)
        await asyncio.sleep(0.01)


async def taken(accepting: Accepting) -> None:
    """Until it takes submits again."""
    while True:
        try:
            await accepting.accept.submit([])
        except Overloaded:
            await asyncio.sleep(0.01)
        else:
            return


async def stored(url: str) -> set[object]:
    async with open_reader(ConnectionSettings(url=url)) as reader:
        return {view.id for view in await reader.notifications(Filter(limit=200))}


async def test_a_submit_returns_after_the_commit_and_wakes_the_relay(database_url: str) -> None:
    async with open_accepting(database_url) as accepting:
        item = a_notification()
        assert await accepting.accept.submit([item]) == [Status.QUEUED]
        assert await stored(database_url) == {item.id}
        assert (accepting.publisher.woken, accepting.publisher.enqueued) == (1, [])


async def test_what_there_is_room_for_is_handed_over_and_the_rest_is_due(
    database_url: str,
) -> None:
    first, second = a_notification(), a_notification()
    later = a_notification(SMS_HIGH, delay=timedelta(minutes=1), ttl=timedelta(hours=1))
    async with open_accepting(database_url) as accepting:
        accepting.publisher.room = 1
        statuses = await accepting.accept.submit([later, first, second])
        assert statuses == [Status.SCHEDULED, Status.QUEUED, Status.QUEUED]
        assert accepting.publisher.enqueued == [first.id]
        assert accepting.publisher.woken == 1
        await accepting.accept.submit([a_notification()])
        assert accepting.publisher.woken == 1
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        assert [each.id for each, _ in await store.take_due(quotas(), 500)] == [second.id]


async def test_what_is_admitted_and_not_stored_is_withdrawn(database_url: str) -> None:
    poison, good = a_notification(recipient="nul\0@example.com"), a_notification()
    async with open_accepting(database_url) as accepting:
        accepting.publisher.room = 10
        refused, stored = await accepting.accept.submit([poison, good])
        assert isinstance(refused, StoreRejected)
        assert stored is Status.QUEUED
        assert accepting.publisher.enqueued == [good.id]
        assert accepting.publisher.reserved[EMAIL_HIGH] == 0


async def test_a_poisoned_row_fails_alone(database_url: str) -> None:
    poison = a_notification(recipient="nul\0@example.com")
    good = [a_notification() for _ in range(20)]
    async with open_accepting(database_url) as accepting:
        accepting.store.gate.clear()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(accepting.accept.submit([a_notification()]))
            await accepting.store.entered.wait()  # the rest shares the next batch
            one = group.create_task(accepting.accept.submit([*good[:10], poison]))
            other = group.create_task(accepting.accept.submit(good[10:]))
            await asyncio.sleep(0)
            accepting.store.gate.set()
        assert first.result() == [Status.QUEUED]
        assert other.result() == [Status.QUEUED] * 10
        assert one.result()[:10] == [Status.QUEUED] * 10
        assert isinstance(one.result()[10], StoreRejected)
        assert 21 in accepting.store.batches
    assert {item.id for item in good} < await stored(database_url)
    assert poison.id not in await stored(database_url)


async def test_a_caller_that_disconnects_mid_submit_harms_nobody(database_url: str) -> None:
    gone, stays = a_notification(), a_notification()
    async with open_accepting(database_url) as accepting:
        accepting.store.gate.clear()
        async with asyncio.TaskGroup() as group:
            left = group.create_task(accepting.accept.submit([gone]))
            await accepting.store.entered.wait()
            neighbour = group.create_task(accepting.accept.submit([stays]))
            left.cancel()
            await asyncio.sleep(0)
            accepting.store.gate.set()
        assert neighbour.result() == [Status.QUEUED]
        assert await accepting.accept.submit([a_notification()]) == [Status.QUEUED]
    # Its batch was on its way: it is stored once, and will be sent like any other.
    assert {gone.id, stays.id} < await stored(database_url)


async def test_a_commit_whose_answer_is_lost_is_repeated_and_stored_once(
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
    assert len(await stored(database_url)) == 2


async def test_postgres_away_is_said_by_the_deadline(database_url: str) -> None:
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


async def test_more_than_the_process_may_hold_is_refused_at_once(database_url: str) -> None:
    async with open_accepting(database_url) as accepting:
        with pytest.raises(Overloaded):
            await accepting.accept.submit([a_notification()] * (accept_module.MAX_PENDING + 1))
    assert await stored(database_url) == set()


async def test_what_would_wait_long_behind_slow_commits_is_refused_unless_nothing_waits(
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
    import asyncpg  # noqa: PLC0415 only here

    monkeypatch.setattr(accept_module, "ESTIMATE_INTERVAL_S", 0.01)
    connection = await asyncpg.connect(database_url)
    async with (
        open_accepting(database_url, max_backlog=10) as accepting,
        asyncio.TaskGroup() as group,
    ):
        stop = asyncio.Event()
        group.create_task(accepting.accept.watch_backlog(stop))
        await accepting.accept.submit([a_notification() for _ in range(50)])
        await connection.execute("ANALYZE notifications")
        assert "about 50 notifications wait" in await refused(accepting)
        await connection.execute("UPDATE notifications SET status = 'sent', due_at = NULL")
        await connection.execute("ANALYZE notifications")
        await taken(accepting)
        stop.set()
    await connection.close()
