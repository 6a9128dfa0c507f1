"""What a dead worker was sending, on a real Postgres."""

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
    WorkerId,
)
from notifier.domain.outcome import Accepted, Outcome
from notifier.domain.retry import OnAmbiguous, RetryPolicy
from notifier.ports.heartbeat import Figures
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

POLICY = RetryPolicy(base=timedelta(hours=1), factor=2.0, cap=timedelta(hours=9), tries=5)
SOON = timedelta(0)


class Nobody:
    """A provider that is named and never called."""

    name = "smtp"

    async def send(self, envelope: Envelope) -> Outcome:
        return Accepted(code=str(envelope.claim))


@dataclass
class Alive:
    is_so: bool = True

    def is_alive(self) -> bool:
        return self.is_so

    async def wait_until_alive(self) -> None:
        return


@dataclass
class Scene:
    """One worker that sends and dies, and one that looks after it."""

    url: str
    dying: PostgresStore
    mine: PostgresStore
    reader: PostgresReader
    liveness: Alive = field(default_factory=Alive)
    silent: list[tuple[WorkerId, int]] = field(default_factory=list)
    metrics: Metrics = field(
        default_factory=lambda: Metrics(
            QUEUES, {Channel("email"): ["smtp"]}, version="0", registry=CollectorRegistry()
        )
    )

    def rescuer(self, on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND) -> OrphanRecovery:
        return OrphanRecovery(
            store=self.mine,
            observer=self.metrics,
            silent=lambda: self.silent,
            liveness=self.liveness,
            rules=DeliveryRules(
                bindings={
                    Channel("email"): ProviderBinding(provider=Nobody(), on_ambiguous=on_ambiguous)
                },
                policies=dict.fromkeys(Priority, POLICY),
            ),
        )

    async def beat(self, beat: int) -> None:
        """The dying worker's heartbeat."""
        async with open_heartbeat(ConnectionSettings(url=self.url), self.dying.worker) as heartbeat:
            await heartbeat.beat(
                kind="worker", host="h", pid=1, beat=beat, figures=Figures(queues={}, providers={})
            )

    async def taken(self, store: PostgresStore) -> Claimed:
        [(pointer, _)] = await store.take_due(quotas(EMAIL_HIGH), 1)
        [claimed] = await store.claim([claim_request(pointer)])
        assert isinstance(claimed, Claimed)
        return claimed

    async def sending(self, item: NewNotification | None = None) -> Claimed:
        """A notification that the dying worker has claimed."""
        await self.dying.insert([item or a_notification()])
        return await self.taken(self.dying)

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"notifier_{name}_total", {"queue": "email.high", **labels}
        )

    async def view(self, claimed: Claimed) -> NotificationView:
        found = await self.reader.get(claimed.id)
        assert found is not None
        return found


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    link = ConnectionSettings(url=database_url)
    async with (
        open_store(link, worker_id()) as dying,
        open_store(link, worker_id()) as mine,
        open_reader(link) as reader,
    ):
        yield Scene(database_url, dying, mine, reader)


async def test_without_a_heartbeat_row_it_is_dead_and_its_sends_are_ambiguous(scene: Scene) -> None:
    claimed = await scene.sending()
    assert await scene.rescuer().run_once() == 1
    view = await scene.view(claimed)
    assert (view.status, view.tries) == (Status.QUEUED, 1)
    [attempt] = view.attempts
    assert (attempt.claim, attempt.outcome, attempt.code) == (1, "ambiguous", "worker_died")
    assert (await scene.taken(scene.mine)).claim == 2


async def test_what_is_taken_up_is_counted_as_a_rescue_and_as_a_retry(scene: Scene) -> None:
    await scene.sending()
    await scene.rescuer().run_once()
    assert scene.counted("rescues", reason="process_died") == 1
    assert scene.counted("retries", reason="ambiguous") == 1


async def test_what_fails_with_its_worker_is_counted_as_finished(scene: Scene) -> None:
    await scene.sending()
    await scene.rescuer(OnAmbiguous.HOLD).run_once()
    assert scene.counted("rescues", reason="process_died") == 1
    assert scene.counted("retries", reason="ambiguous") == 0
    assert scene.counted("finished", status="failed") == 1


async def test_it_is_due_at_once_and_stands_where_it_stood_before_younger_ones(
    scene: Scene,
) -> None:
    claimed = await scene.sending()
    await scene.mine.insert([a_notification() for _ in range(3)])
    await scene.rescuer().run_once()
    first_attempts = quotas(EMAIL_HIGH)[:1]
    taken = [pointer.id for pointer, _ in await scene.mine.take_due(first_attempts, 500)]
    assert (len(taken), taken[0]) == (4, claimed.id)


async def test_nobody_takes_up_its_own_not_even_when_its_own_row_is_gone(scene: Scene) -> None:
    await scene.sending()
    itself = [(scene.dying.worker, 3)]
    assert await scene.dying.claimed_by_dead(itself) == []
    await scene.beat(3)
    assert await scene.dying.claimed_by_dead(itself) == []


async def test_two_that_look_at_once_take_each_row_up_once(scene: Scene, database_url: str) -> None:
    claimed = await scene.sending()
    orphans = await scene.mine.claimed_by_dead([])
    deaths = [
        OrphanDecision(orphan=o, provider="smtp", status=Status.QUEUED, reason="") for o in orphans
    ]
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as other:
        async with asyncio.TaskGroup() as group:
            burials = [
                group.create_task(store.settle_orphans(deaths, [])) for store in (scene.mine, other)
            ]
        assert sum(len(burial.result()) for burial in burials) == 1
        assert await other.settle_orphans(deaths, []) == []
    assert (await scene.view(claimed)).tries == 1


async def test_without_postgres_a_pass_takes_up_nothing_and_raises_nothing(
    scene: Scene, database_url: str
) -> None:
    await scene.sending()
    async with open_proxy_for(database_url) as proxy:
        link = ConnectionSettings(url=proxy.url(database_url))
        async with open_store(link, worker_id()) as scene.mine:
            proxy.cut()
            assert await scene.rescuer().run_once() == 0
            proxy.heal()
            assert await scene.rescuer().run_once() == 1


async def test_one_that_beats_is_left_alone(scene: Scene) -> None:
    claimed = await scene.sending()
    await scene.beat(3)
    assert await scene.rescuer().run_once() == 0
    assert (await scene.view(claimed)).status is Status.SENDING


async def test_one_whose_counter_stands_is_dead_and_one_that_moved_on_is_not(scene: Scene) -> None:
    claimed = await scene.sending()
    await scene.beat(3)
    scene.silent = [(scene.dying.worker, 3)]
    await scene.beat(4)
    assert await scene.rescuer().run_once() == 0
    scene.silent = [(scene.dying.worker, 4)]
    assert await scene.rescuer().run_once() == 1
    assert (await scene.view(claimed)).status is Status.QUEUED


async def test_one_that_beats_between_the_look_and_the_burial_is_left_alone(scene: Scene) -> None:
    claimed = await scene.sending()
    await scene.beat(3)
    silent = [(scene.dying.worker, 3)]
    orphans = await scene.mine.claimed_by_dead(silent)
    assert [orphan.id for orphan in orphans] == [claimed.id]
    await scene.beat(4)
    scene.silent = silent
    assert await scene.rescuer().run_once() == 0
    assert (await scene.view(claimed)).status is Status.SENDING


async def test_whoever_may_be_dead_itself_buries_nobody(scene: Scene) -> None:
    await scene.sending()
    scene.liveness.is_so = False
    assert await scene.rescuer().run_once() == 0


async def test_the_third_death_is_poison(scene: Scene) -> None:
    claimed = await scene.sending()
    for _ in range(2):
        assert await scene.rescuer().run_once() == 1
        claimed = await scene.taken(scene.dying)
    assert await scene.rescuer().run_once() == 1
    view = await scene.view(claimed)
    assert (view.status, view.tries) == (Status.FAILED, 3)
    [failure] = await scene.reader.failures(Filter())
    assert (failure.reason, failure.code, failure.tries) == ("poison", "worker_died", 3)


async def test_the_third_death_is_poison_also_when_it_was_the_last_try(scene: Scene) -> None:
    await scene.sending(a_notification(max_tries=3))
    for _ in range(2):
        assert await scene.rescuer().run_once() == 1
        await scene.taken(scene.dying)
    await scene.rescuer().run_once()
    [failure] = await scene.reader.failures(Filter())
    assert failure.reason == "poison"


async def test_under_hold_it_fails_as_ambiguous(scene: Scene) -> None:
    claimed = await scene.sending()
    await scene.rescuer(OnAmbiguous.HOLD).run_once()
    assert (await scene.view(claimed)).status is Status.FAILED
    [failure] = await scene.reader.failures(Filter())
    assert failure.reason == "ambiguous"


async def test_the_last_try_that_died_with_its_worker_is_exhausted(scene: Scene) -> None:
    await scene.sending(a_notification(max_tries=1))
    await scene.rescuer().run_once()
    [failure] = await scene.reader.failures(Filter())
    assert failure.reason == "exhausted"


async def test_what_would_wait_past_its_time_expires(scene: Scene, database_url: str) -> None:
    claimed = await scene.sending()
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE notifications SET expires_at = now()")
    await connection.close()
    await scene.rescuer().run_once()
    assert (await scene.view(claimed)).status is Status.EXPIRED


async def test_a_late_acceptance_amends_the_attempt_and_settles_a_row_not_taken_since(
    scene: Scene,
) -> None:
    claimed = await scene.sending()
    await scene.rescuer().run_once()
    [recorded] = await scene.dying.record([a_result(claimed)])
    assert (recorded.status, recorded.late) == (Status.SENT, True)
    [attempt] = (await scene.view(claimed)).attempts
    assert (attempt.outcome, attempt.late) == ("accepted", True)


async def test_a_late_acceptance_leaves_a_row_alone_that_another_sends(scene: Scene) -> None:
    claimed = await scene.sending()
    await scene.rescuer().run_once()
    again = await scene.taken(scene.mine)
    [recorded] = await scene.dying.record([a_result(claimed)])
    assert (recorded.status, recorded.late) == (None, True)
    view = await scene.view(claimed)
    assert view.status is Status.SENDING
    assert [(each.claim, each.outcome, each.late) for each in view.attempts] == [
        (1, "accepted", True)
    ]
    [settled] = await scene.mine.record([a_result(again)])
    assert settled.status is Status.SENT


async def test_many_dead_with_many_rows_are_taken_up_in_passes_of_500(scene: Scene) -> None:
    await scene.dying.insert([a_notification() for _ in range(600)])
    pointers = [
        pointer for pointer, _ in await scene.dying.take_due(quotas(EMAIL_HIGH, limit=600), 600)
    ]
    await scene.dying.claim([claim_request(pointer) for pointer in pointers])
    rescuer = scene.rescuer()
    assert [await rescuer.run_once() for _ in range(3)] == [500, 100, 0]
