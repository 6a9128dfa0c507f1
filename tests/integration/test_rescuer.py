"""Which lost messages are published again, and when none are, on a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.cursor import QueueCursor
from notifier.domain.controls import SendPermission
from notifier.domain.due import DueClass
from notifier.domain.notification import QueueKey
from notifier.ports.heartbeat import QueueFigures
from notifier.ports.leases import Progress
from notifier.ports.store import DueRange, DueRead, LiveRow
from notifier.recovery.rescuer import CHECK_INTERVAL_S, OVERDUE_S, Rescuer
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    QUEUES,
    a_notification,
    claim_request,
    due_ranges,
    new_id,
    row_pointer,
    worker_id,
)

HELD = (EMAIL_HIGH, EMAIL_LOW)
START = 1000.0


def figures(
    *, held: int = 0, watermark: float | None = None, drained_s: float = 3600.0
) -> QueueFigures:
    return QueueFigures(consumers=1, held=held, watermark=watermark, drained_s=drained_s)


@dataclass
class Worker:
    """A worker that holds the leases of two queues and saw both drained for an hour.

    Postgres's clock advances with the worker's.
    """

    postgres: PostgresStore
    now: float = START
    permissions: dict[QueueKey, SendPermission] = field(default_factory=dict)
    own: dict[QueueKey, QueueFigures] = field(
        default_factory=lambda: dict.fromkeys(HELD, figures())
    )
    peers: list[dict[QueueKey, QueueFigures]] = field(default_factory=list)
    metrics: Metrics = field(
        default_factory=lambda: Metrics(QUEUES, {}, version="0", registry=CollectorRegistry())
    )
    published: list[LiveRow] = field(default_factory=list)
    is_broker_available: bool = True

    def __post_init__(self) -> None:
        self.held = {queue: QueueCursor(queue, Progress(), self.now) for queue in HELD}
        self.rescuer = Rescuer(
            store=self,
            publisher=self,
            observer=self.metrics,
            own=self,
            peers=self,
            gates=self,
            clock=lambda: self.now,
        )

    def cursors(self) -> Mapping[QueueKey, QueueCursor]:
        return self.held

    async def publish(self, rows: Sequence[LiveRow], published_at: datetime) -> Collection[LiveRow]:
        assert published_at.tzinfo
        if not self.is_broker_available:
            return rows
        self.published += rows
        return []

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        return self.own

    def peer_queue_figures(self) -> Sequence[Mapping[QueueKey, QueueFigures]]:
        return self.peers

    def permission(self, queue: QueueKey) -> SendPermission:
        return self.permissions.get(queue, SendPermission.ALLOWED)

    async def read_due(self, ranges: Sequence[DueRange]) -> DueRead:
        return self._later(await self.postgres.read_due(ranges))

    async def look(self, ranges: Sequence[DueRange]) -> DueRead:
        return self._later(await self.postgres.look(ranges))

    def _later(self, read: DueRead) -> DueRead:
        return read._replace(now=read.now + timedelta(seconds=self.now - START))

    async def run_pass(self) -> None:
        """Publish what is due; RabbitMQ loses it."""
        limits = dict.fromkeys(DueClass, 500)
        ranges = {
            queue: cursor.ranges(limits, 500, self.now) for queue, cursor in self.held.items()
        }
        read = await self.read_due([range_ for of in ranges.values() for range_ in of])
        for queue, cursor in self.held.items():
            rows = [row for row in read.rows if row.queue == queue]
            cursor.settle(cursor.read(rows, read, self.now))

    async def run_for(self, seconds: float) -> int:
        """Run the rescuer every second for this long; returns how many it published again."""
        end, rescued = self.now + seconds, 0
        while self.now < end:
            self.now += CHECK_INTERVAL_S
            rescued += await self.rescuer.run_once()
        return rescued


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await store.insert([a_notification(queue) for queue in HELD])
        yield store


@pytest.fixture
async def worker(store: PostgresStore) -> Worker:
    """A worker that published one row of each queue; RabbitMQ lost both pointers."""
    worker = Worker(store)
    await worker.run_pass()
    worker.now += 5
    return worker


async def test_messages_lost_by_a_drained_queue_are_published_again_and_counted(
    worker: Worker,
) -> None:
    assert await worker.run_for(OVERDUE_S) == 2
    assert {row.queue for row in worker.published} == set(HELD)
    counted = worker.metrics.registry.get_sample_value(
        "notifier_rescues_total", {"queue": "email.high", "reason": "message_lost"}
    )
    assert counted == 1


async def test_lost_messages_wait_longer_after_each_publish(worker: Worker) -> None:
    assert [await worker.run_for(10) for _ in range(7)] == [2, 0, 2, 0, 0, 0, 2]


async def test_messages_that_were_claimed_are_not_lost(worker: Worker) -> None:
    read = await worker.postgres.read_due(due_ranges(*HELD))
    requests = [claim_request(row_pointer(row)) for row in read.rows]
    await worker.postgres.claim(requests)
    assert await worker.run_for(60) == 0


async def test_messages_that_another_worker_may_hold_are_not_lost(worker: Worker) -> None:
    worker.peers = [{EMAIL_HIGH: figures(held=1)}]
    assert await worker.run_for(OVERDUE_S) == 1


async def test_messages_that_newer_ones_overtook_at_another_worker_are_lost(
    worker: Worker,
) -> None:
    taken_at = (datetime.now(UTC) + timedelta(seconds=60)).timestamp()
    worker.own = {}
    worker.peers = [{EMAIL_HIGH: figures(watermark=taken_at, drained_s=0.0)}]
    assert await worker.run_for(OVERDUE_S) == 1


async def test_unconfirmed_messages_are_published_again_in_the_next_second(
    worker: Worker,
) -> None:
    worker.is_broker_available = False
    assert await worker.run_for(30) == 0
    worker.is_broker_available = True
    assert await worker.run_for(1) == 2


@pytest.mark.parametrize(
    "permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN, SendPermission.PROBE]
)
async def test_messages_that_may_not_be_sent_are_not_lost_and_other_queues_are_rescued(
    worker: Worker, permission: SendPermission
) -> None:
    worker.permissions = {EMAIL_HIGH: permission}
    await worker.run_for(60)
    assert {row.queue for row in worker.published} == {EMAIL_LOW}


async def test_nothing_counts_as_lost_until_ten_seconds_after_a_pause_of_any_length(
    worker: Worker,
) -> None:
    worker.permissions = dict.fromkeys(HELD, SendPermission.PAUSED)
    await worker.run_for(3600)
    worker.permissions.clear()
    assert await worker.run_for(OVERDUE_S) == 0
    assert await worker.run_for(1) == 2


async def test_nothing_counts_as_lost_until_ten_seconds_after_an_outage_of_postgres(
    database_url: str, store: PostgresStore
) -> None:
    async with open_proxy_for(database_url) as proxy:
        settings = ConnectionSettings(url=proxy.url(database_url))
        async with open_store(settings, worker_id()) as store_behind_proxy:
            worker = Worker(store_behind_proxy)
            await worker.run_pass()
            worker.now += 5
            proxy.cut()
            assert await worker.run_for(30) == 0
            proxy.heal()
            assert await worker.run_for(OVERDUE_S) == 0
            assert await worker.run_for(1) == 2


async def test_a_row_that_commits_after_its_proof_was_given_up_is_published_within_a_minute(
    worker: Worker, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    worker.own = {}
    async with connection.transaction():
        missed = await _stored_in(connection)
        await worker.postgres.insert([a_notification(EMAIL_HIGH)])
        await worker.run_pass()
        worker.now += 7
        await worker.run_pass()
        await worker.run_for(3)
    await worker.run_pass()
    await worker.run_for(60)
    assert [row.position.id for row in worker.published] == [missed]


async def test_a_long_look_that_fails_ends_nothing(
    worker: Worker, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with connection.transaction():
        await connection.execute("LOCK TABLE live IN ACCESS EXCLUSIVE MODE")
        assert await worker.run_for(1) == 0
    assert await worker.run_for(2 * OVERDUE_S) == 2


async def _stored_in(connection: asyncpg.Connection[asyncpg.Record]) -> UUID:
    """Store a row in the transaction of this connection; returns its id."""
    id_ = new_id()
    await connection.execute(
        "INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, max_tries, "
        "queue) SELECT $1, now, now, now, now + interval '1 day', 10, 1, 0, $2 FROM "
        "(SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL) clock",
        id_,
        str(EMAIL_HIGH),
    )
    return id_
