"""Two workers' breakers over one row in Postgres; their clocks are turned by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.breaker import ProviderFigures
from notifier.domain.controls import BreakerState, Scope, ScopeKind, SendPermission
from notifier.domain.notification import Channel, QueueKey
from notifier.domain.outcome import Accepted, Ambiguous, Outcome, Unavailable
from notifier.scheduling.gates.breakers import Breakers
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES, SMS_HIGH, worker_id

PROVIDERS = {Channel("email"): ["smtp"], Channel("sms"): ["twilio"], Channel("push"): ["fcm"]}
DOWN = Unavailable(code="503")
DENIED = Unavailable(code="401", spends=False)
BUSY = Unavailable(code="no_connection", spends=False, is_local=True)


@dataclass
class Worker:
    """A worker's counts, controls and breakers."""

    store: PostgresControls
    metrics: Metrics
    work: set[QueueKey] = field(default_factory=lambda: {EMAIL_LOW, EMAIL_HIGH, SMS_HIGH})
    others: list[Mapping[str, ProviderFigures]] = field(default_factory=list)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.gates = QueueGates(self.store, queues=QUEUES, providers=PROVIDERS)
        self.breakers = Breakers(
            store=self.store,
            gates=self.gates,
            observer=self.metrics,
            everyone=self._everyone,
            queues=QUEUES,
            has_work=lambda queue: queue in self.work,
            clock=lambda: self.now,
            longest_call_s=20.0,
        )

    def _everyone(self) -> Sequence[Mapping[str, ProviderFigures]]:
        return [self.breakers.figures(), *self.others]

    def hear(self, outcome: Outcome, count: int = 1, queue: QueueKey = EMAIL_HIGH) -> None:
        for _ in range(count):
            self.breakers.on_outcome(queue, "smtp", outcome, self.now)

    async def look(self) -> None:
        await self.gates.run_once()
        await self.breakers.run_once()

    def state(self) -> BreakerState:
        return next(
            (each.state for each in self.gates.snapshot().breakers if each.provider == "smtp"),
            BreakerState.CLOSED,
        )

    def openings(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "notifier_breaker_openings_total", {"provider": "smtp", "reason": reason}
        )

    def permissions(self, *queues: QueueKey) -> list[SendPermission]:
        return [self.gates.permission(queue) for queue in queues]


@asynccontextmanager
async def a_worker(url: str) -> AsyncIterator[Worker]:
    providers = {channel: list(names) for channel, names in PROVIDERS.items()}
    metrics = Metrics(QUEUES, providers, version="0", registry=CollectorRegistry())
    async with open_controls(ConnectionSettings(url=url), worker_id()) as store:
        yield Worker(store, metrics)


@pytest.fixture
async def ann(database_url: str) -> AsyncIterator[Worker]:
    async with a_worker(database_url) as worker:
        yield worker


@pytest.fixture
async def ben(database_url: str) -> AsyncIterator[Worker]:
    async with a_worker(database_url) as worker:
        yield worker


async def may_probe(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE breakers SET probe_at = now()")
    await connection.close()


async def begin_probe(worker: Worker, url: str) -> None:
    worker.hear(DOWN, 20)
    await worker.look()
    await may_probe(url)
    await worker.look()
    assert worker.permissions(EMAIL_HIGH) == [SendPermission.PROBE]


async def test_one_failure_opens_nothing(ann: Worker) -> None:
    ann.hear(DOWN)
    await ann.look()
    ann.now += 60
    await ann.look()
    assert ann.state() is BreakerState.CLOSED


async def test_it_opens_for_all_workers_and_for_its_own_queues_only(
    ann: Worker, ben: Worker
) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    await ben.look()
    assert ben.permissions(EMAIL_HIGH, EMAIL_LOW, SMS_HIGH) == [
        SendPermission.BREAKER_OPEN,
        SendPermission.BREAKER_OPEN,
        SendPermission.ALLOWED,
    ]
    assert (ann.openings("errors"), ben.openings("errors")) == (1, 0)


async def test_it_opens_by_what_all_workers_counted(ann: Worker, ben: Worker) -> None:
    ann.hear(DOWN, 10)
    ben.hear(DOWN, 10)
    await ann.look()
    assert ann.state() is BreakerState.CLOSED
    ann.others = [ben.breakers.figures()]
    await ann.look()
    assert ann.state() is BreakerState.OPEN


async def test_one_worker_probes_with_the_most_urgent_work_and_an_answer_closes(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    await may_probe(database_url)
    for worker in (ann, ben):
        await worker.look()
        await worker.look()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.PROBE,
        SendPermission.BREAKER_OPEN,
    ]
    assert ben.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.BREAKER_OPEN,
        SendPermission.BREAKER_OPEN,
    ]
    ann.now += 1
    ann.hear(Accepted())
    await ann.look()
    await ben.look()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.ALLOWED,
        SendPermission.ALLOWED,
    ]
    assert ben.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.ALLOWED,
        SendPermission.ALLOWED,
    ]


@pytest.mark.parametrize("outcome", [DOWN, Ambiguous(code="timeout")])
async def test_a_probe_that_fails_or_hangs_opens_it_for_longer(
    ann: Worker, database_url: str, outcome: Outcome
) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    await may_probe(database_url)
    await ann.look()
    ann.hear(outcome)
    await ann.look()
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.state, breaker.openings) == (BreakerState.OPEN, 2)
    assert 9 < breaker.probe_in_s <= 10


async def test_a_call_that_began_before_the_probe_settles_nothing(
    ann: Worker, database_url: str
) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    await may_probe(database_url)
    began_at, ann.now = ann.now, ann.now + 5
    await ann.look()
    ann.breakers.on_outcome(EMAIL_HIGH, "smtp", Accepted(), began_at)
    await ann.look()
    assert ann.state() is BreakerState.HALF_OPEN


async def test_nobody_probes_without_work(ann: Worker, database_url: str) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    await may_probe(database_url)
    ann.work = {SMS_HIGH}
    await ann.look()
    assert ann.state() is BreakerState.OPEN


async def test_a_probe_whose_holder_died_is_taken_by_another(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    await may_probe(database_url)
    await ann.look()
    await may_probe(database_url)
    await ben.look()
    await ben.look()
    assert ben.permissions(EMAIL_HIGH) == [SendPermission.PROBE]
    await ann.look()
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.BREAKER_OPEN]


async def test_old_failures_do_not_open_it_again_once_closed(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    for worker in (ann, ben):
        worker.hear(DOWN, 20)
        await worker.look()
        await worker.look()
    await may_probe(database_url)
    await ann.look()
    ann.hear(Accepted())
    await ann.look()
    for worker in (ann, ben):
        await worker.look()
    assert ben.state() is BreakerState.CLOSED


async def test_what_another_said_before_it_ended_does_not_open_it_again(
    ann: Worker, database_url: str
) -> None:
    ann.others = [
        {"smtp": ProviderFigures(calls=40, failures=40, streak=40, streak_s=5.0, answered_s=None)}
    ]
    await begin_probe(ann, database_url)
    ann.hear(Accepted())
    await ann.look()
    for _ in range(3):
        await ann.look()
    assert ann.state() is BreakerState.CLOSED


async def test_a_clock_put_back_leaves_no_breaker_open(ann: Worker, database_url: str) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE breakers SET probe_at = now() + interval '1 hour'")
    await connection.close()
    await ann.look()
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.PROBE]


async def test_what_another_counts_while_it_is_open_does_not_outlast_it(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    ben.hear(DOWN, 20)
    await ben.look()
    ann.hear(Accepted())
    await ann.look()
    ann.others = [ben.breakers.figures()]
    for worker in (ann, ben):
        await worker.look()
    assert ann.state() is BreakerState.CLOSED


async def test_refused_credentials_are_the_reason_and_the_log_says_what_to_do(
    ann: Worker, database_url: str
) -> None:
    ann.hear(DENIED, 20)
    with capture_logs() as logs:
        await ann.look()
        await may_probe(database_url)
        await ann.look()
        ann.hear(DENIED)
        await ann.look()
    opened, probed, stays = [each for each in logs if each["event"].startswith("breaker_")]
    assert (opened["event"], opened["log_level"]) == ("breaker_opened", "error")
    assert (opened["provider"], opened["reason"]) == ("smtp", "credentials")
    assert "credentials" in opened["advice"]
    assert probed["event"] == "breaker_probe_started"
    assert stays["event"] == "breaker_reopened"
    assert stays["advice"] == opened["advice"]
    assert ann.openings("credentials") == 2
    [breaker] = ann.gates.snapshot().breakers
    assert breaker.reason == "credentials"


async def test_the_probe_comes_from_no_paused_queue(ann: Worker, database_url: str) -> None:
    await ann.store.pause(Scope(ScopeKind.QUEUE, "email.high"), reason="test", for_s=None)
    ann.hear(DOWN, 20, EMAIL_LOW)
    await ann.look()
    await may_probe(database_url)
    await ann.look()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [SendPermission.PAUSED, SendPermission.PROBE]


async def test_a_provider_that_is_paused_is_not_probed(ann: Worker, database_url: str) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    await ann.store.pause(Scope(ScopeKind.PROVIDER, "smtp"), reason="test", for_s=None)
    await may_probe(database_url)
    await ann.look()
    assert ann.state() is BreakerState.OPEN


async def test_once_answered_nothing_more_is_sent_until_it_is_settled(
    ann: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    ann.hear(DOWN)
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.BREAKER_OPEN]


@pytest.mark.parametrize(("queue", "outcome"), [(EMAIL_HIGH, BUSY), (EMAIL_LOW, Accepted())])
async def test_only_a_call_of_the_probes_queue_that_asked_the_provider_is_the_probe(
    ann: Worker, database_url: str, queue: QueueKey, outcome: Outcome
) -> None:
    await begin_probe(ann, database_url)
    ann.hear(outcome, queue=queue)
    await ann.look()
    assert ann.state() is BreakerState.HALF_OPEN
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.PROBE]


async def test_a_probe_whose_message_never_came_is_chosen_again_when_its_hold_ends(
    ann: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    ann.work = {EMAIL_LOW}
    await ann.look()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.PROBE,
        SendPermission.BREAKER_OPEN,
    ]
    await may_probe(database_url)
    await ann.look()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.BREAKER_OPEN,
        SendPermission.PROBE,
    ]


async def test_a_hold_whose_confirmation_was_lost_is_used_all_the_same(
    ann: Worker, database_url: str
) -> None:
    ann.hear(DOWN, 20)
    await ann.look()
    await may_probe(database_url)
    assert await ann.store.hold_probe("smtp", 30.0)
    await ann.look()
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.PROBE]


async def test_an_answer_is_kept_until_postgres_is_back(database_url: str) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        a_worker(proxy.url(database_url)) as ann,
    ):
        await begin_probe(ann, database_url)
        proxy.cut()
        ann.hear(Accepted())
        await ann.look()
        assert ann.state() is BreakerState.HALF_OPEN
        proxy.heal()
        await ann.look()
        assert ann.state() is BreakerState.CLOSED


async def test_an_answer_settles_it_at_once_and_the_stop_ends_the_watch(
    ann: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    closed, stop = asyncio.Event(), asyncio.Event()
    ann.gates.on_change(closed.set)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(ann.breakers.run(stop), name="breakers")
        await asyncio.sleep(0)
        ann.hear(Accepted())
        while ann.state() is not BreakerState.CLOSED:
            closed.clear()
            await closed.wait()
        stop.set()
