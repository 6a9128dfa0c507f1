"""Consumers and the buffer they wait at: no wake-up is lost, whichever side acts first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf
from random import Random

import pytest

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.attempts import ClaimedRow
from notifier.ports.broker import Message
from notifier.ports.rates import Slice
from notifier.scheduling.consumers.buffer import Buffer
from notifier.scheduling.consumers.claim_budget import ClaimBudget
from notifier.scheduling.consumers.claim_loop import ClaimLoop
from notifier.scheduling.consumers.consumer import Consumer
from notifier.scheduling.consumers.held import HeldMessage, LanePointer
from notifier.scheduling.consumers.lane import InFlightCounter, Lane, QueueRule
from notifier.scheduling.consumers.ticker import Ticker
from notifier.scheduling.rates.provider_rate import ProviderRate
from notifier.scheduling.rates.slots import even_rate
from tests.builders import claim_request
from tests.scheduling_fakes import FakeBackend, claimed_of, now

QUEUE = QueueKey(Channel("email"), Priority.HIGH)
LOW = QueueKey(Channel("email"), Priority.LOW)


async def let_all_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class FakeAttempts(FakeBackend):
    """Attempts that end once `go` is set, and the names of the consumers that ran them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[ClaimedRow] = []
        self.by: list[str] = []
        self.go = asyncio.Event()
        self.loops: list[ClaimLoop] = []

    async def call(self, row: ClaimedRow) -> bool:
        task = asyncio.current_task()
        self.by.append(task.get_name() if task else "")
        self.started.append(row)
        await self.go.wait()
        return True

    def lane(
        self,
        consumer_rate: float | None = None,
        queue: QueueKey = QUEUE,
        *,
        has_rate: bool = False,
    ) -> Lane:
        """Open a lane whose rows are claimed while `running`."""
        budget = ClaimBudget()
        lane = Lane(
            QueueRule(
                queue=queue,
                weight=1,
                target_wait_s=1,
                consumer_rate=consumer_rate,
                has_rate=has_rate or consumer_rate is not None,
            ),
            attempts=self,
            ticker=Ticker(now, Random(1)),
            in_flight=InFlightCounter(),
            budget=budget,
            clock=now,
        )
        lane.set_consumers(8, limited_by=Limit.NEED, may_take=True)
        self.loops.append(ClaimLoop([lane], attempts=self, budget=budget, is_urgent=False))
        return lane

    def message(self, queue: QueueKey = QUEUE) -> Message:
        return Message(self.pointers(queue, 1), redelivered=False, tag=None)


class RandomAttempts(FakeAttempts):
    """Attempts that take a few steps of the loop."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    async def call(self, row: ClaimedRow) -> bool:
        self.started.append(row)
        for _ in range(self._random.choice([0, 0, 1, 3])):
            await asyncio.sleep(0)
        return True


def consumer_of(rates: Mapping[QueueKey, ProviderRate] | None = None) -> Consumer:
    return Consumer(rates or {}, clock=now)


@asynccontextmanager
async def running(
    attempts: FakeAttempts, *consumers: Consumer
) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(loop.run(), name="claims") for loop in attempts.loops]
        tasks = [
            group.create_task(consumer.run(), name=f"consumer {number}")
            for number, consumer in enumerate(consumers)
        ]
        await let_all_run()
        yield tasks
        for task in (*tasks, *loops):
            task.cancel()


async def test_a_row_wakes_exactly_one_consumer_in_turn() -> None:
    attempts = FakeAttempts()
    lane, consumers = attempts.lane(), [consumer_of() for _ in range(4)]
    for consumer in consumers:
        consumer.assign(lane)
    async with running(attempts, *consumers):
        for _ in range(8):
            attempts.go.clear()
            lane.deliver(attempts.message())
            await let_all_run()
            assert sum(not consumer.is_idle for consumer in consumers) == 1
            attempts.go.set()
            await let_all_run()
    assert attempts.by == [f"consumer {number}" for number in (0, 1, 2, 3, 0, 1, 2, 3)]


async def test_a_waiting_consumer_that_is_reassigned_wakes_at_once() -> None:
    attempts = FakeAttempts()
    first, second, consumer = attempts.lane(), attempts.lane(), consumer_of()
    consumer.assign(first)
    async with running(attempts, consumer):
        second.deliver(attempts.message())
        consumer.assign(second)
        await let_all_run()
        assert len(attempts.started) == 1


async def test_a_busy_consumer_that_is_reassigned_finishes_first() -> None:
    attempts = FakeAttempts()
    first, second, consumer = attempts.lane(), attempts.lane(), consumer_of()
    consumer.assign(first)
    async with running(attempts, consumer):
        first.deliver(attempts.message())
        second.deliver(attempts.message())
        await let_all_run()
        consumer.assign(second)
        await let_all_run()
        assert (first.busy, second.busy, first.figures().done) == (1, 0, 0)
        attempts.go.set()
        await let_all_run()
        assert (first.figures().done, second.figures().done) == (1, 1)


async def test_the_offer_of_a_consumer_moved_before_it_runs_goes_to_the_next() -> None:
    attempts = FakeAttempts()
    lane, leaver, stayer = attempts.lane(), consumer_of(), consumer_of()
    leaver.assign(lane)
    stayer.assign(lane)
    async with running(attempts, leaver, stayer):
        lane.deliver(attempts.message())
        leaver.assign(attempts.lane())
        await let_all_run()
        assert attempts.by == ["consumer 1"]


async def test_a_consumer_moved_while_it_waits_for_its_rate_leaves_the_message_to_the_next() -> (
    None
):
    attempts = FakeAttempts()
    attempts.go.set()
    lane, leaver, stayer = attempts.lane(0.01), consumer_of(), consumer_of()
    leaver.assign(lane)
    async with running(attempts, leaver, stayer):
        lane.deliver(attempts.message())
        await let_all_run()
        lane.deliver(attempts.message())
        await let_all_run()
        assert len(attempts.started) == 1
        stayer.assign(lane)
        await let_all_run()
        assert len(attempts.started) == 1
        leaver.assign(attempts.lane())
        await let_all_run()
        assert attempts.by == ["consumer 0", "consumer 1"]


async def test_the_offer_of_a_cancelled_consumer_goes_to_the_next() -> None:
    attempts = FakeAttempts()
    lane, cancelled, stayer = attempts.lane(), consumer_of(), consumer_of()
    cancelled.assign(lane)
    stayer.assign(lane)
    async with running(attempts, cancelled, stayer) as tasks:
        lane.deliver(attempts.message())
        tasks[0].cancel()
        await let_all_run()
        assert attempts.by == ["consumer 1"]


async def test_a_consumer_whose_pointer_was_dropped_waits_again() -> None:
    attempts = FakeAttempts()
    lane, consumer = attempts.lane(1_000.0), consumer_of()
    consumer.assign(lane)
    async with running(attempts, consumer):
        lane.deliver(attempts.message())
        lane.connection_lost()
        await let_all_run()
        assert attempts.started == []
        lane.deliver(attempts.message())
        await let_all_run()
        assert len(attempts.started) == 1


class FakeOwner:
    """A lane that is told of nothing here."""

    def settled(self, held: LanePointer) -> None:
        raise AssertionError(held)


def pointers_of(*received_at: float, deaths: int = 0) -> list[LanePointer]:
    """One pointer for each instant, in a message of its own."""
    owner, backend = FakeOwner(), FakeBackend()
    held = []
    for at in received_at:
        [pointer] = backend.pointers(QUEUE, 1, deaths=deaths)
        message = HeldMessage(Message([pointer], redelivered=False, tag=None), at)
        held.append(LanePointer(pointer, message, owner))
    return held


def row_of(held: LanePointer, requested_at: float = 0.0) -> ClaimedRow:
    return ClaimedRow(claimed_of(held.pointer), claim_request(held.pointer), requested_at, held)


def claim_next(buffer: Buffer, requested_at: float = 0.0) -> ClaimedRow:
    held = buffer.begin_claim()
    assert held is not None
    row = row_of(held, requested_at)
    buffer.end_claim(1, [row])
    return row


async def test_a_closed_buffer_gives_no_row_for_an_earlier_offer() -> None:
    buffer = Buffer()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(buffer.wait("consumer"), name="consumer")
        await let_all_run()
        buffer.put(pointers_of(0.0))
        row = claim_next(buffer)
        assert await waiting
        buffer.close()
        assert buffer.take() is None
        assert buffer.remove_rows(claimed_before=inf) == [row]


async def test_a_blocked_buffer_keeps_its_rows_and_offers_them_again() -> None:
    buffer = Buffer()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(buffer.wait("consumer"), name="consumer")
        await let_all_run()
        buffer.set_blocked(blocked=True)
        buffer.put(pointers_of(0.0))
        row = claim_next(buffer)
        await let_all_run()
        assert not waiting.done()
        buffer.set_blocked(blocked=False)
        assert await waiting
        assert buffer.take() is row


async def test_an_unclaimed_pointer_is_offered_only_where_a_slot_comes_first() -> None:
    for slot_first in (False, True):
        buffer = Buffer(slot_first=slot_first)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(buffer.wait("consumer"), name="consumer")
            await let_all_run()
            buffer.put(pointers_of(0.0))
            await let_all_run()
            assert waiting.done() is slot_first
            buffer.dismiss("consumer")


async def test_consumers_that_wait_for_a_claim_get_its_rows_and_nothing_once_none_can_come() -> (
    None
):
    buffer = Buffer(slot_first=True)
    buffer.put(pointers_of(0.0, 0.0, 0.0))
    async with asyncio.TaskGroup() as group:
        claimants = []
        for name in ("first", "second", "third"):
            assert await buffer.wait(name)
            assert buffer.take() is None
            claimants.append(group.create_task(buffer.wait_for_claim(name), name=name))
            await let_all_run()
        assert buffer.ready == 3
        row = claim_next(buffer)
        assert await claimants[0] is row
        assert buffer.begin_claim()
        assert buffer.begin_claim()
        await let_all_run()
        assert not claimants[1].done()
        buffer.end_claim(2, [])
        assert [await claimant for claimant in claimants[1:]] == [None, None]
        assert (buffer.ready, buffer.in_use, len(buffer)) == (0, 0, 0)


@pytest.mark.parametrize("end", ["cancelled", "dismissed"])
async def test_a_pointer_whose_consumer_stops_waiting_for_its_claim_is_offered_to_the_next(
    end: str,
) -> None:
    buffer = Buffer(slot_first=True)
    buffer.put(pointers_of(0.0))
    assert await buffer.wait("first")
    assert buffer.take() is None
    async with asyncio.TaskGroup() as group:
        claimant = group.create_task(buffer.wait_for_claim("first"), name="first")
        waiting = group.create_task(buffer.wait("second"), name="second")
        await let_all_run()
        assert not waiting.done()
        if end == "cancelled":
            claimant.cancel()
        else:
            buffer.dismiss("first")
            assert await claimant is None
        assert await waiting


async def test_a_row_for_a_consumer_that_is_cancelled_just_then_goes_to_the_next() -> None:
    buffer = Buffer(slot_first=True)
    buffer.put(pointers_of(0.0))
    assert await buffer.wait("first")
    assert buffer.take() is None
    async with asyncio.TaskGroup() as group:
        claimant = group.create_task(buffer.wait_for_claim("first"), name="first")
        waiting = group.create_task(buffer.wait("second"), name="second")
        await let_all_run()
        row = claim_next(buffer)
        claimant.cancel()
        assert await waiting
        assert buffer.take() is row


async def test_a_row_that_is_put_back_goes_to_a_consumer_that_waits_for_a_claim() -> None:
    buffer = Buffer(slot_first=True)
    buffer.put(pointers_of(0.0, 0.0))
    assert await buffer.wait("first")
    assert await buffer.wait("second")
    row = claim_next(buffer)
    assert buffer.take() is row
    assert buffer.take() is None
    async with asyncio.TaskGroup() as group:
        claimant = group.create_task(buffer.wait_for_claim("second"), name="second")
        await let_all_run()
        buffer.put_back(row)
        assert await claimant is row
        # The offer of the first one stands, and is backed by the other pointer.
        assert (buffer.offered, buffer.ready, len(buffer)) == (1, 0, 1)
        assert buffer.take() is None
        claimant = group.create_task(buffer.wait_for_claim("first"), name="first")
        await let_all_run()
        assert (buffer.ready, buffer.claimed) == (1, 0)
        buffer.close()


async def test_the_stale_pointers_are_removed_and_of_the_others_the_newest() -> None:
    buffer, held = Buffer(), pointers_of(*range(6))
    buffer.put(held)
    assert buffer.remove_pointers(received_before=2.0) == held[:2]
    assert buffer.remove_newest(keep=2) == [held[5], held[4]]
    assert len(buffer) == buffer.unclaimed == 2
    assert buffer.remove_pointers(received_before=inf) == held[2:4]


async def test_the_rows_of_old_claims_are_removed() -> None:
    buffer = Buffer()
    buffer.put(pointers_of(*range(3)))
    rows = [claim_next(buffer, float(second)) for second in range(3)]
    assert buffer.oldest_claim_at() == 0.0
    assert buffer.remove_rows(claimed_before=2.0) == rows[:2]
    assert (buffer.claimed, buffer.oldest_claim_at()) == (1, 2.0)


async def test_the_oldest_of_pointers_suspects_and_rows_is_known() -> None:
    buffer = Buffer()
    assert buffer.oldest_put_at() is None
    buffer.put(pointers_of(7.0))
    buffer.put(pointers_of(5.0, deaths=1))
    assert buffer.oldest_put_at() == 5.0
    claim_next(buffer, 3.0)
    assert buffer.oldest_put_at() == 3.0


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
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_row_is_not_claimed_before_its_slot() -> None:
    attempts = FakeAttempts()
    async with slots_given() as (slots, rate):
        lane, consumer = attempts.lane(has_rate=True), consumer_of({QUEUE: rate})
        consumer.assign(lane)
        async with running(attempts, consumer):
            lane.deliver(attempts.message())
            await asyncio.sleep(0.05)
            assert (attempts.claims, lane.snapshot().buffered) == ([], 1)
            slots.left = 1
            await until(lambda: len(attempts.started) == 1)
            assert attempts.rows_claimed == 1


async def test_the_more_urgent_of_two_lanes_that_share_a_rate_goes_first() -> None:
    urgent, other = FakeAttempts(), FakeAttempts()
    async with slots_given() as (slots, rate):
        rates = {QUEUE: rate, LOW: rate}
        high, low = urgent.lane(has_rate=True), other.lane(queue=LOW, has_rate=True)
        consumers = [consumer_of(rates) for _ in range(4)]
        for consumer, lane in zip(consumers, (low, low, high, high), strict=True):
            consumer.assign(lane)
        async with running(urgent, *consumers), asyncio.TaskGroup() as group:
            claims = [group.create_task(loop.run()) for loop in other.loops]
            for lane in (low, low, high, high):
                lane.deliver((urgent if lane is high else other).message(lane.queue))
                await let_all_run()
            slots.left = 2
            await until(lambda: len(urgent.started) == 2)
            assert other.started == []
            slots.left = 2
            await until(lambda: len(other.started) == 2)
            claims[0].cancel()


async def test_a_consumer_moved_while_it_waits_for_a_slot_wakes_at_once() -> None:
    attempts = FakeAttempts()
    async with slots_given() as (slots, rate):
        lane, free = attempts.lane(has_rate=True), attempts.lane(queue=LOW, has_rate=True)
        leaver, stayer = consumer_of({QUEUE: rate}), consumer_of({QUEUE: rate})
        leaver.assign(lane)
        async with running(attempts, leaver, stayer):
            lane.deliver(attempts.message())
            free.deliver(attempts.message(LOW))
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
        lane = attempts.lane(has_rate=True)
        leaver, stayer = consumer_of({QUEUE: rate}), consumer_of({QUEUE: rate})
        leaver.assign(lane)
        async with running(attempts, leaver, stayer):
            lane.deliver(attempts.message())
            await let_all_run()
            slots.left = 1
            await until(lambda: slots.left == 0)
            for _ in range(steps):
                await asyncio.sleep(0)
            stayer.assign(lane)
            leaver.assign(attempts.lane(has_rate=True))
            await until(lambda: len(attempts.started) == 1)


async def test_a_slot_whose_message_was_dropped_goes_to_another_lane() -> None:
    attempts = FakeAttempts()
    async with slots_given() as (slots, rate):
        rates = {QUEUE: rate, LOW: rate}
        high, low = attempts.lane(has_rate=True), attempts.lane(queue=LOW, has_rate=True)
        first, second = consumer_of(rates), consumer_of(rates)
        first.assign(high)
        second.assign(low)
        async with running(attempts, first, second):
            high.deliver(attempts.message())
            low.deliver(attempts.message(LOW))
            await let_all_run()
            high.connection_lost()
            slots.left = 1
            await until(lambda: attempts.by == ["consumer 1"])


@pytest.mark.parametrize("seed", range(20))
async def test_every_row_is_attempted_once_however_consumers_are_moved(seed: int) -> None:
    """Random moves and arrivals between every two steps of the loop.

    At the end one consumer is left at each lane, and no pointer may remain.
    """
    random = Random(seed)
    attempts = RandomAttempts(random)
    rate = random.choice([None, 2_000.0])
    lanes = [attempts.lane(rate, has_rate=bool(seed % 2)) for _ in range(3)]
    sent = list[Message]()
    async with slots_given() as (slots, shared):
        slots.left = 100_000
        consumers = [consumer_of({QUEUE: shared} if seed % 2 else {}) for _ in range(6)]
        await move_at_random(attempts, consumers, lanes, random, sent)
    assert attempts.ids_called() == Counter(
        pointer.id for message in sent for pointer in message.pointers
    )


async def move_at_random(
    attempts: FakeAttempts,
    consumers: list[Consumer],
    lanes: list[Lane],
    random: Random,
    sent: list[Message],
) -> None:
    async with running(attempts, *consumers) as tasks:
        for _ in range(400):
            for _ in range(random.choice([0, 1, 1, 2])):
                random.choice(consumers).assign(random.choice([None, *lanes]))
            for _ in range(random.choice([0, 0, 1, 2, 4])):
                sent.append(
                    Message(attempts.pointers(QUEUE, random.choice([1, 1, 7])), False, tag=None)
                )
                random.choice(lanes).deliver(sent[-1])
            if random.random() < 0.01 and len(tasks) > 3:
                tasks.pop().cancel()
                consumers.pop()
            if random.random() < 0.7:
                await asyncio.sleep(0)
        for lane, consumer in zip(lanes, consumers, strict=False):
            consumer.assign(lane)
        await until(lambda: not any(lane.held for lane in lanes))
        assert all(lane.busy == 0 and lane.in_use == 0 for lane in lanes)
