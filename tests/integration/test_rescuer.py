"""Which lost messages become due again, and when none do, on a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey
from notifier.ports.heartbeat import QueueFigures
from notifier.recovery.rescuer import CHECK_INTERVAL_S, OVERDUE_S, Rescuer
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES, a_notification, quotas, worker_id

AN_HOUR_AGO = "UPDATE notifications SET published_at = now() - interval '1 hour'"


def figures(
    *, held: int = 0, watermark: float | None = None, drained_s: float = 3600.0
) -> QueueFigures:
    return QueueFigures(consumers=1, held=held, watermark=watermark, drained_s=drained_s)


@dataclass
class Worker:
    """A worker that saw both queues drained for an hour, while their rows were lost."""

    store: PostgresStore
    now: float = 1000.0
    permissions: dict[QueueKey, SendPermission] = field(default_factory=dict)
    own: dict[QueueKey, QueueFigures] = field(
        default_factory=lambda: dict.fromkeys((EMAIL_HIGH, EMAIL_LOW), figures())
    )
    peers: list[dict[QueueKey, QueueFigures]] = field(default_factory=list)
    metrics: Metrics = field(
        default_factory=lambda: Metrics(QUEUES, {}, version="0", registry=CollectorRegistry())
    )

    def __post_init__(self) -> None:
        self.rescuer = Rescuer(
            store=self.store,
            observer=self.metrics,
            own=self,
            peers=self,
            gates=self,
            clock=lambda: self.now,
        )

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        return self.own

    def peer_queue_figures(self) -> Sequence[Mapping[QueueKey, QueueFigures]]:
        return self.peers

    def permission(self, queue: QueueKey) -> SendPermission:
        return self.permissions.get(queue, SendPermission.ALLOWED)

    async def run_for(self, seconds: float) -> int:
        """Run the rescuer every second for this long; returns how many rows it made due again."""
        end, rescued = self.now + seconds, 0
        while self.now < end:
            self.now += CHECK_INTERVAL_S
            rescued += await self.rescuer.run_once()
        return rescued


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
async def lost(database_url: str, store: PostgresStore) -> None:
    """One row of each queue, published an hour ago."""
    await store.insert([a_notification(queue) for queue in (EMAIL_HIGH, EMAIL_LOW)])
    await store.take_due(quotas(), 500)
    connection = await asyncpg.connect(database_url)
    await connection.execute(AN_HOUR_AGO)
    await connection.close()


@pytest.mark.usefixtures("lost")
async def test_messages_lost_by_a_drained_queue_are_due_again_and_counted(
    store: PostgresStore,
) -> None:
    worker = Worker(store)
    assert await worker.rescuer.run_once() == 2
    counted = worker.metrics.registry.get_sample_value(
        "notifier_rescues_total", {"queue": "email.high", "reason": "message_lost"}
    )
    assert counted == 1
    assert len(await store.take_due(quotas(), 500)) == 2


@pytest.mark.usefixtures("lost")
async def test_messages_that_another_worker_may_hold_stay_published(store: PostgresStore) -> None:
    worker = Worker(store, peers=[{EMAIL_HIGH: figures(held=1)}])
    assert await worker.run_for(30) == 1


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize(
    "permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN, SendPermission.PROBE]
)
async def test_messages_that_may_not_be_sent_are_not_lost_and_other_queues_are_rescued(
    store: PostgresStore, permission: SendPermission
) -> None:
    worker = Worker(store, permissions={EMAIL_HIGH: permission})
    assert await worker.run_for(60) == 1
    [(pointer, _)] = await store.take_due(quotas(), 500)
    assert pointer.queue == EMAIL_LOW


@pytest.mark.usefixtures("lost")
async def test_nothing_counts_as_lost_until_ten_seconds_after_a_pause_of_any_length(
    store: PostgresStore,
) -> None:
    worker = Worker(
        store, permissions=dict.fromkeys((EMAIL_HIGH, EMAIL_LOW), SendPermission.PAUSED)
    )
    await worker.run_for(3600)
    worker.permissions.clear()
    assert await worker.run_for(OVERDUE_S) == 0
    assert await worker.run_for(1) == 2


@pytest.mark.usefixtures("lost")
async def test_a_watermark_from_before_a_pause_is_no_evidence_of_a_loss(
    store: PostgresStore,
) -> None:
    taken_at = await store.database_now()
    worker = Worker(store, permissions={EMAIL_HIGH: SendPermission.PAUSED})
    worker.own = {EMAIL_HIGH: figures(watermark=taken_at, drained_s=0.0)}
    assert await worker.run_for(1) == 0
    worker.permissions.clear()
    assert await worker.run_for(OVERDUE_S) == 0


@pytest.mark.usefixtures("lost")
async def test_nothing_counts_as_lost_until_ten_seconds_after_an_outage_of_postgres(
    database_url: str,
) -> None:
    async with open_proxy_for(database_url) as proxy:
        settings = ConnectionSettings(url=proxy.url(database_url))
        async with open_store(settings, worker_id()) as store:
            worker = Worker(store)
            proxy.cut()
            assert await worker.run_for(30) == 0
            proxy.heal()
            assert await worker.run_for(OVERDUE_S) == 0
            assert await worker.run_for(1) == 2
