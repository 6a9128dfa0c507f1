"""What happens to notifications that a dead worker was sending, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.heartbeat import open_heartbeat
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.delivery_rules import DeliveryRules, ProviderBinding
from notifier.domain.notification import (
    Channel,
    Claimed,
    NewNotification,
    NotificationView,
    Priority,
    Status,
)
from notifier.domain.outcome import Accepted, Outcome
from notifier.domain.retry import OnAmbiguous, RetryPolicy
from notifier.ports.heartbeat import NO_FIGURES, DeadProcess
from notifier.ports.provider import Envelope
from notifier.ports.queries import Filter
from notifier.ports.store import OrphanDecision
from notifier.recovery.orphans import OrphanRecovery
from tests.builders import (
    EMAIL_HIGH,
    QUEUES,
    a_notification,
    a_result,
    claim_request,
    quotas,
    worker_id,
)
from tests.doubles import DeadList, FixedLiveness

POLICY = RetryPolicy(base=timedelta(hours=1), factor=2.0, cap=timedelta(hours=9), tries=5)
SOON = timedelta(0)


class UncalledProvider:
    """A provider whose name is used, and which is never called."""

    name = "smtp"

    async def send(self, envelope: Envelope) -> Outcome:
        return Accepted(code=str(envelope.claim))


@dataclass
class TwoProcesses:
    """A dying worker that has claimed rows, and another that recovers them."""

    url: str
    dying: PostgresStore
    recovering: PostgresStore
    reader: PostgresReader
    liveness: FixedLiveness = field(default_factory=FixedLiveness)
    dead: DeadList = field(default_factory=DeadList)
    metrics: Metrics = field(
        default_factory=lambda: Metrics(
            QUEUES, {Channel("email"): ["smtp"]}, version="0", registry=CollectorRegistry()
        )
    )

    def recovery(self, on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND) -> OrphanRecovery:
        return OrphanRecovery(
            store=self.recovering,
            observer=self.metrics,
            processes=self.dead,
            liveness=self.liveness,
            rules=DeliveryRules(
                bindings={
                    Channel("email"): ProviderBinding(
                        provider=UncalledProvider(), on_ambiguous=on_ambiguous
                    )
                },
                policies=dict.fromkeys(Priority, POLICY),
            ),
        )

    async def beat(self, beat: int) -> None:
        """The dying worker's heartbeat."""
        async with open_heartbeat(ConnectionSettings(url=self.url), self.dying.worker) as heartbeat:
            await heartbeat.beat(kind="worker", host="h", pid=1, beat=beat, figures=NO_FIGURES)

    async def claim_one(self, store: PostgresStore) -> Claimed:
        [(pointer, _)] = await store.take_due(quotas(EMAIL_HIGH), 1)
        [claimed] = await store.claim([claim_request(pointer)])
        assert isinstance(claimed, Claimed)
        return claimed

    async def claimed_by_dying(self, item: NewNotification | None = None) -> Claimed:
        """A notification that the dying worker has claimed."""
        await self.dying.insert([item or a_notification()])
        return await self.claim_one(self.dying)

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"notifier_{name}_total", {"queue": "email.high", **labels}
        )

    async def view(self, claimed: Claimed) -> NotificationView:
        found = await self.reader.get(claimed.id)
        assert found is not None
        return found


@pytest.fixture
async def pair(database_url: str) -> AsyncIterator[TwoProcesses]:
    settings = ConnectionSettings(url=database_url)
    async with (
        open_store(settings, worker_id()) as dying,
        open_store(settings, worker_id()) as recovering,
        open_reader(settings) as reader,
    ):
        yield TwoProcesses(database_url, dying, recovering, reader)


async def test_a_worker_without_a_heartbeat_row_is_dead_and_its_sends_are_ambiguous(
    pair: TwoProcesses,
) -> None:
    claimed = await pair.claimed_by_dying()
    assert await pair.recovery().run_once() == 1
    view = await pair.view(claimed)
    assert (view.status, view.tries) == (Status.QUEUED, 0)
    [attempt] = view.attempts
    assert (attempt.claim, attempt.outcome, attempt.code) == (1, "ambiguous", "worker_died")
    assert (await pair.claim_one(pair.recovering)).claim == 2


async def test_a_recovered_orphan_counts_as_a_rescue_and_as_a_retry(pair: TwoProcesses) -> None:
    await pair.claimed_by_dying()
    await pair.recovery().run_once()
    assert pair.counted("rescues", reason="process_died") == 1
    assert pair.counted("retries", reason="ambiguous") == 1


async def test_an_orphan_that_fails_counts_as_finished(pair: TwoProcesses) -> None:
    await pair.claimed_by_dying()
    await pair.recovery(OnAmbiguous.HOLD).run_once()
    assert pair.counted("rescues", reason="process_died") == 1
    assert pair.counted("retries", reason="ambiguous") == 0
    assert pair.counted("finished", status="failed") == 1


async def test_a_recovered_orphan_is_due_at_once_and_before_younger_notifications(
    pair: TwoProcesses,
) -> None:
    claimed = await pair.claimed_by_dying()
    await pair.recovering.insert([a_notification() for _ in range(3)])
    await pair.recovery().run_once()
    first_attempts = quotas(EMAIL_HIGH)[:1]
    taken = [pointer.id for pointer, _ in await pair.recovering.take_due(first_attempts, 500)]
    assert (len(taken), taken[0]) == (4, claimed.id)


async def test_a_process_never_recovers_its_own_claims_even_without_its_row(
    pair: TwoProcesses,
) -> None:
    await pair.claimed_by_dying()
    itself = [DeadProcess(pair.dying.worker, 3)]
    assert await pair.dying.claimed_by_dead(itself) == []
    await pair.beat(3)
    assert await pair.dying.claimed_by_dead(itself) == []


async def test_two_concurrent_recoveries_settle_each_orphan_once(
    pair: TwoProcesses, database_url: str
) -> None:
    claimed = await pair.claimed_by_dying()
    orphans = await pair.recovering.claimed_by_dead([])
    decisions = [
        OrphanDecision(orphan=orphan, provider="smtp", status=Status.QUEUED, reason="")
        for orphan in orphans
    ]
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as other:
        async with asyncio.TaskGroup() as group:
            settlements = [
                group.create_task(store.settle_orphans(decisions, []))
                for store in (pair.recovering, other)
            ]
        assert sum(len(settlement.result()) for settlement in settlements) == 1
        assert await other.settle_orphans(decisions, []) == []
    assert len((await pair.view(claimed)).attempts) == 1
    [(pointer, _)] = await pair.recovering.take_due(quotas(EMAIL_HIGH), 1)
    assert pointer.deaths == 1


async def test_without_postgres_a_pass_settles_nothing_and_raises_nothing(
    pair: TwoProcesses, database_url: str
) -> None:
    await pair.claimed_by_dying()
    async with open_proxy_for(database_url) as proxy:
        settings = ConnectionSettings(url=proxy.url(database_url))
        async with open_store(settings, worker_id()) as pair.recovering:
            proxy.cut()
            assert await pair.recovery().run_once() == 0
            proxy.heal()
            assert await pair.recovery().run_once() == 1


async def test_the_claims_of_a_worker_with_heartbeats_are_left_alone(pair: TwoProcesses) -> None:
    claimed = await pair.claimed_by_dying()
    await pair.beat(3)
    assert await pair.recovery().run_once() == 0
    assert (await pair.view(claimed)).status is Status.SENDING


async def test_a_worker_is_dead_only_while_its_counter_is_the_one_reported(
    pair: TwoProcesses,
) -> None:
    claimed = await pair.claimed_by_dying()
    await pair.beat(3)
    pair.dead.processes = [DeadProcess(pair.dying.worker, 3)]
    await pair.beat(4)
    assert await pair.recovery().run_once() == 0
    pair.dead.processes = [DeadProcess(pair.dying.worker, 4)]
    assert await pair.recovery().run_once() == 1
    assert (await pair.view(claimed)).status is Status.QUEUED


async def test_a_heartbeat_between_reading_and_settling_orphans_prevents_the_settling(
    pair: TwoProcesses,
) -> None:
    claimed = await pair.claimed_by_dying()
    await pair.beat(3)
    dead = [DeadProcess(pair.dying.worker, 3)]
    orphans = await pair.recovering.claimed_by_dead(dead)
    assert [orphan.id for orphan in orphans] == [claimed.id]
    await pair.beat(4)
    pair.dead.processes = dead
    assert await pair.recovery().run_once() == 0
    assert (await pair.view(claimed)).status is Status.SENDING


async def test_a_process_that_may_count_as_dead_itself_settles_nothing(pair: TwoProcesses) -> None:
    await pair.claimed_by_dying()
    pair.liveness.value = False
    assert await pair.recovery().run_once() == 0


async def test_the_third_death_is_poison(pair: TwoProcesses) -> None:
    claimed = await pair.claimed_by_dying()
    for _ in range(2):
        assert await pair.recovery().run_once() == 1
        claimed = await pair.claim_one(pair.dying)
    assert await pair.recovery().run_once() == 1
    view = await pair.view(claimed)
    assert (view.status, view.tries) == (Status.FAILED, 0)
    [failure] = await pair.reader.failures(Filter())
    assert (failure.reason, failure.code, failure.tries) == ("poison", "worker_died", 0)


async def test_a_death_spends_no_try_of_a_notification_with_one_try(pair: TwoProcesses) -> None:
    last = await pair.claimed_by_dying(a_notification(max_tries=1))
    for _ in range(2):
        assert await pair.recovery().run_once() == 1
        last = await pair.claim_one(pair.dying)
        assert (last.tries, last.max_tries) == (0, 1)
    [recorded] = await pair.dying.record([a_result(last)])
    assert (recorded.status, recorded.late) == (Status.SENT, False)
    view = await pair.view(last)
    assert (view.tries, [attempt.outcome for attempt in view.attempts]) == (
        1,
        ["ambiguous", "ambiguous", "accepted"],
    )


async def test_an_orphan_of_a_channel_with_hold_fails_as_ambiguous(pair: TwoProcesses) -> None:
    claimed = await pair.claimed_by_dying()
    await pair.recovery(OnAmbiguous.HOLD).run_once()
    assert (await pair.view(claimed)).status is Status.FAILED
    [failure] = await pair.reader.failures(Filter())
    assert (failure.reason, failure.tries) == ("ambiguous", 0)


async def test_an_orphan_past_its_time_to_live_expires(
    pair: TwoProcesses, database_url: str
) -> None:
    claimed = await pair.claimed_by_dying()
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE notifications SET expires_at = now()")
    await connection.close()
    await pair.recovery().run_once()
    assert (await pair.view(claimed)).status is Status.EXPIRED


async def test_a_late_acceptance_amends_the_attempt_and_settles_a_row_not_claimed_since(
    pair: TwoProcesses,
) -> None:
    claimed = await pair.claimed_by_dying()
    await pair.recovery().run_once()
    [recorded] = await pair.dying.record([a_result(claimed)])
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    [attempt] = (await pair.view(claimed)).attempts
    assert (attempt.outcome, attempt.late) == ("accepted", True)


async def test_a_late_acceptance_does_not_change_a_row_that_another_worker_sends(
    pair: TwoProcesses,
) -> None:
    claimed = await pair.claimed_by_dying()
    await pair.recovery().run_once()
    again = await pair.claim_one(pair.recovering)
    [recorded] = await pair.dying.record([a_result(claimed)])
    assert (recorded.status, recorded.late) == (None, True)
    view = await pair.view(claimed)
    assert view.status is Status.SENDING
    assert [(attempt.claim, attempt.outcome, attempt.late) for attempt in view.attempts] == [
        (1, "accepted", True)
    ]
    [settled] = await pair.recovering.record([a_result(again)])
    assert settled.status is Status.SENT


async def test_many_orphans_are_settled_in_passes_of_500(pair: TwoProcesses) -> None:
    await pair.dying.insert([a_notification() for _ in range(600)])
    pointers = [
        pointer for pointer, _ in await pair.dying.take_due(quotas(EMAIL_HIGH, limit=600), 600)
    ]
    await pair.dying.claim([claim_request(pointer) for pointer in pointers])
    recovery = pair.recovery()
    assert [await recovery.run_once() for _ in range(3)] == [500, 100, 0]
