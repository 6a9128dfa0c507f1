"""What a process knows about the others from their heartbeats."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.breaker import ProviderFigures
from notifier.domain.errors import StoreUnavailable
from notifier.domain.features import ALL_FEATURES
from notifier.domain.notification import QueueKey, WorkerId
from notifier.ports.heartbeat import Figures, HeartbeatReply, QueueFigures, WorkerFigures
from notifier.scheduling.cluster.membership import Membership, ProcessIdentity
from notifier.scheduling.cluster.peer_load import PeerLoad
from tests.builders import EMAIL_HIGH, EMAIL_LOW, worker_id
from tests.doubles import FixedFigures


@dataclass
class Table:
    """The heartbeat rows of all processes, and whether they can be reached."""

    rows: dict[WorkerId, WorkerFigures] = field(default_factory=dict)
    is_available: bool = True


class MemoryHeartbeat:
    """One process's heartbeat. Implements ports.heartbeat.Heartbeat."""

    def __init__(self, table: Table, worker: WorkerId) -> None:
        self._table, self._worker = table, worker

    async def beat(
        self, *, kind: str, host: str, pid: int, beat: int, figures: Figures
    ) -> HeartbeatReply:
        self._check()
        others = [row for id_, row in self._table.rows.items() if id_ != self._worker]
        self._table.rows[self._worker] = WorkerFigures(
            id=self._worker,
            kind=kind,
            host=host,
            pid=pid,
            beat=beat,
            age_s=0.0,
            queues=figures.queues,
            providers=figures.providers,
            is_draining=figures.is_draining,
            features=ALL_FEATURES,
        )
        return HeartbeatReply(now=time.time(), others=others)

    async def leave(self) -> None:
        self._check()
        del self._table.rows[self._worker]

    def _check(self) -> None:
        if not self._table.is_available:
            raise StoreUnavailable("away")


def a_queue(
    consumers: int,
    *,
    held: int = 0,
    done_per_s: float = 0.0,
    capacity_per_s: float | None = None,
) -> QueueFigures:
    return QueueFigures(
        consumers=consumers, held=held, done_per_s=done_per_s, capacity_per_s=capacity_per_s
    )


def a_provider(calls: int) -> ProviderFigures:
    return ProviderFigures(calls=calls)


def join(
    table: Table,
    queues: dict[QueueKey, QueueFigures],
    calls: int = 0,
    metrics: Metrics | None = None,
    kind: str = "worker",
) -> Membership:
    id_ = worker_id()
    return Membership(
        MemoryHeartbeat(table, id_),
        identity=ProcessIdentity(id=id_, kind=kind, host="h", pid=1),
        own=FixedFigures(Figures(queues=queues, providers={"smtp": a_provider(calls)})),
        observer=metrics or Metrics((), {}, version="0"),
    )


@pytest.fixture
def table() -> Table:
    return Table()


async def all_beat(*processes: Membership) -> None:
    for _ in range(2):  # the first process read no other row in the first round
        for process in processes:
            await process.run_once()


async def test_a_process_that_is_alone_has_all_consumers(table: Table) -> None:
    alone = join(table, {EMAIL_HIGH: a_queue(3)})
    await alone.run_once()
    assert (alone.share(), alone.peer_load()) == (1.0, {})


async def test_a_process_without_consumers_has_a_share_of_one(table: Table) -> None:
    new = join(table, {})
    await all_beat(new, join(table, {EMAIL_HIGH: a_queue(3)}))
    assert new.share() == 1.0


async def test_the_share_counts_the_consumers_of_all_queues_together(table: Table) -> None:
    small = join(table, {EMAIL_HIGH: a_queue(4), EMAIL_LOW: a_queue(12)})
    large = join(table, {EMAIL_LOW: a_queue(48)})
    api = join(table, {})
    await all_beat(small, large, api)
    assert (small.share(), large.share()) == (0.25, 0.75)


async def test_processes_with_an_api_are_counted_with_this_one(table: Table) -> None:
    api = join(table, {}, kind="api")
    await all_beat(api, join(table, {}, kind="worker"))
    assert api.api_count() == 1
    await all_beat(join(table, {}, kind="api"), join(table, {}, kind="dev"), api)
    assert api.api_count() == 3


async def test_the_load_of_the_peers_is_summed_by_queue(table: Table) -> None:
    own = join(table, {EMAIL_HIGH: a_queue(1, held=9, done_per_s=9.0)})
    ann = join(table, {EMAIL_HIGH: a_queue(1, held=2, done_per_s=3.0)})
    ben = join(table, {EMAIL_HIGH: a_queue(1, held=4), EMAIL_LOW: a_queue(1, done_per_s=5.0)})
    await all_beat(own, ann, ben)
    assert own.peer_load() == {
        EMAIL_HIGH: PeerLoad(6, 3.0, idle=2),
        EMAIL_LOW: PeerLoad(0, 5.0, idle=1),
    }
    assert own.throughput()[EMAIL_HIGH].consumers == 3
    assert own.throughput()[EMAIL_HIGH].drain_per_s == 12.0


async def test_the_capacity_of_a_worker_is_the_mean_of_those_that_may_send(table: Table) -> None:
    own = join(table, {EMAIL_HIGH: a_queue(4, capacity_per_s=300.0, done_per_s=1.0)})
    paused = join(table, {EMAIL_HIGH: a_queue(4, capacity_per_s=0.0, done_per_s=9.0)})
    other = join(table, {EMAIL_HIGH: a_queue(4, capacity_per_s=600.0, done_per_s=1.0)})
    await all_beat(own, paused, other)
    assert own.throughput()[EMAIL_HIGH].worker_capacity_per_s == pytest.approx(400.0)


async def test_a_worker_that_reports_no_capacity_counts_by_its_throughput(table: Table) -> None:
    own = join(table, {EMAIL_HIGH: a_queue(4, capacity_per_s=900.0)})
    old = join(table, {EMAIL_HIGH: a_queue(4, done_per_s=100.0)})
    fresh = join(table, {EMAIL_HIGH: a_queue(4)})
    await all_beat(own, old, fresh)
    assert own.throughput()[EMAIL_HIGH].worker_capacity_per_s == pytest.approx(180.0)


async def test_provider_figures_list_this_process_first(table: Table) -> None:
    own, other = join(table, {}, calls=1), join(table, {}, calls=2)
    await all_beat(other, own)
    assert [report["smtp"].calls for report in own.provider_figures()] == [1, 2]


async def test_a_process_is_registered_after_its_first_successful_heartbeat(table: Table) -> None:
    own = join(table, {})
    table.is_available = False
    await own.run_once()
    assert not own.is_registered()
    table.is_available = True
    await own.run_once()
    assert own.is_registered()
    table.is_available = False
    await own.run_once()
    assert own.is_registered()


async def test_a_process_that_left_is_not_counted_any_more(table: Table) -> None:
    own, other = join(table, {EMAIL_HIGH: a_queue(1)}), join(table, {EMAIL_HIGH: a_queue(1)})
    await all_beat(own, other)
    table.rows = dict(list(table.rows.items())[:1])
    await own.run_once()
    assert (own.workers(), own.dead()) == (1, [])


async def test_during_an_outage_of_postgres_no_process_is_forgotten_or_dead(table: Table) -> None:
    own, other = join(table, {EMAIL_HIGH: a_queue(1)}), join(table, {EMAIL_HIGH: a_queue(3)})
    await all_beat(own, other)
    table.is_available = False
    for _ in range(20):
        await own.run_once()
    assert (own.share(), own.workers(), own.dead()) == (0.25, 2, [])


async def test_the_log_tells_a_recovery_only_after_a_failure(table: Table) -> None:
    with capture_logs() as logs:
        await join(table, {}).run_once()
    assert logs == []
    own = join(table, {})
    with capture_logs() as logs:
        for table.is_available in (False, True):
            await own.run_once()
    assert [entry["event"] for entry in logs] == ["heartbeat_failed", "heartbeat_recovered"]


async def test_a_worker_that_drains_is_no_live_worker(table: Table) -> None:
    draining, other = join(table, {}), join(table, {})
    await all_beat(draining, other)
    assert len(other.live_workers()) == 2
    (id_, _) = table.rows
    draining._own = FixedFigures(Figures(queues={}, providers={}, is_draining=True))
    await all_beat(draining, other)
    assert set(other.live_workers()) == set(draining.live_workers()) == set(table.rows) - {id_}
    assert other.dead() == []


async def test_the_live_workers_are_all_processes_that_send(table: Table) -> None:
    worker, dev, api = (join(table, {}, kind=kind) for kind in ("worker", "dev", "api"))
    await all_beat(worker, dev, api)
    first, second, _ = table.rows
    assert list(worker.live_workers()) == [first, second]
    assert set(dev.live_workers()) == set(api.live_workers()) == {first, second}


async def test_a_worker_is_no_live_worker_before_its_first_heartbeat(table: Table) -> None:
    worker = join(table, {})
    assert not worker.live_workers()
    await worker.run_once()
    assert list(worker.live_workers()) == list(table.rows)


async def test_a_process_that_deletes_its_row_has_left(table: Table) -> None:
    own, other = join(table, {}), join(table, {})
    await all_beat(own, other)
    own_id, other_id = table.rows
    assert (own.departures, own.has_left(other_id), own.has_left(own_id)) == (0, False, False)
    del table.rows[other_id]
    await own.run_once()
    assert (own.departures, own.has_left(other_id), own.has_left(own_id)) == (1, True, False)


async def test_no_process_has_left_before_the_first_heartbeat(table: Table) -> None:
    own = join(table, {})
    table.is_available = False
    await own.run_once()
    assert not own.has_left(worker_id())
    table.is_available = True
    await own.run_once()
    assert own.has_left(worker_id())
