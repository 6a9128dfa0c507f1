"""Which published messages count as lost, and what a look does that runs out of time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from prometheus_client import CollectorRegistry

from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.cursor import QueueCursor
from notifier.domain.due import DueClass
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.heartbeat import QueueFigures
from notifier.ports.leases import Progress
from notifier.ports.store import DueRange, DueRead, LiveRow
from notifier.recovery.rescuer import MAX_LOOKED_QUEUES, Rescuer, overdue_before
from tests.builders import EMAIL_HIGH, QUEUES
from tests.doubles import FixedFigures
from tests.publishing import FixedGates
from tests.queue_model import Holder, QueueModel
from tests.virtual_time import run_virtually

NOW = 1000.0


def figures(
    *,
    held: int = 0,
    held_since: float | None = None,
    watermark: float | None = None,
    drained_s: float = 0.0,
) -> QueueFigures:
    return QueueFigures(
        consumers=1,
        held=held,
        held_since=held_since,
        watermark=watermark,
        drained_s=drained_s,
    )


def test_a_slow_backlog_is_not_lost() -> None:
    assert overdue_before([figures(held=3, held_since=10.0)], now=NOW) is None


def test_messages_that_newer_ones_overtook_are_lost() -> None:
    assert overdue_before([figures(watermark=900.0)], now=NOW) == 890.0


def test_messages_that_a_live_worker_holds_are_not_lost() -> None:
    own = figures(watermark=900.0, held=1, held_since=950.0)
    other = figures(held=2, held_since=700.0)
    assert overdue_before([own, other], now=NOW) == 700.0


def test_messages_older_than_the_time_a_queue_is_empty_are_lost() -> None:
    assert overdue_before([figures(drained_s=11.0)], now=NOW) == 990.0


def test_nothing_is_lost_while_a_queue_is_empty_for_a_moment() -> None:
    assert overdue_before([figures(drained_s=9.0)], now=NOW) is None


def test_nothing_is_lost_while_another_worker_holds_messages_of_an_empty_queue() -> None:
    other = figures(held=1, held_since=100.0)
    assert overdue_before([figures(drained_s=60.0), other], now=NOW) is None


def test_a_message_that_any_worker_took_is_evidence() -> None:
    assert overdue_before([figures(), figures(watermark=900.0)], now=NOW) == 890.0
    assert overdue_before([figures(watermark=950.0), figures(watermark=900.0)], now=NOW) == 940.0


def test_a_queue_that_any_worker_saw_empty_is_evidence() -> None:
    assert overdue_before([figures(), figures(drained_s=11.0)], now=NOW) == 990.0


def test_without_workers_there_is_no_evidence() -> None:
    assert overdue_before([], now=NOW) is None


class SilentBroker:
    """The queues of a holder, and a broker that confirms nothing. Implements rescuer.Publisher.

    Implements RelayStore and PeerFigures too.
    """

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.attempted = list[LiveRow]()

    def cursors(self) -> Mapping[QueueKey, QueueCursor]:
        return {EMAIL_HIGH: self.holder.cursor}

    async def publish(self, rows: Sequence[LiveRow], published_at: datetime) -> Collection[LiveRow]:
        assert published_at == self.holder.model.clock
        self.attempted += rows
        await asyncio.sleep(3600)
        return []

    async def read_due(self, ranges: Sequence[DueRange]) -> DueRead:
        return self.holder.model.read(ranges)

    look = read_due

    def peer_queue_figures(self) -> Sequence[Mapping[QueueKey, QueueFigures]]:
        return []


def test_what_a_long_look_has_no_time_to_publish_is_published_by_the_next_pass() -> None:
    model = QueueModel()
    holder = Holder(model)
    early, late = UUID(int=1), UUID(int=2)
    slow = model.begin(ids=[late])
    model.read_clock(slow)
    model.insert(early)
    holder.run_pass()
    for _ in range(2):
        model.advance(7.0)
        holder.run_pass()
    model.commit(slow)
    broker = SilentBroker(holder)
    rescuer = Rescuer(
        store=broker,
        publisher=broker,
        observer=Metrics(QUEUES, {}, version="0", registry=CollectorRegistry()),
        own=FixedFigures(),
        peers=broker,
        gates=FixedGates(),
        clock=lambda: model.now,
    )
    run_virtually(rescuer.run_once())
    assert [row.position.id for row in broker.attempted] == [late]
    holder.run_pass()
    assert model.published == {(early, 0): 1, (late, 0): 1}
    model.advance(0.1)
    holder.run_pass()
    floor = holder.cursor.progress(is_backlogged=False).floor(DueClass.FIRST)
    assert floor == model.rows[early].position


class CountedFigures(Mapping[QueueKey, QueueFigures]):
    """The figures of some queues; counts how often each is read."""

    def __init__(self, queues: Collection[QueueKey]) -> None:
        self._queues = queues
        self.reads = Counter[QueueKey]()

    def __getitem__(self, queue: QueueKey) -> QueueFigures:
        self.reads[queue] += 1
        return figures()

    def __iter__(self) -> Iterator[QueueKey]:
        return iter(self._queues)

    def __len__(self) -> int:
        return len(self._queues)


class IdleQueues:
    """A holder of many queues without rows. Implements what a Rescuer needs."""

    def __init__(self, queues: Collection[QueueKey]) -> None:
        self._cursors = {queue: QueueCursor(queue, Progress(), NOW) for queue in queues}
        self.figures = CountedFigures(queues)

    def cursors(self) -> Mapping[QueueKey, QueueCursor]:
        return self._cursors

    async def publish(self, rows: Sequence[LiveRow], published_at: datetime) -> Collection[LiveRow]:
        raise AssertionError(rows, published_at)

    async def look(self, ranges: Sequence[DueRange]) -> DueRead:
        assert ranges
        return DueRead([], datetime.fromtimestamp(NOW, UTC), 1, 1)

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        return self.figures

    def peer_queue_figures(self) -> Sequence[Mapping[QueueKey, QueueFigures]]:
        return []


def test_a_pass_reads_the_figures_only_of_the_queues_that_it_looks_at() -> None:
    queues = [
        QueueKey(Channel(f"c{number:03}"), Priority.HIGH) for number in range(2 * MAX_LOOKED_QUEUES)
    ]
    idle = IdleQueues(queues)
    rescuer = Rescuer(
        store=idle,
        publisher=idle,
        observer=Metrics(QUEUES, {}, version="0", registry=CollectorRegistry()),
        own=idle,
        peers=idle,
        gates=FixedGates(),
        clock=lambda: NOW,
    )
    run_virtually(rescuer.run_once())
    assert idle.figures.reads.total() == MAX_LOOKED_QUEUES
    run_virtually(rescuer.run_once())
    assert idle.figures.reads == Counter(queues)
