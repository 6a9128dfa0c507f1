"""The allocator on a virtual clock: queues of a whole minute, played in a second or two."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush
from random import Random

import pytest

from notifier.domain.allocation import (
    TICK_S,
    AttemptTiming,
    Holding,
    Move,
    QueueDemand,
    entitlement,
    moves,
)
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.broker import Depth
from notifier.ports.store import Waiting
from notifier.scheduling.consumers.measurements import QueueMeasures

CONSUMERS = 64
WEIGHTS = {Priority.HIGH: 8.0, Priority.MEDIUM: 3.0, Priority.LOW: 1.0}
TARGETS = {Priority.HIGH: 1.0, Priority.MEDIUM: 10.0, Priority.LOW: 60.0}
QUEUES = tuple(
    QueueKey(Channel(channel), priority)
    for channel in ("email", "sms", "push")
    for priority in Priority
)
EMAIL_LOW = QueueKey(Channel("email"), Priority.LOW)
SMS_HIGH = QueueKey(Channel("sms"), Priority.HIGH)


@dataclass
class Side:
    """One queue with its consumers, as the worker sees it."""

    measures: QueueMeasures
    waiting: deque[float] = field(default_factory=deque)
    consumers: int = 0
    busy: int = 0
    sent: int = 0
    short_since: float | None = None


class Pool:
    """64 consumers that move and nine that stand, on a clock that jumps from event to event."""

    def __init__(self, service_s: float, *, seed: int = 1) -> None:
        self.now = 0.0
        self.moved: list[tuple[float, Move]] = []
        self._random = Random(seed)
        self._service_s = service_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.sides = {queue: Side(QueueMeasures(lambda: self.now)) for queue in QUEUES}
        dealt = entitlement(self._demands(), CONSUMERS)
        for queue, side in self.sides.items():
            side.consumers = dealt[queue].consumers
        self.at(TICK_S, self._tick)

    def at(self, when: float, event: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (when, self._count, event))

    def run(self, until: float) -> None:
        while self._events[0][0] <= until:
            self.now, _, event = heappop(self._events)
            event()
        self.now = until

    def arrive(self, queue: QueueKey, count: int = 1) -> None:
        side = self.sides[queue]
        side.waiting.extend([self.now] * count)
        self._start(side)

    def poisson(self, rates: Mapping[QueueKey, float]) -> None:
        for queue, rate in rates.items():
            if rate:
                self.at(self.now + self._random.expovariate(rate), self._next(queue, rate))

    def _next(self, queue: QueueKey, rate: float) -> Callable[[], None]:
        def event() -> None:
            self.arrive(queue)
            self.at(self.now + self._random.expovariate(rate), event)

        return event

    def _start(self, side: Side) -> None:
        while side.waiting and side.busy < side.consumers + 1:
            side.waiting.popleft()
            side.busy += 1
            side.measures.peak.add(side.busy)
            seconds = self._service_s * self._random.uniform(0.7, 1.3)
            self.at(self.now + seconds, self._end(side, seconds))

    def _end(self, side: Side, seconds: float) -> Callable[[], None]:
        def event() -> None:
            side.busy -= 1
            side.sent += 1
            side.measures.finished(AttemptTiming(seconds, answered=True))
            self._start(side)

        return event

    def _tick(self) -> None:
        for side in self.sides.values():
            side.measures.peak.add(side.busy)
            rows = Waiting(due=0, is_ceiling=False, oldest_wait=timedelta(0))
            side.measures.observe(Depth(len(side.waiting), 1), rows, side.busy)
        demands = self._demands()
        allocation = entitlement(demands, CONSUMERS)
        holdings = {demand.queue: self._holding(demand) for demand in demands}
        for move in moves(demands, allocation, holdings):
            assert move.source is not None
            assert move.target is not None
            self.sides[move.source].consumers -= move.count
            self.sides[move.target].consumers += move.count
            self.moved.append((self.now, move))
        for side in self.sides.values():
            self._start(side)
        self.at(self.now + TICK_S * self._random.uniform(0.9, 1.1), self._tick)

    def _demands(self) -> list[QueueDemand]:
        return [
            QueueDemand(
                queue=queue,
                depth=len(side.waiting),
                arrivals_per_s=side.measures.arrivals_per_s,
                service_s=side.measures.service_s,
                target_wait_s=TARGETS[queue.priority],
                weight=WEIGHTS[queue.priority],
                oldest_wait_s=self.now - side.waiting[0] if side.waiting else 0.0,
            )
            for queue, side in self.sides.items()
        ]

    def _holding(self, demand: QueueDemand) -> Holding:
        side, ticks = self.sides[demand.queue], 0
        if demand.is_short(side.consumers + 1, TICK_S):
            side.short_since = self.now if side.short_since is None else side.short_since
            ticks = 1 + int((self.now - side.short_since) / TICK_S)
        else:
            side.short_since = None
        return Holding(
            consumers=side.consumers, peak_use=side.measures.peak.value, short_ticks=ticks
        )

    def moves_between(self, start: float, end: float) -> int:
        return sum(move.count for at, move in self.moved if start <= at < end)

    def sent(self, *queues: QueueKey) -> int:
        return sum(self.sides[queue].sent for queue in queues or QUEUES)


MIXES: dict[str, list[float]] = {
    "even": [1, 1, 1, 1, 1, 1, 1, 1, 1],
    "one queue has four fifths": [40, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25],
    "mostly newsletters": [1, 1, 28, 1, 2, 3, 1, 1, 2],
    "stairs": [1, 2, 3, 4, 5, 6, 7, 8, 9],
    "doubling": [1, 2, 4, 8, 16, 32, 64, 128, 256],
}


def rates(mix: list[float], per_s: float) -> dict[QueueKey, float]:
    return {queue: per_s * share / sum(mix) for queue, share in zip(QUEUES, mix, strict=True)}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
@pytest.mark.parametrize(("service_s", "minutes"), [(0.005, 0.25), (0.02, 1), (0.2, 1)])
def test_steady_load_at_half_capacity_moves_few_after_ten_seconds(
    mix: list[float], service_s: float, minutes: float
) -> None:
    pool = Pool(service_s)
    pool.poisson(rates(mix, 0.5 * CONSUMERS / service_s))
    pool.run(10 + 60 * minutes)
    assert pool.moves_between(10, pool.now) <= 12


def test_five_thousand_low_have_four_fifths_of_the_consumers_after_two_ticks() -> None:
    pool = Pool(0.02)
    pool.run(5)
    pool.arrive(EMAIL_LOW, 5_000)
    pool.run(5 + 2.2 * TICK_S)
    assert pool.sides[EMAIL_LOW].consumers >= 0.8 * CONSUMERS


def test_a_high_one_is_taken_at_once_while_everybody_works_on_low() -> None:
    pool = Pool(0.02)
    pool.arrive(EMAIL_LOW, 50_000)
    pool.run(5)
    pool.arrive(SMS_HIGH)
    assert pool.sides[SMS_HIGH].busy == 1


@pytest.mark.parametrize("high_queues", [1, 3])
@pytest.mark.parametrize("low_queues", [1, 3])
def test_a_flood_of_high_leaves_low_three_percent(high_queues: int, low_queues: int) -> None:
    pool = Pool(0.02)
    high = [queue for queue in QUEUES if queue.priority is Priority.HIGH][:high_queues]
    low = [queue for queue in QUEUES if queue.priority is Priority.LOW][-low_queues:]
    for queue in low:
        pool.arrive(queue, 5_000)
    pool.poisson(dict.fromkeys(high, 1.5 * CONSUMERS / 0.02 / high_queues))
    pool.run(30)
    assert pool.sent(*low) >= 0.03 * pool.sent()


def test_a_batch_skewed_over_nine_queues_takes_as_long_as_in_one_ideal_pool() -> None:
    pool = Pool(0.02)
    sizes = {
        queue: int(200 * share) for queue, share in zip(QUEUES, MIXES["doubling"], strict=True)
    }
    for queue, size in sizes.items():
        pool.arrive(queue, size)
    total = sum(sizes.values())
    pool.run(total * 0.02 / CONSUMERS)
    assert pool.sent() >= 0.97 * total


@pytest.mark.parametrize("hot_for_s", [3, 10])
def test_a_hot_spot_that_wanders_is_followed(hot_for_s: int) -> None:
    """Work for one queue alone, above capacity, then for the next: 64 of 73 can be there."""
    pool = Pool(0.02)
    capacity = CONSUMERS / 0.02
    for turn in range(60 // hot_for_s):
        pool.at(turn * hot_for_s, surge(pool, QUEUES[turn * 4 % 9], int(capacity * hot_for_s)))
    pool.run(60)
    assert pool.sent() >= 0.97 * capacity * 60


def surge(pool: Pool, queue: QueueKey, count: int) -> Callable[[], None]:
    return lambda: pool.arrive(queue, count)
