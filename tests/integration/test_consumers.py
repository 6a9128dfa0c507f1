"""Consumers and the buffer they wait at: no wake-up is lost, whichever side acts first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from math import inf
from random import Random
from uuid import UUID

import pytest

from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.domain.timing import AttemptTiming
from notifier.ports.attempts import AttemptRunner
from notifier.ports.broker import Delivery, Pointer
from notifier.ports.rates import Slice
from notifier.scheduling.consumers.buffer import Buffer
from notifier.scheduling.consumers.consumer import Consumer
from notifier.scheduling.consumers.lane import InFlightCounter, Lane, QueueRule
from notifier.scheduling.consumers.ticker import Ticker
from notifier.scheduling.rates.provider_rate import ProviderRate
from notifier.scheduling.rates.slots import even_rate

QUEUE = QueueKey(Channel("email"), Priority.HIGH)
LOW = QueueKey(Channel("email"), Priority.LOW)
NUMBERS = count(1)


def message() -> Delivery:
    id_ = NotificationId(UUID(int=next(NUMBERS)))
    return Delivery(Pointer(queue=QUEUE, id=id_, claim=0, published_at=0.0), False, tag=None)


async def let_all_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def lane_of(
    attempts: AttemptRunner, consumer_rate: float | None = None, queue: QueueKey = QUEUE
) -> Lane:
    clock = asyncio.get_running_loop().time
    return Lane(
        QueueRule(queue=queue, weight=1, target_wait_s=1, consumer_rate=consumer_rate),
        attempts=attempts,
        ticker=Ticker(clock, Random(1)),
        in_flight=InFlightCounter(),
        clock=clock,
    )


class FakeAttempts:
    """Attempts that end once `go` is set, and the names of the consumers that ran them."""

    def __init__(self) -> None:
        self.started: list[Delivery] = []
        self.by: list[str] = []
        self.go = asyncio.Event()

    async def attempt(self, delivery: Delivery, ack: Callable[[Delivery], None]) -> AttemptTiming:
        task = asyncio.current_task()
        self.by.append(task.get_name() if task else "")
        self.started.append(delivery)
        await self.go.wait()
        ack(delivery)
        return AttemptTiming(0.0, answered=True)

    async def give_back_pointers(self, pointers: Sequence[Pointer]) -> None:
        raise AssertionError(pointers)


class RandomAttempts(FakeAttempts):
    """Attempts that take a few steps of the loop, counted by message."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.seen = Counter[Delivery]()
        self._random = random

    async def attempt(self, delivery: Delivery, ack: Callable[[Delivery], None]) -> AttemptTiming:
        self.seen[delivery] += 1
        try:
            for _ in range(self._random.choice([0, 0, 1, 3])):
                await asyncio.sleep(0)
        finally:
            ack(delivery)
        return AttemptTiming(0.001, answered=True)


@asynccontextmanager
async def running(*consumers: Consumer) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(consumer.run(), name=f"consumer {number}")
            for number, consumer in enumerate(consumers)
        ]
        await let_all_run()
        yield tasks
        for task in tasks:
            task.cancel()


async def test_a_message_wakes_exactly_one_consumer_in_turn() -> None:
    attempts = FakeAttempts()
    attempts.go.set()
    lane, consumers = lane_of(attempts), [Consumer({}) for _ in range(4)]
    for consumer in consumers:
        consumer.assign(lane)
    async with running(*consumers):
        for _ in range(8):
            lane.deliver(message())
            assert sum(not consumer.is_idle for consumer in consumers) == 1
            await let_all_run()
    assert attempts.by == [f"consumer {number}" for number in (0, 1, 2, 3, 0, 1, 2, 3)]


async def test_a_waiting_consumer_that_is_reassigned_wakes_at_once() -> None:
    attempts = FakeAttempts()
    first, second, consumer = lane_of(attempts), lane_of(attempts), Consumer({})
    consumer.assign(first)
    async with running(consumer):
        second.deliver(message())
        consumer.assign(second)
        await let_all_run()
        assert len(attempts.started) == 1


async def test_a_busy_consumer_that_is_reassigned_finishes_first() -> None:
    attempts = FakeAttempts()
    first, second, consumer = lane_of(attempts), lane_of(attempts), Consumer({})
    consumer.assign(first)
    async with running(consumer):
        first.deliver(message())
        second.deliver(message())
        await let_all_run()
        consumer.assign(second)
        await let_all_run()
        assert (first.busy, second.busy, first.figures().done) == (1, 0, 0)
        attempts.go.set()
        await let_all_run()
        assert (first.figures().done, second.figures().done) == (1, 1)


async def test_the_offer_of_a_consumer_moved_before_it_runs_goes_to_the_next() -> None:
    attempts = FakeAttempts()
    lane, leaver, stayer = lane_of(attempts), Consumer({}), Consumer({})
    leaver.assign(lane)
    stayer.assign(lane)
    async with running(leaver, stayer):
        lane.deliver(message())
        leaver.assign(lane_of(attempts))
        await let_all_run()
        assert attempts.by == ["consumer 1"]


async def test_a_consumer_moved_while_it_waits_for_its_rate_leaves_the_message_to_the_next() -> (
    None
):
    attempts = FakeAttempts()
    attempts.go.set()
    lane, leaver, stayer = lane_of(attempts, 0.01), Consumer({}), Consumer({})
    leaver.assign(lane)
    async with running(leaver, stayer):
        lane.deliver(message())
        await let_all_run()
        lane.deliver(message())
        await let_all_run()
        assert len(attempts.started) == 1
        stayer.assign(lane)
        await let_all_run()
        assert len(attempts.started) == 1
        leaver.assign(lane_of(attempts))
        await let_all_run()
        assert attempts.by == ["consumer 0", "consumer 1"]


async def test_the_offer_of_a_cancelled_consumer_goes_to_the_next() -> None:
    attempts = FakeAttempts()
    lane, cancelled, stayer = lane_of(attempts), Consumer({}), Consumer({})
    cancelled.assign(lane)
    stayer.assign(lane)
    async with running(cancelled, stayer) as tasks:
        lane.deliver(message())
        tasks[0].cancel()
        await let_all_run()
        assert attempts.by == ["consumer 1"]


async def test_a_consumer_whose_message_was_dropped_waits_again() -> None:
    attempts = FakeAttempts()
    lane, consumer = lane_of(attempts), Consumer({})
    consumer.assign(lane)
    async with running(consumer):
        lane.deliver(message())
        lane.connection_lost()
        await let_all_run()
        assert attempts.started == []
        lane.deliver(message())
        await let_all_run()
        assert len(attempts.started) == 1


async def test_a_closed_buffer_gives_no_message_for_an_earlier_offer() -> None:
    buffer = Buffer()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(buffer.wait("consumer"), name="consumer")
        await let_all_run()
        buffer.put(message(), 0.0)
        assert await waiting
        buffer.close()
        assert buffer.take() is None
        assert len(buffer.remove(keep=0, put_before=inf)) == 1


def test_remove_takes_the_stale_messages_and_then_the_newest() -> None:
    buffer = Buffer()
    messages = [message() for _ in range(6)]
    for second, delivery in enumerate(messages):
        buffer.put(delivery, float(second))
    out = buffer.remove(keep=2, put_before=2.0)
    assert out == [messages[0], messages[1], messages[5], messages[4]]
    assert len(buffer) == 2


class Slots:
    """A store of rates that gives as many slots as the test allows."""

    def __init__(self) -> None:
        self.left = 0

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        assert provider == "smtp"
        given = min(count, self.left)
        self.left -= given
        await asyncio.sleep(0)
        return Slice(starts_in_s=0.0, spacing_s=0.0, count=given, rate_per_s=rate_per_s)

    async def cut(self, provider: str) -> bool:
        raise AssertionError(provider)


class RateChecker:
    """An observer that checks the reported rate."""

    def provider_rate_changed(self, provider: str, rate_per_s: float) -> None:
        assert (provider, rate_per_s) == ("smtp", even_rate(1000.0))


@asynccontextmanager
async def slots_given() -> AsyncIterator[tuple[Slots, ProviderRate]]:
    slots, stop = Slots(), asyncio.Event()
    rate = ProviderRate(
        "smtp",
        1000,
        store=slots,
        clock=asyncio.get_running_loop().time,
        observer=RateChecker(),
        random=Random(1),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(rate.run(stop))
        yield slots, rate
        stop.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_message_is_not_taken_before_its_slot() -> None:
    attempts = FakeAttempts()
    async with slots_given() as (slots, rate):
        lane, consumer = lane_of(attempts), Consumer({QUEUE: rate})
        consumer.assign(lane)
        async with running(consumer):
            lane.deliver(message())
            await asyncio.sleep(0.05)
            assert (len(attempts.started), lane.snapshot().buffered) == (0, 1)
            slots.left = 1
            await until(lambda: len(attempts.started) == 1)


async def test_the_more_urgent_of_two_lanes_that_share_a_rate_goes_first() -> None:
    urgent, other = FakeAttempts(), FakeAttempts()
    async with slots_given() as (slots, rate):
        rates = {QUEUE: rate, LOW: rate}
        high, low = lane_of(urgent), lane_of(other, queue=LOW)
        consumers = [Consumer(rates) for _ in range(4)]
        for consumer, lane in zip(consumers, (low, low, high, high), strict=True):
            consumer.assign(lane)
        async with running(*consumers):
            for lane in (low, low, high, high):
                lane.deliver(message())
                await let_all_run()
            slots.left = 2
            await until(lambda: len(urgent.started) == 2)
            assert other.started == []
            slots.left = 2
            await until(lambda: len(other.started) == 2)


async def test_a_consumer_moved_while_it_waits_for_a_slot_wakes_at_once() -> None:
    attempts = FakeAttempts()
    async with slots_given() as (slots, rate):
        lane, free = lane_of(attempts), lane_of(attempts, queue=LOW)
        leaver, stayer = Consumer({QUEUE: rate}), Consumer({QUEUE: rate})
        leaver.assign(lane)
        async with running(leaver, stayer):
            lane.deliver(message())
            free.deliver(message())
            await let_all_run()
            leaver.assign(free)
            stayer.assign(lane)
            await until(lambda: attempts.by == ["consumer 0"])
            assert (lane.busy, free.busy) == (0, 1)
            slots.left = 1
            await until(lambda: attempts.by == ["consumer 0", "consumer 1"])


@pytest.mark.parametrize("steps", range(6))
async def test_the_slot_of_a_moved_consumer_goes_to_another(steps: int) -> None:
    """The consumer is moved 0 to 5 steps of the loop after the slot was reserved."""
    attempts = FakeAttempts()
    async with slots_given() as (slots, rate):
        lane = lane_of(attempts)
        leaver, stayer = Consumer({QUEUE: rate}), Consumer({QUEUE: rate})
        leaver.assign(lane)
        async with running(leaver, stayer):
            lane.deliver(message())
            await let_all_run()
            slots.left = 1
            await until(lambda: slots.left == 0)
            for _ in range(steps):
                await asyncio.sleep(0)
            stayer.assign(lane)
            leaver.assign(lane_of(attempts))
            await until(lambda: len(attempts.started) == 1)


async def test_a_slot_whose_message_was_dropped_goes_to_another_lane() -> None:
    attempts = FakeAttempts()
    async with slots_given() as (slots, rate):
        rates = {QUEUE: rate, LOW: rate}
        high, low = lane_of(attempts), lane_of(attempts, queue=LOW)
        first, second = Consumer(rates), Consumer(rates)
        first.assign(high)
        second.assign(low)
        async with running(first, second):
            high.deliver(message())
            low.deliver(message())
            await let_all_run()
            high.connection_lost()
            slots.left = 1
            await until(lambda: attempts.by == ["consumer 1"])


@pytest.mark.parametrize("seed", range(20))
async def test_every_message_is_attempted_once_however_consumers_are_moved(seed: int) -> None:
    """Random moves and arrivals between every two steps of the loop.

    At the end one consumer is left at each lane, and no message may remain.
    """
    random = Random(seed)
    attempts = RandomAttempts(random)
    rate = random.choice([None, 2_000.0])
    lanes = [lane_of(attempts, rate) for _ in range(3)]
    sent = list[Delivery]()
    async with slots_given() as (slots, shared):
        slots.left = 100_000
        consumers = [Consumer({QUEUE: shared} if seed % 2 else {}) for _ in range(6)]
        await move_at_random(consumers, lanes, random, sent)
    assert attempts.seen == Counter(sent)


async def move_at_random(
    consumers: list[Consumer], lanes: list[Lane], random: Random, sent: list[Delivery]
) -> None:
    async with running(*consumers) as tasks:
        for _ in range(400):
            for _ in range(random.choice([0, 1, 1, 2])):
                random.choice(consumers).assign(random.choice([None, *lanes]))
            for _ in range(random.choice([0, 0, 1, 2, 4])):
                sent.append(message())
                random.choice(lanes).deliver(sent[-1])
            if random.random() < 0.01 and len(tasks) > 3:
                tasks.pop().cancel()
                consumers.pop()
            if random.random() < 0.7:
                await asyncio.sleep(0)
        for lane, consumer in zip(lanes, consumers, strict=False):
            consumer.assign(lane)
        while any(lane.held for lane in lanes):
            await asyncio.sleep(0.001)
        assert all(lane.busy == 0 and lane.in_use == 0 for lane in lanes)
