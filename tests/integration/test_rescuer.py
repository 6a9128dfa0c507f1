"""Lost messages, on a real Postgres: what is made due again, and when nothing is."""

from __future__ import annotations

from collections.abc import AsyncIterator
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


def figures(*, held: int = 0, mark: float | None = None, drained_s: float = 3600.0) -> QueueFigures:
    return QueueFigures(
        consumers=1,
        busy=0,
        held=held,
        done=0,
        done_per_s=0.0,
        service_s=0.1,
        limited_by="need",
        held_since=None,
        mark=mark,
        drained_s=drained_s,
    )


@dataclass
class Scene:
    """A worker that saw both queues drained for an hour, and rows that were lost on the way."""

    store: PostgresStore
    now: float = 1000.0
    permissions: dict[QueueKey, SendPermission] = field(default_factory=dict)
    mine: dict[QueueKey, QueueFigures] = field(
        default_factory=lambda: dict.fromkeys((EMAIL_HIGH, EMAIL_LOW), figures())
    )
    others: list[dict[QueueKey, QueueFigures]] = field(default_factory=list)
    metrics: Metrics = field(
        default_factory=lambda: Metrics(QUEUES, {}, version="0", registry=CollectorRegistry())
    )

    def __post_init__(self) -> None:
        self.rescuer = Rescuer(
            store=self.store,
            observer=self.metrics,
            mine=lambda: self.mine,
            others=lambda: self.others,
            permission=lambda queue: self.permissions.get(queue, SendPermission.ALLOWED),
            clock=lambda: self.now,
        )

    async def passes(self, seconds: float) -> int:
        """Let the rescuer pass every second for so long; how many rows it made due again."""
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
async def test_what_a_drained_queue_lost_is_due_again_and_counted(store: PostgresStore) -> None:
    scene = Scene(store)
    assert await scene.rescuer.run_once() == 2
    counted = scene.metrics.registry.get_sample_value(
        "notifier_rescues_total", {"queue": "email.high", "reason": "message_lost"}
    )
    assert counted == 1
    assert len(await store.take_due(quotas(), 500)) == 2


@pytest.mark.usefixtures("lost")
async def test_what_another_worker_may_hold_is_left_alone(store: PostgresStore) -> None:
    scene = Scene(store, others=[{EMAIL_HIGH: figures(held=1)}])
    assert await scene.passes(30) == 1


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize(
    "permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN, SendPermission.PROBE]
)
async def test_what_is_held_back_is_not_lost_and_the_other_queues_are_looked_after(
    store: PostgresStore, permission: SendPermission
) -> None:
    scene = Scene(store, permissions={EMAIL_HIGH: permission})
    assert await scene.passes(60) == 1
    [(pointer, _)] = await store.take_due(quotas(), 500)
    assert pointer.queue == EMAIL_LOW


@pytest.mark.usefixtures("lost")
async def test_a_pause_of_any_length_must_be_over_for_a_while_before_anything_counts_as_lost(
    store: PostgresStore,
) -> None:
    scene = Scene(store, permissions=dict.fromkeys((EMAIL_HIGH, EMAIL_LOW), SendPermission.PAUSED))
    await scene.passes(3600)
    scene.permissions.clear()
    assert await scene.passes(OVERDUE_S) == 0
    assert await scene.passes(1) == 2


@pytest.mark.usefixtures("lost")
async def test_a_mark_from_before_the_pause_says_nothing_of_what_waited_it_out(
    store: PostgresStore,
) -> None:
    taken_at = await store.database_now()
    scene = Scene(store, permissions={EMAIL_HIGH: SendPermission.PAUSED})
    scene.mine = {EMAIL_HIGH: figures(mark=taken_at, drained_s=0.0)}
    assert await scene.passes(1) == 0
    scene.permissions.clear()
    assert await scene.passes(OVERDUE_S) == 0


@pytest.mark.usefixtures("lost")
async def test_nothing_counts_as_lost_for_a_while_after_postgres_was_away(
    database_url: str,
) -> None:
    async with open_proxy_for(database_url) as proxy:
        link = ConnectionSettings(url=proxy.url(database_url))
        async with open_store(link, worker_id()) as store:
            scene = Scene(store)
            proxy.cut()
            assert await scene.passes(30) == 0
            proxy.heal()
            assert await scene.passes(OVERDUE_S) == 0
            assert await scene.passes(1) == 2
