"""Rows that a dead process took and may not have published, on a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.heartbeat import open_heartbeat
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.notification import Claimed, NotificationId
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import NO_FIGURES, DeadProcess
from notifier.recovery.unpublished import MAX_DEAD_PER_RUN, UnpublishedRecovery
from tests.builders import (
    EMAIL_HIGH,
    QUEUES,
    SMS_HIGH,
    a_notification,
    a_result,
    claim_request,
    quotas,
    worker_id,
)
from tests.doubles import DeadList


@dataclass
class Scene:
    """A dying process that has taken rows, and another that recovers them."""

    url: str
    dying: PostgresStore
    mine: PostgresStore
    processes: DeadList = field(default_factory=DeadList)
    metrics: Metrics = field(
        default_factory=lambda: Metrics(QUEUES, {}, version="0", registry=CollectorRegistry())
    )

    def __post_init__(self) -> None:
        self.recovery = UnpublishedRecovery(
            store=self.mine, observer=self.metrics, queues=QUEUES, processes=self.processes
        )

    async def beat(self, beat: int = 1) -> None:
        async with open_heartbeat(ConnectionSettings(url=self.url), self.dying.worker) as heartbeat:
            await heartbeat.beat(kind="api", host="h", pid=1, beat=beat, figures=NO_FIGURES)

    async def execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        await connection.execute(statement)
        await connection.close()

    async def taken_by_dying(self, count: int = 1) -> list[Pointer]:
        """Rows that the dying process took while its counter was 1."""
        await self.beat()
        await self.mine.insert([a_notification() for _ in range(count)])
        return await self.take(self.dying, count)

    async def take(self, store: PostgresStore, limit: int = 500) -> list[Pointer]:
        return [pointer for pointer, _ in await store.take_due(quotas(), limit)]

    def report_death(self, beat: int = 1) -> None:
        self.processes.processes = [DeadProcess(self.dying.worker, beat)]

    async def due(self) -> int:
        return sum(each.due for each in (await self.mine.waiting(QUEUES)).values())


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    settings = ConnectionSettings(url=database_url)
    async with (
        open_store(settings, worker_id()) as dying,
        open_store(settings, worker_id()) as mine,
    ):
        yield Scene(database_url, dying, mine)


def ids(pointers: list[Pointer]) -> list[NotificationId]:
    return [pointer.id for pointer in pointers]


async def test_the_rows_taken_last_are_due_again_in_their_order_and_counted(scene: Scene) -> None:
    taken = await scene.taken_by_dying(3)
    await scene.mine.insert([a_notification()])
    scene.report_death()
    assert await scene.recovery.run_once() == 3
    assert ids(await scene.take(scene.mine))[:3] == ids(taken)
    counted = scene.metrics.registry.get_sample_value(
        "notifier_rescues_total", {"queue": "email.high", "reason": "process_died"}
    )
    assert counted == 3


async def test_a_row_stored_as_published_is_due_again(scene: Scene) -> None:
    await scene.beat()
    item = a_notification()
    await scene.dying.insert([item], published={item.id})
    scene.report_death()
    assert await scene.recovery.run_once() == 1
    assert ids(await scene.take(scene.mine)) == [item.id]


async def test_the_rows_of_a_process_with_heartbeats_are_left_alone(scene: Scene) -> None:
    await scene.taken_by_dying()
    assert await scene.recovery.run_once() == 0
    scene.report_death()
    await scene.beat(2)
    assert await scene.recovery.run_once() == 0
    scene.report_death(2)
    assert await scene.recovery.run_once() == 1


async def test_rows_that_other_processes_took_are_left_alone(scene: Scene) -> None:
    await scene.taken_by_dying()
    await scene.mine.insert([a_notification()])
    other = await scene.take(scene.mine)
    scene.report_death()
    assert await scene.recovery.run_once() == 1
    assert not set(ids(await scene.take(scene.mine))) & set(ids(other))


async def test_rows_taken_long_before_the_last_heartbeat_are_left_alone(scene: Scene) -> None:
    await scene.taken_by_dying()
    await scene.execute("UPDATE notifications SET published_at = now() - interval '16 seconds'")
    scene.report_death()
    assert await scene.recovery.run_once() == 0


async def test_a_process_that_counts_as_dead_and_runs_keeps_the_rows_it_takes_later(
    scene: Scene,
) -> None:
    await scene.taken_by_dying()
    scene.report_death()
    assert await scene.recovery.run_once() == 1
    await scene.take(scene.dying)
    await scene.execute("UPDATE notifications SET published_at = now() + interval '6 seconds'")
    assert await scene.recovery.run_once() == 0


async def test_the_rows_of_a_process_that_died_long_ago_are_due_again(scene: Scene) -> None:
    await scene.taken_by_dying()
    await scene.execute(
        "UPDATE notifications SET published_at = published_at - interval '1 hour';"
        "UPDATE workers SET beat_at = beat_at - interval '1 hour'"
    )
    scene.report_death()
    assert await scene.recovery.run_once() == 1


async def test_a_pointer_that_arrived_is_claimed_and_its_copy_is_refused(scene: Scene) -> None:
    [arrived] = await scene.taken_by_dying()
    scene.report_death()
    assert await scene.recovery.run_once() == 1
    [copy] = await scene.take(scene.mine)
    [claimed] = await scene.mine.claim([claim_request(arrived)])
    assert isinstance(claimed, Claimed)
    await scene.mine.record([a_result(claimed)])
    [again] = await scene.mine.claim([claim_request(copy)])
    assert not isinstance(again, Claimed)


async def test_a_row_claimed_before_it_is_published_again_is_not_due(scene: Scene) -> None:
    [arrived] = await scene.taken_by_dying()
    scene.report_death()
    assert await scene.recovery.run_once() == 1
    await scene.mine.claim([claim_request(arrived)])
    assert await scene.due() == 0


async def test_a_row_that_is_being_sent_is_left_alone(scene: Scene) -> None:
    await scene.mine.claim([claim_request(pointer) for pointer in await scene.taken_by_dying()])
    scene.report_death()
    assert await scene.recovery.run_once() == 0


async def test_a_process_that_returns_does_not_unpublish_rows_published_by_another(
    scene: Scene,
) -> None:
    taken = await scene.taken_by_dying()
    scene.report_death()
    await scene.recovery.run_once()
    await scene.take(scene.mine)
    await scene.dying.unpublish(taken)
    assert await scene.due() == 0


async def test_a_dead_process_is_checked_until_no_row_is_left_and_again_after_its_return(
    scene: Scene,
) -> None:
    await scene.taken_by_dying(600)
    await scene.take(scene.dying)
    scene.report_death()
    assert [await scene.recovery.run_once() for _ in range(3)] == [500, 100, 0]
    await scene.take(scene.dying, 600)
    assert await scene.recovery.run_once() == 0
    await scene.beat(2)
    scene.report_death(2)
    assert await scene.recovery.run_once() == 500


async def test_after_a_crash_loop_all_dead_processes_are_checked_in_batches(scene: Scene) -> None:
    await scene.taken_by_dying()
    scene.processes.processes = [
        *(DeadProcess(worker_id(), 1) for _ in range(MAX_DEAD_PER_RUN)),
        DeadProcess(scene.dying.worker, 1),
    ]
    assert [await scene.recovery.run_once() for _ in range(3)] == [0, 1, 0]


async def test_two_recoveries_make_each_row_due_once(scene: Scene) -> None:
    await scene.mine.insert([a_notification(queue) for queue in (EMAIL_HIGH, SMS_HIGH)])
    await scene.beat()
    await scene.take(scene.dying)
    async with open_store(ConnectionSettings(url=scene.url), worker_id()) as other:
        found = [
            await store.rescue_from([DeadProcess(scene.dying.worker, 1)], QUEUES)
            for store in (scene.mine, other)
        ]
    assert found == [{EMAIL_HIGH: 1, SMS_HIGH: 1}, {}]


async def test_without_postgres_a_pass_raises_nothing_and_the_next_recovers_the_rows(
    scene: Scene,
) -> None:
    await scene.taken_by_dying()
    scene.report_death()
    async with open_proxy_for(scene.url) as proxy:
        settings = ConnectionSettings(url=proxy.url(scene.url))
        async with open_store(settings, worker_id()) as store:
            recovery = UnpublishedRecovery(
                store=store, observer=scene.metrics, queues=QUEUES, processes=scene.processes
            )
            proxy.cut()
            assert await recovery.run_once() == 0
            proxy.heal()
            assert await recovery.run_once() == 1
