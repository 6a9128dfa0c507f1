"""What a process knows of the others by their heartbeats."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.breaker import ProviderFigures
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import QueueKey, WorkerId
from notifier.ports.heartbeat import Figures, HeartbeatReply, QueueFigures, WorkerFigures
from notifier.scheduling.cluster.membership import Membership
from notifier.scheduling.cluster.peer_load import PeerLoad
from tests.builders import EMAIL_HIGH, EMAIL_LOW, worker_id


@dataclass
class Table:
    """The rows of all processes, and whether it can be reached."""

    rows: dict[WorkerId, WorkerFigures] = field(default_factory=dict)
    is_there: bool = True


class Heart:
    """One process's side of the table."""

    def __init__(self, table: Table, worker: WorkerId) -> None:
        self._table, self._worker = table, worker

    async def beat(
        self, *, kind: str, host: str, pid: int, beat: int, figures: Figures
    ) -> HeartbeatReply:
        self._look()
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
        )
        return HeartbeatReply(now=time.time(), others=others)

    async def leave(self) -> None:
        self._look()
        del self._table.rows[self._worker]

    def _look(self) -> None:
        if not self._table.is_there:
            raise StoreUnavailable("away")


def a_queue(consumers: int, *, held: int = 0, done_per_s: float = 0.0) -> QueueFigures:
    return QueueFigures(
        consumers=consumers,
        busy=0,
        held=held,
        done=0,
        done_per_s=done_per_s,
        service_s=0.1,
        limited_by="need",
        held_since=None,
        mark=None,
        drained_s=0.0,
    )


def a_provider(calls: int) -> ProviderFigures:
    return ProviderFigures(calls=calls, failures=0, streak=0, streak_s=0.0, answered_s=None)


def joined(
    table: Table,
    queues: dict[QueueKey, QueueFigures],
    calls: int = 0,
    metrics: Metrics | None = None,
) -> Membership:
    return Membership(
        Heart(table, worker_id()),
        kind="worker",
        host="h",
        pid=1,
        mine=lambda: Figures(queues=queues, providers={"smtp": a_provider(calls)}),
        observer=metrics or Metrics((), {}, version="0"),
    )


@pytest.fixture
def table() -> Table:
    return Table()


async def all_beat(*processes: Membership) -> None:
    for _ in range(2):  # the first of them saw nobody at first
        for process in processes:
            await process.run_once()


async def test_whoever_is_alone_has_all_consumers(table: Table) -> None:
    alone = joined(table, {EMAIL_HIGH: a_queue(3)})
    await alone.run_once()
    assert (alone.share(), alone.relay_count(), alone.peer_load()) == (1.0, 1, {})


async def test_one_that_has_no_consumers_yet_takes_itself_for_all(table: Table) -> None:
    new = joined(table, {})
    await all_beat(new, joined(table, {EMAIL_HIGH: a_queue(3)}))
    assert new.share() == 1.0


async def test_a_share_is_of_all_queues_consumers_together(table: Table) -> None:
    small = joined(table, {EMAIL_HIGH: a_queue(4), EMAIL_LOW: a_queue(12)})
    large = joined(table, {EMAIL_LOW: a_queue(48)})
    api = joined(table, {})
    await all_beat(small, large, api)
    assert (small.share(), large.share()) == (0.25, 0.75)
    assert small.relay_count() == 3


async def test_what_the_others_hold_and_do_is_summed_by_queue(table: Table) -> None:
    mine = joined(table, {EMAIL_HIGH: a_queue(1, held=9, done_per_s=9.0)})
    ann = joined(table, {EMAIL_HIGH: a_queue(1, held=2, done_per_s=3.0)})
    ben = joined(table, {EMAIL_HIGH: a_queue(1, held=4), EMAIL_LOW: a_queue(1, done_per_s=5.0)})
    await all_beat(mine, ann, ben)
    assert mine.peer_load() == {EMAIL_HIGH: PeerLoad(6, 3.0), EMAIL_LOW: PeerLoad(0, 5.0)}
    assert mine.throughput()[EMAIL_HIGH].consumers == 3
    assert mine.throughput()[EMAIL_HIGH].drain_per_s == 12.0


async def test_what_all_say_of_the_providers_comes_with_our_own_first(table: Table) -> None:
    mine, other = joined(table, {}, calls=1), joined(table, {}, calls=2)
    await all_beat(other, mine)
    assert [said["smtp"].calls for said in mine.providers()] == [1, 2]


async def test_a_process_is_known_from_its_first_heartbeat_that_arrives(table: Table) -> None:
    mine = joined(table, {})
    table.is_there = False
    await mine.run_once()
    assert not mine.is_registered()
    table.is_there = True
    await mine.run_once()
    assert mine.is_registered()
    table.is_there = False
    await mine.run_once()
    assert mine.is_registered()


async def test_one_that_left_is_gone_at_once(table: Table) -> None:
    mine, other = joined(table, {EMAIL_HIGH: a_queue(1)}), joined(table, {EMAIL_HIGH: a_queue(1)})
    await all_beat(mine, other)
    table.rows = dict(list(table.rows.items())[:1])
    await mine.run_once()
    assert (mine.relay_count(), mine.silent()) == (1, [])


async def test_while_the_table_is_away_nobody_is_forgotten_and_nobody_dead(table: Table) -> None:
    mine, other = joined(table, {EMAIL_HIGH: a_queue(1)}), joined(table, {EMAIL_HIGH: a_queue(3)})
    await all_beat(mine, other)
    table.is_there = False
    for _ in range(20):
        await mine.run_once()
    assert (mine.share(), mine.relay_count(), mine.silent()) == (0.25, 2, [])
