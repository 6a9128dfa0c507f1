"""One provider rate shared by many workers, simulated: never exceeded and nearly fully used."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import floor
from random import Random

import pytest

from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Priority
from notifier.ports.rates import Slice
from notifier.scheduling.rates.lateness import LatenessDetector
from notifier.scheduling.rates.provider_rate import ProviderRate
from notifier.scheduling.rates.slots import SLOT_VALID_S, even_rate
from notifier.scheduling.rates.waiter_queue import WaiterQueue
from tests.virtual_time import VirtualLoop, run_virtually

HIGH, MEDIUM, LOW = Priority


class RateChecker:
    """An observer that checks the reported rate."""

    def provider_rate_changed(self, provider: str, rate_per_s: float) -> None:
        assert provider == "smtp"
        assert rate_per_s > 0


@dataclass
class Schedule:
    """The schedule of Postgres, on the loop's clock; each way takes `trip()` seconds."""

    trip: Callable[[], float] = lambda: 0.0
    is_unavailable: bool = False
    factor: float = 1.0
    factor_at: float = -100.0
    tat: float = 0.0
    requests: list[int] = field(default_factory=list)
    cuts: int = 0

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        assert provider == "smtp"
        await asyncio.sleep(self.trip())
        if self.is_unavailable:
            raise StoreUnavailable("unavailable")
        self.requests.append(count)
        now = asyncio.get_running_loop().time()
        rate = rate_per_s * self._left(now)
        starts_at = max(self.tat, now)
        taken = count if starts_at < now + 0.15 else 0
        self.tat = starts_at + taken / rate
        await asyncio.sleep(self.trip())
        return Slice(starts_in_s=starts_at - now, spacing_s=1 / rate, count=taken, rate_per_s=rate)

    async def cut(self, provider: str) -> bool:
        assert provider == "smtp"
        if self.is_unavailable:
            raise StoreUnavailable("unavailable")
        now = asyncio.get_running_loop().time()
        if now - self.factor_at < 1:
            return False
        self.factor, self.factor_at = max(0.05, 0.7 * self._left(now)), now
        self.cuts += 1
        return True

    def _left(self, now: float) -> float:
        return min(1.0, self.factor + 0.05 * (now - self.factor_at))


def rate_of(schedule: Schedule, rate_per_s: float, seed: int = 0) -> ProviderRate:
    return ProviderRate(
        "smtp",
        rate_per_s,
        store=schedule,
        clock=asyncio.get_running_loop().time,
        observer=RateChecker(),
        random=Random(seed),
    )


@asynccontextmanager
async def running(rate: ProviderRate) -> AsyncIterator[asyncio.TaskGroup]:
    """Run the rate, and yield a group for tasks that wait for it; both end with the block."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(rate.run(stop))
        async with asyncio.TaskGroup() as waiters:
            yield waiters
            for task in tuple(waiters._tasks):
                task.cancel()
        stop.set()


async def let_all_run() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@dataclass
class Calls:
    """The times at which the provider was called."""

    at: list[float] = field(default_factory=list)

    def max_in_a_second(self) -> int:
        calls = sorted(self.at)
        return max(bisect_left(calls, call + 1) - number for number, call in enumerate(calls))

    def between(self, since: float, until: float) -> int:
        return sum(since <= call < until for call in self.at)


@dataclass
class Claims:
    """How long a claim takes. While claims stall, none gets a reply."""

    quickest_s: float = 0.002
    slowest_s: float = 0.015
    stalled_until: float = 0.0

    async def claim(self, random: Random) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(random.uniform(self.quickest_s, self.slowest_s))
        while (left_s := self.stalled_until - loop.time()) > 0:
            await asyncio.sleep(left_s)

    async def stall_now_and_then(self, span_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(7.3)
            self.stalled_until = loop.time() + span_s


async def consume(
    rate: ProviderRate,
    calls: Calls,
    claims: Claims,
    wait: LatenessDetector,
    random: Random,
    service_s: float,
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await rate.acquire(HIGH)
        slot_at = loop.time()
        await claims.claim(random)
        if wait.is_late(loop.time() - slot_at):
            await rate.acquire(None)
        calls.at.append(loop.time())
        await asyncio.sleep(service_s)


async def work(
    schedule: Schedule,
    rate_per_s: float,
    calls: Calls,
    claims: Claims,
    *,
    seed: int,
    consumers: int,
    for_s: float,
) -> None:
    """One worker, which ends abruptly after `for_s`."""
    random, rate, wait = Random(seed), rate_of(schedule, rate_per_s, seed), LatenessDetector()
    async with running(rate) as group:
        for _ in range(consumers):
            group.create_task(consume(rate, calls, claims, wait, random, service_s=0.05))
        await asyncio.sleep(for_s)


async def block_the_loop(random: Random) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    while True:
        await asyncio.sleep(random.expovariate(4))
        loop.now += random.uniform(0, 0.012)


async def simulate(
    rate_per_s: float, workers: int, seed: int, *, claims: Claims, stall_s: float = 0.0
) -> Calls:
    """Simulate 60 s. A worker joins at 20 s; of several workers one ends at 40 s."""
    random, calls = Random(seed), Calls()
    schedule = Schedule(trip=lambda: random.uniform(0.0005, 0.003))
    consumers = max(3, round(1.25 * rate_per_s * (0.05 + claims.slowest_s) / workers) + 2)
    async with asyncio.TaskGroup() as group:
        blocking = group.create_task(block_the_loop(random))
        stalling = group.create_task(claims.stall_now_and_then(stall_s))
        for number in range(workers):
            for_s = 40.0 if number == 0 and workers > 1 else 60.0
            group.create_task(
                work(
                    schedule,
                    rate_per_s,
                    calls,
                    claims,
                    seed=number,
                    consumers=consumers,
                    for_s=for_s,
                )
            )
        await asyncio.sleep(20)
        joined = work(
            schedule, rate_per_s, calls, claims, seed=seed + 9, consumers=consumers, for_s=40
        )
        await group.create_task(joined)
        blocking.cancel()
        stalling.cancel()
    return calls


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("rate_per_s", [10, 50, 500])
def test_no_second_exceeds_the_rate_and_nearly_all_of_it_is_used(
    rate_per_s: float, workers: int
) -> None:
    calls = run_virtually(simulate(rate_per_s, workers, seed=workers, claims=Claims()))
    assert calls.max_in_a_second() <= floor(1.05 * rate_per_s)
    assert calls.between(0, 60) >= 0.97 * 60 * rate_per_s - 1
    assert calls.between(40, 50) >= 0.9 * 10 * rate_per_s - 1


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("rate_per_s", [50, 500])
def test_slow_claims_do_not_exceed_the_rate_and_cost_little_of_it(
    rate_per_s: float, workers: int
) -> None:
    slow = Claims(quickest_s=0.02, slowest_s=0.08)
    calls = run_virtually(simulate(rate_per_s, workers, seed=workers, claims=slow))
    assert calls.max_in_a_second() <= floor(1.05 * rate_per_s)
    assert calls.between(1, 60) >= 0.9 * 59 * rate_per_s


@pytest.mark.parametrize("stall_s", [0.2, 0.5, 2.0])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("rate_per_s", [20, 50, 500])
def test_stalled_claims_do_not_exceed_the_rate(
    rate_per_s: float, workers: int, stall_s: float
) -> None:
    claims = Claims()
    calls = run_virtually(
        simulate(rate_per_s, workers, seed=workers, claims=claims, stall_s=stall_s)
    )
    assert calls.max_in_a_second() <= floor(1.05 * rate_per_s)
    assert calls.between(0, 60) >= 0.9 * (60 - 8 * stall_s) * rate_per_s


@pytest.mark.parametrize("rate_per_s", [0.1, 1, 1.9, 10, 19, 20, 39, 50, 140, 500, 21.9])
def test_thirty_ms_of_jitter_do_not_exceed_the_rate(rate_per_s: float) -> None:
    rate = even_rate(rate_per_s)
    assert 0.97 * rate_per_s < rate <= rate_per_s
    assert 1.03 * rate <= max(rate_per_s, floor(1.05 * rate_per_s + 1e-9)) + 1e-9


async def order_of(*priorities: Priority) -> list[tuple[Priority, int]]:
    """The order in which waiters with these priorities, joined in this order, get a slot."""
    order: list[tuple[Priority, int]] = []

    async def wait_for_slot(rate: ProviderRate, priority: Priority, number: int) -> None:
        await rate.acquire(priority)
        order.append((priority, number))

    rate = rate_of(Schedule(trip=lambda: 0.001), 50)
    async with running(rate) as consumers:
        for number, priority in enumerate(priorities):
            consumers.create_task(wait_for_slot(rate, priority, number))
        while len(order) < len(priorities):
            await asyncio.sleep(0.01)
    return order


def test_the_most_urgent_waiters_are_first_and_equals_in_their_order() -> None:
    order = run_virtually(order_of(LOW, HIGH, MEDIUM, LOW, HIGH, MEDIUM))
    assert order == [(HIGH, 1), (HIGH, 4), (MEDIUM, 2), (MEDIUM, 5), (LOW, 0), (LOW, 3)]


async def test_a_waiter_that_needs_a_second_slot_comes_before_all() -> None:
    waiters = WaiterQueue()
    high, again = waiters.join(Priority.HIGH), waiters.join(None)
    assert waiters.wake_next()
    assert (high.done(), again.done()) == (False, True)


def test_every_sixteenth_slot_goes_to_the_oldest_waiter() -> None:
    order = run_virtually(order_of(LOW, LOW, MEDIUM, *[HIGH] * 40))
    assert [place for place, (priority, _) in enumerate(order, 1) if priority is LOW] == [16, 32]
    assert order[-1][0] is MEDIUM


async def test_the_slot_of_a_cancelled_waiter_goes_to_the_next() -> None:
    rate = rate_of(Schedule(), 0.01)
    async with running(rate) as consumers:
        first = consumers.create_task(rate.acquire(HIGH))
        second = consumers.create_task(rate.acquire(LOW))
        while not rate._slots:
            await asyncio.sleep(0)
        rate._wake_waiters()
        first.cancel()
        async with asyncio.timeout(5):
            await second


async def test_a_waiter_cancelled_just_now_gets_no_slot() -> None:
    rate = rate_of(Schedule(), 0.01)
    async with running(rate) as consumers:
        first = consumers.create_task(rate.acquire(HIGH))
        second = consumers.create_task(rate.acquire(LOW))
        while not rate._slots:
            await asyncio.sleep(0)
        first.cancel()
        rate._wake_waiters()
        async with asyncio.timeout(5):
            await second
    assert first.cancelled()


async def test_an_unused_slot_goes_to_the_next_waiter() -> None:
    rate = rate_of(Schedule(), 0.01)
    async with running(rate):
        async with asyncio.timeout(5):
            await rate.acquire(HIGH)
            rate.restore()
            await rate.acquire(HIGH)


async def second_wait_s(after_s: float) -> float:
    """How long a waiter waits that comes `after_s` after an unused slot, at one slot per second."""
    loop, rate = asyncio.get_running_loop(), rate_of(Schedule(), 1)
    async with running(rate):
        await rate.acquire(HIGH)
        rate.restore()
        await asyncio.sleep(after_s)
        started_at = loop.time()
        await rate.acquire(HIGH)
        return loop.time() - started_at


def test_a_slot_expires_shortly_after_its_time() -> None:
    assert run_virtually(second_wait_s(SLOT_VALID_S * 0.9)) < 0.001
    assert run_virtually(second_wait_s(SLOT_VALID_S * 1.1)) > 0.9


async def reserve_while_others_take_all() -> Schedule:
    schedule = Schedule(tat=10.0)
    rate = rate_of(schedule, 50)
    async with running(rate):
        await rate.acquire(HIGH)
        assert asyncio.get_running_loop().time() >= 10
    return schedule


def test_a_schedule_given_away_is_requested_again_only_shortly_before_its_end() -> None:
    assert len(run_virtually(reserve_while_others_take_all()).requests) <= 3


async def reserve_for_many() -> Schedule:
    schedule = Schedule(trip=lambda: 0.001)
    rate = rate_of(schedule, 500)
    async with running(rate) as waiters:
        for _ in range(1000):
            waiters.create_task(rate.acquire(LOW))
        await asyncio.sleep(1.9)
        assert waiters._tasks
        await asyncio.sleep(0.2)
        assert not waiters._tasks
    return schedule


def test_slots_for_many_waiters_are_reserved_in_slices_of_50_ms() -> None:
    requests = run_virtually(reserve_for_many()).requests
    assert max(requests) == 25
    assert len(requests) < 45 * 2.1


async def wait_while_the_store_is_unavailable() -> float:
    schedule = Schedule(is_unavailable=True)
    rate = rate_of(schedule, 50)
    async with running(rate) as waiters:
        waiting = waiters.create_task(rate.acquire(HIGH))
        rate.throttled()
        await asyncio.sleep(10)
        assert not waiting.done()
        schedule.is_unavailable = False
        await waiting
        return asyncio.get_running_loop().time()


def test_a_waiter_waits_while_the_store_is_unavailable() -> None:
    assert 10 <= run_virtually(wait_while_the_store_is_unavailable()) < 11


async def throttle_for(seconds: int) -> tuple[Schedule, list[float]]:
    """The rate of each second, with ten throttled responses a second at first and then none."""
    schedule, rates = Schedule(), list[float]()
    rate = rate_of(schedule, 100)
    async with running(rate) as waiters:
        for second in range(seconds + 30):
            for _ in range(10):
                if second < seconds:
                    rate.throttled()
                waiters.create_task(rate.acquire(LOW))
                await asyncio.sleep(0.1)
            rates.append(rate.rate_per_s)
    return schedule, rates


def test_throttled_responses_cut_the_rate_once_a_second_and_it_grows_back() -> None:
    schedule, rates = run_virtually(throttle_for(3))
    assert schedule.cuts == 3
    assert 35 < min(rates) < 0.7 * 0.75 * 100
    assert rates[-1] == even_rate(100)
    assert all(later - rate <= 5.5 for rate, later in pairwise(rates))


async def test_a_stopped_rate_gives_no_more_slots() -> None:
    rate, stop = rate_of(Schedule(), 50), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(rate.run(stop))
        await rate.acquire(HIGH)
        stop.set()
        waiting = group.create_task(rate.acquire(HIGH))
        await let_all_run()
        assert not waiting.done()
        waiting.cancel()
