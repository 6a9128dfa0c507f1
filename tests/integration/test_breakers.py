"""Two workers' breakers over one row in Postgres; the test moves their clocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count

import asyncpg
import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.breaker import BreakerRule, ProviderFigures
from notifier.domain.controls import BreakerState, Scope, ScopeKind, SendPermission
from notifier.domain.notification import Channel, QueueKey
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.ports.attempts import EndedCall
from notifier.scheduling.gates.breakers import Breakers
from notifier.scheduling.gates.prober import MAX_THROTTLED_PROBES, Prober
from notifier.scheduling.gates.probes import MAX_UNASKED, Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES, SMS_HIGH, worker_id
from tests.doubles import PermissionChange

PROVIDERS = {Channel("email"): ["smtp"], Channel("sms"): ["twilio"], Channel("push"): ["fcm"]}
DOWN = Unavailable(code="503")
DENIED = Misconfigured(code="401", is_credentials=True)
WRONG_SENDER = Misconfigured(code="550 5.7.1")
REFUSED = Refused(code="554 5.7.1", detail="Relay access denied")
NUMBERS = count(1)
NO_CONNECTION = Unavailable(code="no_connection", is_local=True)
UNSENDABLE = Refused(code="template", is_local=True)


@dataclass
class Worker:
    """A worker's counts, controls and breakers."""

    store: PostgresControls
    metrics: Metrics
    work: set[QueueKey] = field(default_factory=lambda: {EMAIL_LOW, EMAIL_HIGH, SMS_HIGH})
    peers: list[Mapping[str, ProviderFigures]] = field(default_factory=list)
    unanswered: dict[Channel, float] = field(default_factory=dict)
    now: float = 1000.0

    def __post_init__(self) -> None:
        probes = Probes()
        self.gates = QueueGates(
            self.store,
            queues=QUEUES,
            providers=PROVIDERS,
            probes=probes,
            observer=self.metrics,
        )
        prober = Prober(
            store=self.store,
            gates=self.gates,
            probes=probes,
            backlog=self,
            observer=self.metrics,
            clock=lambda: self.now,
            longest_call_s=20.0,
        )
        self.breakers = Breakers(
            store=self.store,
            gates=self.gates,
            prober=prober,
            reports=self,
            calls=self,
            rules={"smtp": BreakerRule(stop_unanswered_s={"email": 10.0})},
            observer=self.metrics,
            clock=lambda: self.now,
        )

    def has_work(self, queue: QueueKey) -> bool:
        return queue in self.work

    def unanswered_s(self, channel: Channel) -> float:
        return self.unanswered.get(channel, 0.0)

    def provider_figures(self) -> Sequence[Mapping[str, ProviderFigures]]:
        return [self.breakers.figures(), *self.peers]

    def record(
        self,
        outcome: Outcome,
        times: int = 1,
        queue: QueueKey = EMAIL_HIGH,
        *,
        recipient: str = "",
        is_repeat: bool = False,
    ) -> None:
        for _ in range(times):
            self.breakers.on_outcome(
                EndedCall(
                    queue=queue,
                    provider="smtp",
                    outcome=outcome,
                    started_at=self.now,
                    recipient=recipient or f"{next(NUMBERS)}@example.com",
                    is_repeat=is_repeat,
                )
            )

    async def check(self) -> None:
        await self.gates.run_once()
        await self.breakers.run_once()

    def state(self) -> BreakerState:
        breakers = self.gates.snapshot().breakers
        return next(
            (breaker.state for breaker in breakers if breaker.provider == "smtp"),
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


async def end_probe_wait(url: str, after: str = "0") -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"UPDATE breakers SET probe_at = now() + interval '{after}'")
    await connection.close()


async def stored_openings(url: str) -> int:
    """How often the breaker opened in a row."""
    connection = await asyncpg.connect(url)
    openings: int = await connection.fetchval("SELECT openings FROM breakers")
    await connection.close()
    return openings


async def stored_wait_s(url: str) -> float:
    """How long the open breaker waits for its next probe, by one clock reading of Postgres."""
    connection = await asyncpg.connect(url)
    wait: timedelta = await connection.fetchval("SELECT probe_at - changed_at FROM breakers")
    await connection.close()
    return wait.total_seconds()


async def begin_probe(worker: Worker, url: str) -> None:
    worker.record(DOWN, 20)
    await worker.check()
    await end_probe_wait(url)
    await worker.check()
    assert worker.permissions(EMAIL_HIGH) == [SendPermission.PROBE]


async def test_one_failure_does_not_open_a_breaker(ann: Worker) -> None:
    ann.record(DOWN)
    await ann.check()
    ann.now += 60
    await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_a_breaker_opens_for_all_workers_and_only_for_the_queues_of_its_provider(
    ann: Worker, ben: Worker
) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await ben.check()
    assert ben.permissions(EMAIL_HIGH, EMAIL_LOW, SMS_HIGH) == [
        SendPermission.BREAKER_OPEN,
        SendPermission.BREAKER_OPEN,
        SendPermission.ALLOWED,
    ]
    assert (ann.openings("errors"), ben.openings("errors")) == (1, 0)


async def test_a_breaker_opens_by_the_counts_of_all_workers_together(
    ann: Worker, ben: Worker
) -> None:
    ann.record(DOWN, 10)
    ben.record(DOWN, 10)
    await ann.check()
    assert ann.state() is BreakerState.CLOSED
    ann.peers = [ben.breakers.figures()]
    await ann.check()
    assert ann.state() is BreakerState.OPEN


async def test_one_worker_probes_from_the_most_urgent_queue_and_an_answer_closes_the_breaker(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await end_probe_wait(database_url)
    for worker in (ann, ben):
        await worker.check()
        await worker.check()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.PROBE,
        SendPermission.BREAKER_OPEN,
    ]
    assert ben.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.BREAKER_OPEN,
        SendPermission.BREAKER_OPEN,
    ]
    ann.now += 1
    ann.record(Accepted())
    await ann.check()
    await ben.check()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.ALLOWED,
        SendPermission.ALLOWED,
    ]
    assert ben.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.ALLOWED,
        SendPermission.ALLOWED,
    ]


@pytest.mark.parametrize("outcome", [DOWN, Ambiguous(code="timeout")])
async def test_a_probe_that_fails_or_hangs_reopens_the_breaker_for_longer(
    ann: Worker, database_url: str, outcome: Outcome
) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await end_probe_wait(database_url)
    await ann.check()
    ann.record(outcome)
    await ann.check()
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.state, await stored_openings(database_url)) == (BreakerState.OPEN, 2)
    assert await stored_wait_s(database_url) == 10


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Accepted(), BreakerState.CLOSED),
        (DOWN, BreakerState.OPEN),
        (Ambiguous(code="stopped"), BreakerState.HALF_OPEN),
    ],
)
async def test_a_worker_that_ends_settles_its_probe_and_begins_no_other(
    ann: Worker, ben: Worker, database_url: str, outcome: Outcome, state: BreakerState
) -> None:
    await begin_probe(ann, database_url)
    await ann.breakers.finish()
    assert ann.state() is BreakerState.HALF_OPEN
    ann.record(outcome)
    await ann.breakers.finish()
    await end_probe_wait(database_url)
    await ann.breakers.finish()
    await ben.gates.run_once()
    assert ben.state() is state


async def test_a_call_that_began_before_the_probe_does_not_close_the_breaker(
    ann: Worker, database_url: str
) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await end_probe_wait(database_url)
    began_at, ann.now = ann.now, ann.now + 5
    await ann.check()
    ann.breakers.on_outcome(
        EndedCall(queue=EMAIL_HIGH, provider="smtp", outcome=Accepted(), started_at=began_at)
    )
    await ann.check()
    assert ann.state() is BreakerState.HALF_OPEN


async def test_no_probe_is_sent_without_work(ann: Worker, database_url: str) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await end_probe_wait(database_url)
    ann.work = {SMS_HIGH}
    await ann.check()
    assert ann.state() is BreakerState.OPEN


async def test_a_probe_whose_holder_died_is_taken_by_another_worker(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await end_probe_wait(database_url)
    await ann.check()
    await end_probe_wait(database_url)
    await ben.check()
    await ben.check()
    assert ben.permissions(EMAIL_HIGH) == [SendPermission.PROBE]
    await ann.check()
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.BREAKER_OPEN]


async def test_old_failures_do_not_reopen_a_closed_breaker(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    for worker in (ann, ben):
        worker.record(DOWN, 20)
        await worker.check()
        await worker.check()
    await end_probe_wait(database_url)
    await ann.check()
    ann.record(Accepted())
    await ann.check()
    for worker in (ann, ben):
        await worker.check()
    assert ben.state() is BreakerState.CLOSED


async def test_the_last_report_of_an_ended_worker_does_not_reopen_a_closed_breaker(
    ann: Worker, database_url: str
) -> None:
    ann.peers = [{"smtp": ProviderFigures(calls=40, failures=40, streak=40, streak_s=5.0)}]
    await begin_probe(ann, database_url)
    ann.record(Accepted())
    await ann.check()
    for _ in range(3):
        await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_a_breaker_closes_again_after_a_clock_was_put_back(
    ann: Worker, database_url: str
) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE breakers SET probe_at = now() + interval '1 hour'")
    await connection.close()
    await ann.check()
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.PROBE]


async def test_failures_counted_while_the_breaker_is_open_do_not_reopen_it(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    ben.record(DOWN, 20)
    await ben.check()
    ann.record(Accepted())
    await ann.check()
    ann.peers = [ben.breakers.figures()]
    for worker in (ann, ben):
        await worker.check()
    assert ann.state() is BreakerState.CLOSED


async def test_refused_credentials_are_the_reason_and_the_log_advises_what_to_do(
    ann: Worker, database_url: str
) -> None:
    ann.record(DENIED, 20)
    with capture_logs() as logs:
        await ann.check()
        await end_probe_wait(database_url)
        await ann.check()
        ann.record(DENIED)
        await ann.check()
    opened, probed, reopened = [entry for entry in logs if entry["event"].startswith("breaker_")]
    assert (opened["event"], opened["log_level"]) == ("breaker_opened", "error")
    assert (opened["provider"], opened["reason"]) == ("smtp", "credentials")
    assert "credentials" in opened["advice"]
    assert probed["event"] == "breaker_probe_started"
    assert reopened["event"] == "breaker_reopened"
    assert reopened["advice"] == opened["advice"]
    assert ann.openings("credentials") == 2
    [breaker] = ann.gates.snapshot().breakers
    assert breaker.reason == "credentials"


async def test_the_probe_is_not_sent_from_a_paused_queue(ann: Worker, database_url: str) -> None:
    await ann.store.pause(Scope(ScopeKind.QUEUE, "email.high"), note="test", for_s=None)
    ann.record(DOWN, 20, EMAIL_LOW)
    await ann.check()
    await end_probe_wait(database_url)
    await ann.check()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [SendPermission.PAUSED, SendPermission.PROBE]


async def test_a_paused_provider_is_not_probed(ann: Worker, database_url: str) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await ann.store.pause(Scope(ScopeKind.PROVIDER, "smtp"), note="test", for_s=None)
    await end_probe_wait(database_url)
    await ann.check()
    assert ann.state() is BreakerState.OPEN


async def test_after_the_probe_nothing_is_sent_until_the_breaker_changes(
    ann: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    ann.record(DOWN)
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.BREAKER_OPEN]


@pytest.mark.parametrize(
    ("queue", "outcome"),
    [(EMAIL_HIGH, NO_CONNECTION), (EMAIL_HIGH, UNSENDABLE), (EMAIL_LOW, Accepted())],
)
async def test_the_probe_is_a_call_from_its_queue_that_reached_the_provider(
    ann: Worker, database_url: str, queue: QueueKey, outcome: Outcome
) -> None:
    await begin_probe(ann, database_url)
    ann.record(outcome, queue=queue)
    await ann.check()
    assert ann.state() is BreakerState.HALF_OPEN
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.PROBE]


async def test_a_probe_without_a_message_is_sent_from_another_queue_when_its_hold_ends(
    ann: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    ann.work = {EMAIL_LOW}
    await ann.check()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.PROBE,
        SendPermission.BREAKER_OPEN,
    ]
    await end_probe_wait(database_url)
    await ann.check()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.BREAKER_OPEN,
        SendPermission.PROBE,
    ]


@pytest.mark.parametrize("is_taken_over", [True, False])
async def test_a_probe_that_is_accepted_after_the_end_of_its_hold_closes_the_breaker(
    ann: Worker, ben: Worker, database_url: str, is_taken_over: bool
) -> None:
    await begin_probe(ann, database_url)
    started_at = ann.now
    await end_probe_wait(database_url)
    ann.now += 31
    await (ben if is_taken_over else ann).check()
    await ann.check()
    assert ann.state() is BreakerState.HALF_OPEN
    ann.now += 4
    ann.breakers.on_outcome(
        EndedCall(queue=EMAIL_HIGH, provider="smtp", outcome=Accepted(), started_at=started_at)
    )
    await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_a_probe_that_hangs_is_followed_by_another_of_its_queue_when_its_hold_ends(
    ann: Worker, database_url: str
) -> None:
    seen: list[SendPermission] = []

    class Listener:
        def permissions_changed(self) -> None:
            seen.extend(ann.permissions(EMAIL_HIGH))

    await begin_probe(ann, database_url)
    ann.gates.add_listener(Listener())
    hanging_since, ann.now = ann.now, ann.now + 31
    await end_probe_wait(database_url, "50 milliseconds")
    await ann.gates.run_once()
    while ann.gates.snapshot().breakers[0].probe_in_s > 0:
        await asyncio.sleep(0.01)
    await ann.breakers.run_once()
    assert seen == [SendPermission.BREAKER_OPEN, SendPermission.PROBE]
    ann.breakers.on_outcome(
        EndedCall(queue=EMAIL_HIGH, provider="smtp", outcome=DOWN, started_at=hanging_since)
    )
    await ann.check()
    assert ann.state() is BreakerState.HALF_OPEN
    ann.record(Accepted())
    await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_a_hold_whose_confirmation_was_lost_is_used(ann: Worker, database_url: str) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await end_probe_wait(database_url)
    assert await ann.store.hold_probe("smtp", 30.0)
    await ann.check()
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.PROBE]


async def test_the_outcome_of_a_probe_is_kept_during_an_outage_of_postgres(
    database_url: str,
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        a_worker(proxy.url(database_url)) as ann,
    ):
        await begin_probe(ann, database_url)
        proxy.cut()
        ann.record(Accepted())
        await ann.check()
        assert ann.state() is BreakerState.HALF_OPEN
        proxy.heal()
        await ann.check()
        assert ann.state() is BreakerState.CLOSED


async def test_the_running_check_closes_the_breaker_at_once_after_the_probe_and_ends_at_stop(
    ann: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    changed, stop = PermissionChange(), asyncio.Event()
    ann.gates.add_listener(changed)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(ann.breakers.run(stop), name="breakers")
        await asyncio.sleep(0)
        ann.record(Accepted())
        while ann.state() is not BreakerState.CLOSED:
            changed.clear()
            await changed.wait()
        stop.set()


async def test_wrong_settings_open_the_breaker_with_advice_and_are_no_error_of_the_provider(
    ann: Worker,
) -> None:
    with capture_logs() as logs:
        ann.record(WRONG_SENDER, 3)
        ann.now += 1
        await ann.check()
    [opened] = [entry for entry in logs if entry["event"] == "breaker_opened"]
    assert (opened["log_level"], opened["reason"]) == ("error", "configuration")
    assert "settings" in opened["advice"]
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.reason, breaker.code) == ("configuration", "550 5.7.1")


async def test_what_some_notifications_do_not_have_does_not_stop_the_others(
    ann: Worker, ben: Worker
) -> None:
    """Tokens of one platform are refused (wrong key for it), those of the other are accepted."""
    for _ in range(40):
        ben.record(Accepted())
        ann.record(DENIED, is_repeat=True)
        ann.record(DENIED)
        for worker in (ann, ben):
            worker.now += 0.4
        ann.peers = [ben.breakers.figures()]
        await ann.check()
        assert ann.state() is BreakerState.CLOSED
    ann.now += 60
    ann.peers = [{"smtp": msgspec.structs.replace(ben.breakers.figures()["smtp"], accepted_s=60)}]
    ann.record(DENIED, 4, is_repeat=True)
    ann.now += 2
    await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_twenty_refusals_in_a_row_cost_twenty_messages_and_not_a_campaign(
    ann: Worker, database_url: str
) -> None:
    ann.record(REFUSED, 20)
    assert ann.breakers.judge("smtp", REFUSED) == REFUSED
    ann.record(REFUSED)
    assert isinstance(ann.breakers.judge("smtp", REFUSED), Misconfigured)
    await ann.check()
    assert isinstance(ann.breakers.judge("smtp", REFUSED), Misconfigured)
    assert ann.breakers.judge("twilio", REFUSED) == REFUSED
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.reason, breaker.code) == ("refusals", "554 5.7.1")
    await end_probe_wait(database_url)
    await ann.check()
    ann.record(REFUSED)
    await ann.check()
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "refusals")
    await end_probe_wait(database_url)
    await ann.check()
    ann.now += 1
    ann.record(Accepted(), queue=EMAIL_LOW)
    await ann.check()
    assert ann.state() is BreakerState.CLOSED
    assert ann.breakers.judge("smtp", REFUSED) == REFUSED


async def test_refusals_of_one_recipient_or_between_acceptances_open_nothing(
    ann: Worker, ben: Worker
) -> None:
    ann.record(REFUSED, 100, recipient="gone@example.com")
    ann.record(REFUSED, 18)
    await ann.check()
    ann.record(Accepted())
    ann.record(REFUSED, 19)
    await ann.check()
    ann.now += 1
    ben.record(Accepted())
    ann.peers = [ben.breakers.figures()]
    await ann.check()
    ann.record(REFUSED, 19)
    await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_notifications_that_cannot_be_sent_open_a_breaker_and_settle_no_probe(
    ann: Worker, database_url: str
) -> None:
    ann.record(UNSENDABLE, 20)
    assert ann.breakers.judge("smtp", UNSENDABLE) == UNSENDABLE
    await ann.check()
    assert ann.gates.opening("smtp") == "refusals"
    assert isinstance(ann.breakers.judge("smtp", UNSENDABLE), Misconfigured)
    await end_probe_wait(database_url)
    await ann.check()
    ann.record(UNSENDABLE, 80)
    await ann.check()
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.PROBE]
    ann.record(Accepted())
    await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_a_queue_whose_notifications_cannot_be_sent_leaves_the_probe_to_the_next_queue(
    ann: Worker, database_url: str
) -> None:
    await begin_probe(ann, database_url)
    ann.record(UNSENDABLE, MAX_UNASKED - 1)
    await ann.check()
    assert ann.permissions(EMAIL_HIGH) == [SendPermission.PROBE]
    ann.record(UNSENDABLE)
    await ann.check()
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "errors")
    await end_probe_wait(database_url)
    await ann.check()
    assert ann.permissions(EMAIL_HIGH, EMAIL_LOW) == [
        SendPermission.BREAKER_OPEN,
        SendPermission.PROBE,
    ]


async def test_refusals_are_counted_over_all_workers(ann: Worker, ben: Worker) -> None:
    ann.record(REFUSED, 10)
    ben.record(REFUSED, 10)
    ann.peers = [ben.breakers.figures()]
    await ann.check()
    assert ann.state() is BreakerState.OPEN


async def test_a_provider_that_only_throttles_rests_for_a_span_that_doubles_until_it_accepts(
    ann: Worker, database_url: str
) -> None:
    ann.record(Throttled(code="429"), 5)
    await ann.check()
    waits = []
    for _ in range(4):
        [breaker] = ann.gates.snapshot().breakers
        assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "throttled")
        waits.append(await stored_wait_s(database_url))
        await end_probe_wait(database_url)
        await ann.check()
        for _ in range(MAX_THROTTLED_PROBES):
            assert ann.state() is BreakerState.HALF_OPEN
            ann.now += 1
            for queue in (EMAIL_HIGH, EMAIL_LOW):
                ann.record(Throttled(code="429"), queue=queue)
            await ann.check()
    assert waits == [1, 2, 4, 8]
    await end_probe_wait(database_url)
    await ann.check()
    ann.now += 1
    for queue in (EMAIL_HIGH, EMAIL_LOW):
        ann.record(Accepted(), queue=queue)
    await ann.check()
    assert ann.state() is BreakerState.CLOSED


@pytest.mark.parametrize(("asked_s", "rest_s"), [(7, 7), (3600, 900)])
async def test_a_provider_rests_for_as_long_as_it_asked_for_at_most_15_minutes(
    ann: Worker, ben: Worker, database_url: str, asked_s: int, rest_s: int
) -> None:
    ann.record(Throttled(code="429", after=timedelta(seconds=asked_s)))
    await ann.check()
    await ben.check()
    [breaker] = ben.gates.snapshot().breakers
    assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "throttled")
    assert await stored_wait_s(database_url) == rest_s
    assert ben.permissions(EMAIL_HIGH) == [SendPermission.BREAKER_OPEN]
    await ben.check()
    assert ben.state() is BreakerState.OPEN


async def test_a_throttled_probe_of_a_provider_that_refused_all_is_not_followed_by_the_next_one(
    ann: Worker, ben: Worker, database_url: str
) -> None:
    ann.record(REFUSED, 20)
    await ann.check()
    await end_probe_wait(database_url)
    await ann.check()
    ann.now += 1
    ann.record(Throttled(code="429", after=timedelta(minutes=10)))
    await ann.check()
    for worker in (ann, ben):
        await worker.check()
        assert worker.permissions(EMAIL_HIGH) == [SendPermission.BREAKER_OPEN]
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.reason, round(breaker.probe_in_s)) == ("refusals", 60)


@pytest.mark.parametrize("blamed", [WRONG_SENDER, DENIED])
async def test_after_many_refusals_a_misconfigured_probe_changes_the_code_and_not_the_reason(
    ann: Worker, database_url: str, blamed: Misconfigured
) -> None:
    ann.record(REFUSED, 20)
    await ann.check()
    for outcome in (blamed, REFUSED):
        await end_probe_wait(database_url)
        await ann.check()
        ann.now += 1
        [queue] = [
            queue
            for queue in (EMAIL_HIGH, EMAIL_LOW)
            if ann.permissions(queue) == [SendPermission.PROBE]
        ]
        ann.record(outcome, queue=queue)
        await ann.check()
        [breaker] = ann.gates.snapshot().breakers
        assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "refusals")
        assert breaker.code == outcome.code


async def test_a_provider_that_throttles_one_recipient_does_not_rest(ann: Worker) -> None:
    ann.record(Accepted())
    for _ in range(20):
        ann.now += 3
        ann.record(Throttled(code="429"), recipient="one@example.com")
        await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_throttled_calls_among_accepted_ones_leave_the_provider_open(ann: Worker) -> None:
    for _ in range(20):
        ann.record(Throttled(code="429"), 13)
        ann.record(Accepted())
        ann.record(Throttled(code="429"), 13)
        await ann.check()
        ann.now += 0.1
    assert ann.state() is BreakerState.CLOSED


async def test_calls_without_an_answer_open_the_breaker_and_any_answer_closes_it(
    ann: Worker, ben: Worker
) -> None:
    began_at = ann.now
    ann.unanswered = {Channel("email"): 9.9}
    await ann.check()
    assert ann.state() is BreakerState.CLOSED
    ann.unanswered = {Channel("email"): 10.0}
    await ann.check()
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "unanswered")
    await ben.check()
    ben.breakers.on_outcome(
        EndedCall(queue=EMAIL_LOW, provider="smtp", outcome=Accepted(), started_at=began_at)
    )
    await ben.check()
    assert ben.state() is BreakerState.CLOSED
    await ann.check()
    assert ann.state() is BreakerState.CLOSED  # its calls are as old as before


async def test_calls_that_others_have_answered_open_no_breaker(ann: Worker, ben: Worker) -> None:
    ben.record(Accepted())
    ann.peers = [ben.breakers.figures()]
    ann.unanswered = {Channel("email"): 60.0}
    await ann.check()
    assert ann.state() is BreakerState.CLOSED


async def test_after_a_failed_probe_another_queue_sends_the_next_one(
    ann: Worker, database_url: str
) -> None:
    ann.record(DENIED, 20)
    await ann.check()
    queues = []
    for _ in range(4):
        await end_probe_wait(database_url)
        await ann.check()
        [queue] = [
            queue
            for queue in (EMAIL_HIGH, EMAIL_LOW)
            if ann.permissions(queue) == [SendPermission.PROBE]
        ]
        queues.append(queue)
        ann.now += 1
        ann.record(DENIED, queue=queue)
        await ann.check()
    assert queues == [EMAIL_HIGH, EMAIL_LOW, EMAIL_HIGH, EMAIL_LOW]


async def test_a_breaker_keeps_its_first_reason_and_the_last_code(
    ann: Worker, database_url: str
) -> None:
    ann.record(DOWN, 20)
    await ann.check()
    await end_probe_wait(database_url)
    await ann.check()
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.state, breaker.reason) == (BreakerState.HALF_OPEN, "errors")
    ann.record(Ambiguous(code="timeout"))
    await ann.check()
    [breaker] = ann.gates.snapshot().breakers
    assert (breaker.state, breaker.reason, breaker.code) == (BreakerState.OPEN, "errors", "timeout")
    assert (ann.openings("errors"), ann.openings("probe")) == (1, 1)
