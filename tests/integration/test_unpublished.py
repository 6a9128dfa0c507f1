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
class TwoProcesses:
    """A dying process that has taken rows, and another that recovers them."""

    url: str
    dying: PostgresStore
    recovering: PostgresStore
    dead: DeadList = field(default_factory=DeadList)
    metrics: Metrics = field(
        default_factory=lambda: Metrics(QUEUES, {}, version="0", registry=CollectorRegistry())
    )

    def __post_init__(self) -> None:
        self.recovery = UnpublishedRecovery(
            store=self.recovering, observer=self.metrics, queues=QUEUES, processes=self.dead
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
        await self.recovering.insert([a_notification() for _ in range(count)])
        return await self.take(self.dying, count)

    async def take(self, store: PostgresStore, limit: int = 500) -> list[Pointer]:
        return [pointer for pointer, _ in await store.take_due(quotas(), limit)]

    def report_death(self, beat: int = 1) -> None:
        self.dead.processes = [DeadProcess(self.dying.worker, beat)]

    async def due(self) -> int:
        waiting = await self.recovering.waiting(QUEUES)
        return sum(row.due for row in waiting.values())


@pytest.fixture
async def pair(database_url: str) -> AsyncIterator[TwoProcesses]:
    settings = ConnectionSettings(url=database_url)
    async with (
        open_store(settings, worker_id()) as dying,
        open_store(settings, worker_id()) as recovering,
    ):
        yield TwoProcesses(database_url, dying, recovering)


def ids(pointers: list[Pointer]) -> list[NotificationId]:
    return [pointer.id for pointer in pointers]


async def test_the_rows_taken_last_are_due_again_in_their_order_and_counted(
    pair: TwoProcesses,
) -> None:
    taken = await pair.taken_by_dying(3)
    await pair.recovering.insert([a_notification()])
    pair.report_death()
    assert await pair.recovery.run_once() == 3
    assert ids(await pair.take(pair.recovering))[:3] == ids(taken)
    counted = pair.metrics.registry.get_sample_value(
        "notifier_rescues_total", {"queue": "email.high", "reason": "process_died"}
    )
    assert counted == 3


async def test_a_row_stored_as_published_is_due_again(pair: TwoProcesses) -> None:
    await pair.beat()
    item = a_notification()
    await pair.dying.insert([item], published={item.id})
    pair.report_death()
    assert await pair.recovery.run_once() == 1
    assert ids(await pair.take(pair.recovering)) == [item.id]


async def test_the_rows_of_a_process_with_heartbeats_are_left_alone(pair: TwoProcesses) -> None:
    await pair.taken_by_dying()
    assert await pair.recovery.run_once() == 0
    pair.report_death()
    await pair.beat(2)
    assert await pair.recovery.run_once() == 0
    pair.report_death(2)
    assert await pair.recovery.run_once() == 1


async def test_rows_that_other_processes_took_are_left_alone(pair: TwoProcesses) -> None:
    await pair.taken_by_dying()
    await pair.recovering.insert([a_notification()])
    other = await pair.take(pair.recovering)
    pair.report_death()
    assert await pair.recovery.run_once() == 1
    assert not set(ids(await pair.take(pair.recovering))) & set(ids(other))


async def test_rows_taken_long_before_the_last_heartbeat_are_left_alone(pair: TwoProcesses) -> None:
    await pair.taken_by_dying()
    await pair.execute("UPDATE notifications SET published_at = now() - interval '16 seconds'")
    pair.report_death()
    assert await pair.recovery.run_once() == 0


async def test_a_process_that_counts_as_dead_and_runs_keeps_the_rows_it_takes_later(
    pair: TwoProcesses,
) -> None:
    await pair.taken_by_dying()
    pair.report_death()
    assert await pair.recovery.run_once() == 1
    await pair.take(pair.dying)
    await pair.execute("UPDATE notifications SET published_at = now() + interval '6 seconds'")
    assert await pair.recovery.run_once() == 0


async def test_the_rows_of_a_process_that_died_long_ago_are_due_again(pair: TwoProcesses) -> None:
    await pair.taken_by_dying()
    await pair.execute(
        "UPDATE notifications SET published_at = published_at - interval '1 hour';"
        "UPDATE workers SET beat_at = beat_at - interval '1 hour'"
    )
    pair.report_death()
    assert await pair.recovery.run_once() == 1


async def test_a_pointer_that_arrived_is_claimed_and_its_copy_is_refused(
    pair: TwoProcesses,
) -> None:
    [arrived] = await pair.taken_by_dying()
    pair.report_death()
    assert await pair.recovery.run_once() == 1
    [copy] = await pair.take(pair.recovering)
    [claimed] = await pair.recovering.claim([claim_request(arrived)])
    assert isinstance(claimed, Claimed)
    await pair.recovering.record([a_result(claimed)])
    [again] = await pair.recovering.claim([claim_request(copy)])
    assert not isinstance(again, Claimed)


async def test_a_row_claimed_before_it_is_published_again_is_not_due(pair: TwoProcesses) -> None:
    [arrived] = await pair.taken_by_dying()
    pair.report_death()
    assert await pair.recovery.run_once() == 1
    await pair.recovering.claim([claim_request(arrived)])
    assert await pair.due() == 0


async def test_a_row_that_is_being_sent_is_left_alone(pair: TwoProcesses) -> None:
    await pair.recovering.claim([claim_request(pointer) for pointer in await pair.taken_by_dying()])
    pair.report_death()
    assert await pair.recovery.run_once() == 0


async def test_a_process_that_returns_does_not_unpublish_rows_published_by_another(
    pair: TwoProcesses,
) -> None:
    taken = await pair.taken_by_dying()
    pair.report_death()
    await pair.recovery.run_once()
    await pair.take(pair.recovering)
    await pair.dying.unpublish(taken)
    assert await pair.due() == 0


async def test_a_dead_process_is_checked_until_no_row_is_left_and_again_after_its_return(
    pair: TwoProcesses,
) -> None:
    await pair.taken_by_dying(600)
    await pair.take(pair.dying)
    pair.report_death()
    assert [await pair.recovery.run_once() for _ in range(3)] == [500, 100, 0]
    await pair.take(pair.dying, 600)
    assert await pair.recovery.run_once() == 0
    await pair.beat(2)
    pair.report_death(2)
    assert await pair.recovery.run_once() == 500


async def test_after_a_crash_loop_all_dead_processes_are_checked_in_batches(
    pair: TwoProcesses,
) -> None:
    await pair.taken_by_dying()
    pair.dead.processes = [
        *(DeadProcess(worker_id(), 1) for _ in range(MAX_DEAD_PER_RUN)),
        DeadProcess(pair.dying.worker, 1),
    ]
    assert [await pair.recovery.run_once() for _ in range(3)] == [0, 1, 0]


async def test_two_recoveries_make_each_row_due_once(pair: TwoProcesses) -> None:
    await pair.recovering.insert([a_notification(queue) for queue in (EMAIL_HIGH, SMS_HIGH)])
    await pair.beat()
    await pair.take(pair.dying)
    async with open_store(ConnectionSettings(url=pair.url), worker_id()) as other:
        found = [
            await store.rescue_from([DeadProcess(pair.dying.worker, 1)], QUEUES)
            for store in (pair.recovering, other)
        ]
    assert found == [{EMAIL_HIGH: 1, SMS_HIGH: 1}, {}]


async def test_without_postgres_a_pass_raises_nothing_and_the_next_recovers_the_rows(
    pair: TwoProcesses,
) -> None:
    await pair.taken_by_dying()
    pair.report_death()
    async with open_proxy_for(pair.url) as proxy:
        settings = ConnectionSettings(url=proxy.url(pair.url))
        async with open_store(settings, worker_id()) as store:
            recovery = UnpublishedRecovery(
                store=store, observer=pair.metrics, queues=QUEUES, processes=pair.dead
            )
            proxy.cut()
            assert await recovery.run_once() == 0
            proxy.heal()
            assert await recovery.run_once() == 1
