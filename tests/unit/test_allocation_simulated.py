"""The allocator on a virtual clock: a minute of load is simulated in one or two seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush
from random import Random

import pytest

from notifier.domain.allocation.demand import TICK_S, QueueDemand
from notifier.domain.allocation.entitlement import allocate
from notifier.domain.allocation.moves import Assignment, Move, plan_moves
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.domain.timing import AttemptTiming
from notifier.ports.broker import Depth
from notifier.ports.store import Waiting
from notifier.scheduling.consumers.measurements import QueueMeasurements

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
class SimulatedQueue:
    """One queue with its consumers, as the worker measures it."""

    measurements: QueueMeasurements
    waiting: deque[float] = field(default_factory=deque)
    consumers: int = 0
    busy: int = 0
    sent: int = 0
    short_since: float | None = None


class Pool:
    """64 floating consumers and nine reserved ones, on a clock that jumps from event to event."""

    def __init__(self, service_s: float, *, seed: int = 1) -> None:
        self.now = 0.0
        self.moved: list[tuple[float, Move]] = []
        self._random = Random(seed)
        self._service_s = service_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.queues = {
            queue: SimulatedQueue(QueueMeasurements(lambda: self.now)) for queue in QUEUES
        }
        allocation = allocate(self._demands(), CONSUMERS)
        for queue, state in self.queues.items():
            state.consumers = allocation[queue].consumers
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
        state = self.queues[queue]
        state.waiting.extend([self.now] * count)
        self._start(state)

    def poisson(self, rates: Mapping[QueueKey, float]) -> None:
        for queue, rate in rates.items():
            if rate:
                self.at(self.now + self._random.expovariate(rate), self._next(queue, rate))

    def _next(self, queue: QueueKey, rate: float) -> Callable[[], None]:
        def event() -> None:
            self.arrive(queue)
            self.at(self.now + self._random.expovariate(rate), event)

        return event

    def _start(self, state: SimulatedQueue) -> None:
        while state.waiting and state.busy < state.consumers + 1:
            state.waiting.popleft()
            state.busy += 1
            state.measurements.peak_use.add(state.busy)
            seconds = self._service_s * self._random.uniform(0.7, 1.3)
            self.at(self.now + seconds, self._end(state, seconds))

    def _end(self, state: SimulatedQueue, seconds: float) -> Callable[[], None]:
        def event() -> None:
            state.busy -= 1
            state.sent += 1
            state.measurements.attempt_finished(AttemptTiming(seconds, answered=True))
            self._start(state)

        return event

    def _tick(self) -> None:
        for state in self.queues.values():
            state.measurements.peak_use.add(state.busy)
            rows = Waiting(due=0, is_ceiling=False, oldest_wait=timedelta(0))
            state.measurements.observe(Depth(len(state.waiting), 1), rows, state.busy)
        demands = self._demands()
        allocation = allocate(demands, CONSUMERS)
        assignments = {demand.queue: self._assignment(demand) for demand in demands}
        for move in plan_moves(demands, allocation, assignments):
            assert isinstance(move.source, QueueKey)
            assert isinstance(move.target, QueueKey)
            self.queues[move.source].consumers -= move.count
            self.queues[move.target].consumers += move.count
            self.moved.append((self.now, move))
        for state in self.queues.values():
            self._start(state)
        self.at(self.now + TICK_S * self._random.uniform(0.9, 1.1), self._tick)

    def _demands(self) -> list[QueueDemand]:
        return [
            QueueDemand(
                queue=queue,
                depth=len(state.waiting),
                arrivals_per_s=state.measurements.arrivals_per_s,
                service_s=state.measurements.service_s,
                target_wait_s=TARGETS[queue.priority],
                weight=WEIGHTS[queue.priority],
                oldest_wait_s=self.now - state.waiting[0] if state.waiting else 0.0,
            )
            for queue, state in self.queues.items()
        ]

    def _assignment(self, demand: QueueDemand) -> Assignment:
        state, ticks = self.queues[demand.queue], 0
        if demand.is_short(state.consumers + 1, TICK_S):
            state.short_since = self.now if state.short_since is None else state.short_since
            ticks = 1 + int((self.now - state.short_since) / TICK_S)
        else:
            state.short_since = None
        return Assignment(
            consumers=state.consumers, peak_use=state.measurements.peak_use.value, short_ticks=ticks
        )

    def moves_between(self, start: float, end: float) -> int:
        return sum(move.count for at, move in self.moved if start <= at < end)

    def sent(self, *queues: QueueKey) -> int:
        return sum(self.queues[queue].sent for queue in queues or QUEUES)


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
def test_steady_load_at_half_capacity_moves_few_consumers_after_ten_seconds(
    mix: list[float], service_s: float, minutes: float
) -> None:
    pool = Pool(service_s)
    pool.poisson(rates(mix, 0.5 * CONSUMERS / service_s))
    pool.run(10 + 60 * minutes)
    assert pool.moves_between(10, pool.now) <= 12


def test_a_burst_of_low_has_four_fifths_of_the_consumers_after_two_ticks() -> None:
    pool = Pool(0.02)
    pool.run(5)
    pool.arrive(EMAIL_LOW, 5_000)
    pool.run(5 + 2.2 * TICK_S)
    assert pool.queues[EMAIL_LOW].consumers >= 0.8 * CONSUMERS


def test_a_high_message_starts_at_once_while_all_floating_consumers_work_on_low() -> None:
    pool = Pool(0.02)
    pool.arrive(EMAIL_LOW, 50_000)
    pool.run(5)
    pool.arrive(SMS_HIGH)
    assert pool.queues[SMS_HIGH].busy == 1


@pytest.mark.parametrize("high_queues", [1, 3])
@pytest.mark.parametrize("low_queues", [1, 3])
def test_a_flood_of_high_leaves_three_percent_to_low(high_queues: int, low_queues: int) -> None:
    pool = Pool(0.02)
    high = [queue for queue in QUEUES if queue.priority is Priority.HIGH][:high_queues]
    low = [queue for queue in QUEUES if queue.priority is Priority.LOW][-low_queues:]
    for queue in low:
        pool.arrive(queue, 5_000)
    pool.poisson(dict.fromkeys(high, 1.5 * CONSUMERS / 0.02 / high_queues))
    pool.run(30)
    assert pool.sent(*low) >= 0.03 * pool.sent()


def test_a_batch_skewed_over_nine_queues_takes_as_long_as_in_one_shared_queue() -> None:
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
def test_consumers_follow_a_hot_spot_that_moves(hot_for_s: int) -> None:
    """Work above capacity for one queue alone, then for the next: 64 of 73 consumers can follow."""
    pool = Pool(0.02)
    capacity = CONSUMERS / 0.02
    for turn in range(60 // hot_for_s):
        pool.at(turn * hot_for_s, surge(pool, QUEUES[turn * 4 % 9], int(capacity * hot_for_s)))
    pool.run(60)
    assert pool.sent() >= 0.97 * capacity * 60


def surge(pool: Pool, queue: QueueKey, count: int) -> Callable[[], None]:
    return lambda: pool.arrive(queue, count)
