"""What happens to notifications that a dead worker was sending, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
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
from notifier.domain.due import BEGINNING, DueClass
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import (
    Channel,
    Claimed,
    NewNotification,
    NotificationView,
    Priority,
    Status,
)
from notifier.domain.outcome import Accepted, Outcome
from notifier.domain.retry import AmbiguityRule, OnAmbiguous, RetryPolicy
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import NO_FIGURES, DeadProcess
from notifier.ports.provider import Envelope
from notifier.ports.queries import Filter
from notifier.ports.store import DueRange, DueRead, Orphan, OrphanDecision, SettledOrphan
from notifier.recovery.orphans import ALL_INTERVAL_S, FLOOR_LAG_S, OrphanRecovery
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    QUEUES,
    a_notification,
    a_result,
    claim_request,
    due_ranges,
    row_pointer,
    worker_id,
)
from tests.doubles import FixedProcesses, FixedTerms
from tests.one_worker import REJECTED, reject

POLICY = RetryPolicy(base=timedelta(hours=1), factor=2.0, cap=timedelta(hours=9), tries=5)


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
    leases: FixedTerms = field(default_factory=lambda: FixedTerms({EMAIL_HIGH: 1}))
    processes: FixedProcesses = field(default_factory=FixedProcesses)
    now: float = 0.0
    metrics: Metrics = field(
        default_factory=lambda: Metrics(
            QUEUES, {Channel("email"): ["smtp"]}, version="0", registry=CollectorRegistry()
        )
    )

    def recovery(self, on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND) -> OrphanRecovery:
        return OrphanRecovery(
            store=self.recovering,
            observer=self.metrics,
            leases=self.leases,
            processes=self.processes,
            rules=DeliveryRules(
                bindings={
                    Channel("email"): ProviderBinding(
                        provider=UncalledProvider(),
                        ambiguity=AmbiguityRule(on_ambiguous=on_ambiguous),
                    )
                },
                policies=dict.fromkeys(Priority, POLICY),
            ),
            clock=lambda: self.now,
        )

    def count_reads(self, monkeypatch: pytest.MonkeyPatch) -> list[DueRange]:
        """Return a list to which each read adds its ranges."""
        look, ranges = self.recovering.look, list[DueRange]()

        async def counted(wanted: Sequence[DueRange]) -> DueRead:
            ranges.extend(wanted)
            return await look(wanted)

        monkeypatch.setattr(self.recovering, "look", counted)
        return ranges

    async def beat(self, beat: int) -> None:
        """The dying worker's heartbeat."""
        async with open_heartbeat(ConnectionSettings(url=self.url), self.dying.worker) as heartbeat:
            await heartbeat.beat(kind="worker", host="h", pid=1, beat=beat, figures=NO_FIGURES)

    async def due(self) -> list[Pointer]:
        """The pointers of the unclaimed rows, in the order in which they are published."""
        read = await self.recovering.read_due(due_ranges(EMAIL_HIGH, limit=1000))
        return [row_pointer(row) for row in read.rows if row.claimed_by is None]

    async def claim_one(self, store: PostgresStore) -> Claimed:
        pointer, *_ = await self.due()
        [claimed] = await store.claim([claim_request(pointer)])
        assert isinstance(claimed, Claimed)
        return claimed

    async def claimed_by_dying(self, item: NewNotification | None = None) -> Claimed:
        """A notification that the dying worker has claimed."""
        await self.dying.insert([item or a_notification()])
        return await self.claim_one(self.dying)

    async def claim_all(self, count: int) -> None:
        """Let the dying worker claim many."""
        await self.dying.insert([a_notification() for _ in range(count)])
        await self.dying.claim([claim_request(pointer) for pointer in await self.due()])

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
    assert (attempt.number, attempt.outcome, attempt.code) == (1, "ambiguous", "worker_died")
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
    due = [pointer.id for pointer in await pair.due()]
    assert (len(due), due[0]) == (4, claimed.id)


async def test_two_concurrent_recoveries_settle_each_orphan_once(
    pair: TwoProcesses, database_url: str
) -> None:
    claimed = await pair.claimed_by_dying()
    orphan = Orphan(
        id=claimed.id,
        claim=claimed.claim,
        worker=pair.dying.worker,
        queue=claimed.queue,
        deaths=0,
    )
    decisions = [OrphanDecision(orphan=orphan, provider="smtp", status=Status.QUEUED, reason="")]
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as other:
        async with asyncio.TaskGroup() as group:
            settlements = [
                group.create_task(store.settle_orphans(decisions, []))
                for store in (pair.recovering, other)
            ]
        assert sum(len(settlement.result()) for settlement in settlements) == 1
        assert await other.settle_orphans(decisions, []) == []
    assert len((await pair.view(claimed)).attempts) == 1
    [pointer] = await pair.due()
    assert (pointer.claim, pointer.deaths) == (1, 1)


async def test_without_postgres_a_pass_settles_nothing_and_raises_nothing(
    pair: TwoProcesses, database_url: str
) -> None:
    await pair.claimed_by_dying()
    async with open_proxy_for(database_url) as proxy:
        settings = ConnectionSettings(url=proxy.url(database_url))
        async with open_store(settings, worker_id()) as pair.recovering:
            recovery = pair.recovery()
            proxy.cut()
            assert await recovery.run_once() == 0
            proxy.heal()
            assert await recovery.run_once() == 1


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
    pair.processes.dead_processes = [DeadProcess(pair.dying.worker, 3)]
    await pair.beat(4)
    recovery = pair.recovery()
    assert await recovery.run_once() == 0
    pair.processes.dead_processes = [DeadProcess(pair.dying.worker, 4)]
    assert await recovery.run_once() == 1
    assert (await pair.view(claimed)).status is Status.QUEUED


async def test_a_heartbeat_between_reading_and_settling_orphans_prevents_the_settling(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = await pair.claimed_by_dying()
    await pair.beat(3)
    pair.processes.dead_processes = [DeadProcess(pair.dying.worker, 3)]
    settle = pair.recovering.settle_orphans

    async def beat_first(
        decisions: Sequence[OrphanDecision], dead: Sequence[DeadProcess]
    ) -> Sequence[SettledOrphan]:
        assert [decision.orphan.id for decision in decisions] == [claimed.id]
        await pair.beat(4)
        return await settle(decisions, dead)

    monkeypatch.setattr(pair.recovering, "settle_orphans", beat_first)
    assert await pair.recovery().run_once() == 0
    assert (await pair.view(claimed)).status is Status.SENDING


async def test_a_process_that_may_count_as_dead_itself_settles_nothing(pair: TwoProcesses) -> None:
    await pair.claimed_by_dying()
    pair.processes.is_alive_itself = False
    assert await pair.recovery().run_once() == 0


async def test_the_third_death_is_poison(pair: TwoProcesses) -> None:
    claimed, recovery = await pair.claimed_by_dying(), pair.recovery()
    for _ in range(2):
        assert await recovery.run_once() == 1
        claimed = await pair.claim_one(pair.dying)
    assert await recovery.run_once() == 1
    view = await pair.view(claimed)
    assert (view.status, view.tries) == (Status.FAILED, 0)
    [failed] = (await pair.reader.notifications(Filter(status=(Status.FAILED,)))).views
    assert failed.result is not None
    assert (failed.result.reason, failed.result.code) == ("poison", "worker_died")
    assert failed.tries == 0


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
    [failed] = (await pair.reader.notifications(Filter(status=(Status.FAILED,)))).views
    assert failed.result is not None
    assert (failed.result.reason, failed.tries) == ("ambiguous", 0)


async def test_an_orphan_past_its_time_to_live_expires(
    pair: TwoProcesses, database_url: str
) -> None:
    claimed = await pair.claimed_by_dying()
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE live SET expires_at = now()")
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
    assert [(attempt.number, attempt.outcome, attempt.late) for attempt in view.attempts] == [
        (1, "accepted", True)
    ]
    [settled] = await pair.recovering.record([a_result(again)])
    assert settled.status is Status.SENT


async def test_many_orphans_are_settled_by_500_in_one_pass(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.claim_all(1000)
    settle, sizes = pair.recovering.settle_orphans, list[int]()

    async def counted(
        decisions: Sequence[OrphanDecision], dead: Sequence[DeadProcess]
    ) -> Sequence[SettledOrphan]:
        sizes.append(len(decisions))
        return await settle(decisions, dead)

    monkeypatch.setattr(pair.recovering, "settle_orphans", counted)
    assert await pair.recovery().run_once() == 1000
    assert sizes == [500, 500]


async def test_a_queue_whose_read_fails_keeps_no_other_queue_from_recovery(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.claimed_by_dying()
    pair.leases = FixedTerms({EMAIL_LOW: 1, EMAIL_HIGH: 1})
    recovery, look = pair.recovery(), pair.recovering.look

    async def too_slow(ranges: Sequence[DueRange]) -> DueRead:
        if ranges[0].queue == EMAIL_LOW:
            raise StoreUnavailable("canceling statement due to statement timeout")
        return await look(ranges)

    monkeypatch.setattr(pair.recovering, "look", too_slow)
    assert sum([await recovery.run_once() for _ in range(2)]) == 1


async def test_orphans_behind_more_rows_than_one_read_has_are_found(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.recovery.orphans.READ_ROWS", 3)
    await pair.claim_all(7)
    await pair.recovering.insert([a_notification() for _ in range(4)])
    assert await pair.recovery().run_once() == 7


async def test_the_claims_of_a_process_that_is_alive_are_not_candidates(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.claimed_by_dying()
    pair.processes.live = {pair.dying.worker}
    recovery, reads = pair.recovery(), pair.count_reads(monkeypatch)
    assert await recovery.run_once() == 0
    before = len(reads)
    assert await recovery.run_once() == 0
    assert len(reads) == before


async def test_only_queues_whose_lease_is_held_are_read(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.claimed_by_dying()
    recovery, reads = pair.recovery(), pair.count_reads(monkeypatch)
    pair.leases.terms = {}
    assert await recovery.run_once() == 0
    assert reads == []
    pair.leases.terms = {EMAIL_HIGH: 4}
    assert await recovery.run_once() == 1
    assert {range_.queue for range_ in reads} == {EMAIL_HIGH}


async def test_a_queue_without_orphans_is_read_again_after_an_event_and_once_a_minute(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery, reads = pair.recovery(), pair.count_reads(monkeypatch)

    async def is_read() -> bool:
        reads.clear()
        await recovery.run_once()
        return bool(reads)

    assert await is_read()
    assert not await is_read()
    pair.leases.terms = {EMAIL_HIGH: 2}  # taken over by another process and back
    assert await is_read()
    assert not await is_read()
    pair.processes.departures += 1
    assert await is_read()
    pair.processes.dead_processes = [DeadProcess(pair.dying.worker, 3)]
    assert await is_read()
    assert not await is_read()
    held, pair.leases.terms = pair.leases.terms, {}  # the last renewal is too old
    assert not await is_read()
    pair.leases.terms = held
    assert not await is_read()
    pair.now += FLOOR_LAG_S
    assert await is_read()
    pair.now += FLOOR_LAG_S
    assert not await is_read()
    pair.now += ALL_INTERVAL_S
    assert await is_read()


async def test_an_orphan_whose_process_may_be_alive_is_looked_at_again(
    pair: TwoProcesses,
) -> None:
    """A process that has just started is not known here yet, but it has its row."""
    claimed = await pair.claimed_by_dying()
    await pair.beat(3)
    recovery = pair.recovery()
    assert await recovery.run_once() == 0
    await recovery.run_once()
    async with open_heartbeat(ConnectionSettings(url=pair.url), pair.dying.worker) as heartbeat:
        await heartbeat.leave()
    assert await recovery.run_once() == 1
    assert (await pair.view(claimed)).status is Status.QUEUED


async def test_rows_beyond_the_floor_are_found_as_far_as_rows_are_claimed(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder before had published them, and has not written how far it came."""
    monkeypatch.setattr("notifier.recovery.orphans.READ_ROWS", 3)
    pair.leases.floor = BEGINNING
    await pair.claim_all(7)
    await pair.recovering.insert([a_notification() for _ in range(9)])
    recovery, reads = pair.recovery(), pair.count_reads(monkeypatch)
    assert await recovery.run_once() == 7
    first = [range_ for range_ in reads if range_.due_class is DueClass.FIRST]
    assert len(first) == 4


async def test_orphans_are_found_in_a_turn_that_the_lease_leaves_out(
    pair: TwoProcesses, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A turn of which all rows are claimed counts as empty there."""
    pair.leases.turns = (5,)
    await pair.claim_all(3)
    await connection.execute("UPDATE live SET turn = 5, class = 1")
    assert await pair.recovery().run_once() == 3


async def test_rows_behind_many_unclaimed_ones_beyond_the_floor_are_found_later(
    pair: TwoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.recovery.orphans.READ_ROWS", 3)
    await pair.recovering.insert([a_notification() for _ in range(4)])
    await pair.dying.insert([a_notification()])
    *_, last = await pair.due()
    await pair.dying.claim([claim_request(last)])
    recovery, far = pair.recovery(), pair.leases.floor
    pair.leases.floor = BEGINNING
    assert await recovery.run_once() == 0
    pair.leases.floor = far
    pair.now += FLOOR_LAG_S
    assert await recovery.run_once() == 1


@pytest.mark.parametrize("due_class", DueClass)
async def test_orphans_of_every_class_are_found(
    pair: TwoProcesses, due_class: DueClass, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await pair.claimed_by_dying()
    await connection.execute("UPDATE live SET class = $1", due_class)
    assert await pair.recovery().run_once() == 1


@pytest.mark.parametrize("sqlstate", ["21000", "22003", "23514"])
async def test_an_orphan_that_postgres_refuses_to_settle_harms_no_other(
    pair: TwoProcesses, connection: asyncpg.Connection[asyncpg.Record], sqlstate: str
) -> None:
    await pair.claimed_by_dying(a_notification(max_tries=REJECTED))
    await pair.claim_all(8)
    await connection.execute(reject(sqlstate, "UPDATE", "live", f"NEW.max_tries = {REJECTED}"))
    recovery = pair.recovery()
    assert await recovery.run_once() == 8
    assert await recovery.run_once() == 0
    await connection.execute("DROP TRIGGER reject ON live")
    assert await recovery.run_once() == 1
