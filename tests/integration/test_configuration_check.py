"""Rows, pauses and messages that the settings of this deployment do not name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

import asyncpg
import pytest
import structlog.testing
from msgspec.structs import replace

from notifier.adapters.inprocess.broker import InProcessBroker
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.adapters.rabbitmq.foreign import ForeignPointers
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.deployment_id import DeploymentId
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.broker import Broker, Depth, Pointer
from notifier.ports.heartbeat import NO_FIGURES
from notifier.ports.store import ClaimRequest
from notifier.recovery.configuration_check import ConfigurationCheck
from notifier.scheduling.cluster.cluster_figures import ClusterFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from notifier.scheduling.deployment_status import DeploymentStatus
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import QUEUES, a_notification, worker_id
from tests.conformance.receiving import (
    TIMEOUT_S,
    CountingObserver,
    pointers,
    subscribed,
)
from tests.doubles import FixedFigures

FAX = QueueKey(Channel("fax"), Priority.LOW)
EMAIL_LOW = QueueKey(Channel("email"), Priority.LOW)
PROVIDERS = {Channel("email"): ["smtp"], Channel("sms"): ["http"], Channel("push"): ["http"]}
SMTP, OLD_NAME = Scope(ScopeKind.PROVIDER, "smtp"), Scope(ScopeKind.PROVIDER, "relay-of-2019")

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


class Deployment:
    """What one process of a deployment knows, with the servers of the test."""

    def __init__(self, store: PostgresStore, controls: PostgresControls, broker: Broker) -> None:
        self.store, self.controls = store, controls
        self.id = DeploymentId()
        self.metrics = Metrics(QUEUES, PROVIDERS, version="0")
        self.gates = QueueGates(
            controls, queues=QUEUES, providers=PROVIDERS, probes=Probes(), observer=self.metrics
        )
        self.check = ConfigurationCheck(
            store=store, names=self.gates, deployment=self.id, observer=self.metrics
        )
        self.status = DeploymentStatus(
            store=store,
            broker=broker,
            cluster=ClusterFigures(own=FixedFigures(NO_FIGURES), detector=FailureDetector()),
            gates=self.gates,
        )

    async def run_check(self) -> list[dict[str, object]]:
        """Run the check; return what it logs."""
        await self.gates.run_once()
        with structlog.testing.capture_logs() as logs:
            await self.check.run_once()
        return [dict(record) for record in logs if record["log_level"] == "error"]


@pytest.fixture
async def deployment(database_url: str) -> AsyncIterator[Deployment]:
    async with open_deployment(database_url) as opened:
        yield opened


@asynccontextmanager
async def open_deployment(url: str) -> AsyncIterator[Deployment]:
    settings, worker = ConnectionSettings(url=url), worker_id()
    async with (
        open_store(settings, worker) as store,
        open_controls(settings, worker) as controls,
    ):
        yield Deployment(store, controls, InProcessBroker(QUEUES))


async def test_rows_of_a_channel_that_was_removed_are_named_in_log_metric_and_status(
    deployment: Deployment,
) -> None:
    store = deployment.store
    items = [a_notification(queue=FAX) for _ in range(3)]
    await store.insert([*items, a_notification()])
    await store.claim([ClaimRequest(id=items[0].id, claim=0)])
    (logged,) = await deployment.run_check()
    assert (logged["event"], logged["queue"]) == ("unconfigured_queue_found", "fax.low")
    assert (logged["waiting"], logged["sending"]) == (2, 1)
    assert value(deployment.metrics, "notifier_unconfigured") == 3
    assert await deployment.run_check() == []
    *configured, fax = await deployment.status.queues()
    assert {state.queue for state in configured} == {str(queue) for queue in QUEUES}
    assert all(state.is_configured for state in configured)
    assert (fax.queue, fax.is_configured, fax.limited_by) == ("fax.low", False, "no_channel")
    assert (fax.due, fax.busy, fax.due_is_exact) == (2, 1, True)
    assert fax.limited_by_detail is not None
    assert "nor recovers those of a dead worker" in fax.limited_by_detail


async def test_nothing_is_reported_once_the_rows_are_gone(
    deployment: Deployment, connection: Connection
) -> None:
    await deployment.store.insert([a_notification(queue=FAX)])
    assert len(await deployment.run_check()) == 1
    await connection.execute("DELETE FROM live")
    assert await deployment.run_check() == []
    assert value(deployment.metrics, "notifier_unconfigured") == 0
    assert len(await deployment.status.queues()) == len(QUEUES)


async def test_a_pause_of_a_provider_that_was_renamed_is_named(deployment: Deployment) -> None:
    await deployment.controls.pause(SMTP, note="", for_s=None)
    await deployment.controls.pause(OLD_NAME, note="moving", for_s=None)
    (logged,) = await deployment.run_check()
    assert (logged["event"], logged["kind"], logged["name"]) == (
        "unmatched_pause_found",
        "provider",
        OLD_NAME.name,
    )
    assert value(deployment.metrics, "notifier_unmatched_pauses") == 1
    rows = await deployment.status.pauses()
    assert {row.pause.scope: row.matches for row in rows} == {SMTP: True, OLD_NAME: False}


async def test_waiting_rows_are_counted_exactly_or_as_a_minimum(
    deployment: Deployment, connection: Connection
) -> None:
    await add_due(connection, 1_500)
    assert await shown(deployment) == (1_500, True)
    await add_due(connection, 10_000)
    assert await shown(deployment) == (10_000, False)


async def test_the_oldest_wait_counts_from_the_first_due_time_of_a_retried_notification(
    deployment: Deployment, connection: Connection
) -> None:
    item = a_notification(queue=EMAIL_LOW, delay=timedelta(hours=1))
    await deployment.store.insert([item])
    await connection.execute(
        "UPDATE live SET class = 2, created_at = now() - interval '3 hours', due_at = now(),"
        " ready_at = now()"
    )
    assert 3 * 3600 <= await oldest_wait_s(deployment) < 3 * 3600 + 600
    await connection.execute(
        "INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s,"
        " provider, outcome, code, detail, reference) VALUES ($1, 1, $1,"
        " now() - interval '2 hours', now(), 60, 'smtp', 'unavailable', '', '', '')",
        item.id,
    )
    assert 2 * 3600 + 60 <= await oldest_wait_s(deployment) < 2 * 3600 + 600


async def test_each_database_is_a_deployment_and_all_its_processes_have_one_id(
    database_url: str, empty_database_url: str
) -> None:
    ids = []
    for url in (database_url, database_url, empty_database_url):
        async with open_store(ConnectionSettings(url=url), worker_id()) as store:
            ids.append(await store.deployment_id())
    assert ids[0] == ids[1] != ids[2]
    assert all(ids)


async def test_messages_of_another_deployment_reach_it_and_are_counted_and_named(
    vhost_url: str,
) -> None:
    ours, others = CountingObserver(), CountingObserver()
    with structlog.testing.capture_logs() as logs:
        async with (
            open_rabbitmq_broker(
                vhost_url, QUEUES, observer=ours, deployment=DeploymentId("ours")
            ) as broker,
            open_rabbitmq_broker(
                vhost_url, QUEUES, observer=others, deployment=DeploymentId("others")
            ) as other_broker,
        ):
            sent, sent_by_others = recent_pointers(50), recent_pointers(50)
            async with (
                subscribed(broker, prefetch=20, acks=True) as receiver,
                subscribed(other_broker, prefetch=20, acks=True) as other_receiver,
            ):
                assert all(await broker.publish(sent))
                assert all(await other_broker.publish(sent_by_others))
                await receiver.wait_for_all(sent)
                await other_receiver.wait_for_all(sent_by_others)
                assert sorted(receiver.ids) == sorted(pointer.id for pointer in sent)
                assert set(broker.foreign_pointers()) == {EMAIL_LOW}
                await until_empty(broker)
    assert ours.foreign_count
    assert others.foreign_count
    named = [record for record in logs if record["event"] == "foreign_message_received"]
    assert {(record["queue"], record["deployment"]) for record in named} == {
        ("email.low", "ours"),
        ("email.low", "others"),
    }
    assert len(named) == 2


async def test_an_old_message_of_another_deployment_is_acked_and_counted(vhost_url: str) -> None:
    ours, others = CountingObserver(), CountingObserver()
    async with (
        open_rabbitmq_broker(
            vhost_url, QUEUES, observer=ours, deployment=DeploymentId("ours")
        ) as broker,
        open_rabbitmq_broker(
            vhost_url, QUEUES, observer=others, deployment=DeploymentId("moved")
        ) as other_broker,
    ):
        assert all(await other_broker.publish(pointers(3)))
        async with subscribed(broker, prefetch=20) as receiver:
            own = recent_pointers(1)
            assert all(await broker.publish(own))
            await receiver.wait_for_all(own)
            receiver.ack(receiver.messages)
            assert ours.foreign_count == 3
        await until_empty(broker)


def test_a_message_that_came_back_often_is_unwanted_by_either_header() -> None:
    foreign = ForeignPointers(CountingObserver(), Random(1))
    now = time.time()
    assert not foreign.is_unwanted({}, now)
    assert not foreign.is_unwanted({"x-delivery-count": 19}, now)
    assert foreign.is_unwanted({"x-delivery-count": 20}, now)
    assert foreign.is_unwanted({"x-delivery-count": 0, "x-acquired-count": 20}, now)
    assert foreign.is_unwanted({}, now - 301)
    assert not foreign.is_unwanted({"x-delivery-count": "many", "x-acquired-count": None}, now)


async def test_a_message_without_an_id_or_for_an_unknown_one_is_taken(vhost_url: str) -> None:
    observer = CountingObserver()
    unknown = DeploymentId()
    async with open_rabbitmq_broker(
        vhost_url, QUEUES, observer=observer, deployment=unknown
    ) as broker:
        before = pointers(1)
        assert all(await broker.publish(before))
        unknown.value = "known"
        async with subscribed(broker, prefetch=1, acks=True) as receiver:
            await receiver.wait_for_all(before)
            own = pointers(1)
            assert all(await broker.publish(own))
            await receiver.wait_for_all(own)
    assert observer.foreign_count == 0


def recent_pointers(count: int) -> list[Pointer]:
    return [replace(pointer, published_at=time.time()) for pointer in pointers(count)]


def value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name)


async def shown(deployment: Deployment) -> tuple[int, bool]:
    (state,) = [each for each in await deployment.status.queues() if each.queue == str(EMAIL_LOW)]
    return state.due, state.due_is_exact


async def oldest_wait_s(deployment: Deployment) -> float:
    (state,) = [each for each in await deployment.status.queues() if each.queue == str(EMAIL_LOW)]
    assert state.oldest_wait_s is not None
    return state.oldest_wait_s


async def add_due(connection: Connection, count: int) -> None:
    await connection.execute(
        "INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, queue)"
        " SELECT gen_random_uuid(), now(), now(), now(), now() + interval '1 day', 1, 1, $1"
        " FROM generate_series(1, $2)",
        str(EMAIL_LOW),
        count,
    )


async def until_empty(broker: Broker) -> None:
    """Wait until no message is ready in the queue: those of others were put back and taken."""
    async with asyncio.timeout(TIMEOUT_S):
        while (await broker.depths()).get(EMAIL_LOW, Depth(1, 0)).ready:
            await asyncio.sleep(0.05)
