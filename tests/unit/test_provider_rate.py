"""One rate over many workers, simulated: no second above it, nearly all of it used."""

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

from notifier.delivery.lateness import LatenessDetector
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Priority
from notifier.ports.rates import Slice
from notifier.scheduling.rates.provider_rate import ProviderRate
from notifier.scheduling.rates.slots import SLOT_VALID_S, even_rate
from notifier.scheduling.rates.waiter_queue import WaiterQueue
from tests.virtual_time import VirtualLoop, run_virtually

HIGH, MEDIUM, LOW = Priority


class Gauge:
    """The part of an observer that a rate speaks to."""

    def provider_rate_changed(self, provider: str, rate_per_s: float) -> None:
        assert provider == "smtp"
        assert rate_per_s > 0


@dataclass
class Schedule:
    """The row of Postgres, on the loop's clock, with a round trip of `trip()` seconds."""

    trip: Callable[[], float] = lambda: 0.0
    is_away: bool = False
    factor: float = 1.0
    factor_at: float = -100.0
    tat: float = 0.0
    asks: list[int] = field(default_factory=list)
    cuts: int = 0

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        assert provider == "smtp"
        await asyncio.sleep(self.trip())
        if self.is_away:
            raise StoreUnavailable("away")
        self.asks.append(count)
        now = asyncio.get_running_loop().time()
        rate = rate_per_s * self._left(now)
        starts_at = max(self.tat, now)
        taken = count if starts_at < now + 0.15 else 0
        self.tat = starts_at + taken / rate
        await asyncio.sleep(self.trip())
        return Slice(starts_in_s=starts_at - now, spacing_s=1 / rate, count=taken, rate_per_s=rate)

    async def cut(self, provider: str) -> bool:
        assert provider == "smtp"
        if self.is_away:
            raise StoreUnavailable("away")
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
        observer=Gauge(),
        random=Random(seed),
    )


@asynccontextmanager
async def running(rate: ProviderRate) -> AsyncIterator[asyncio.TaskGroup]:
    """The rate at work, and a group for those who wait for it, ended with the block."""
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


# ---- many workers --------------------------------------------------------------------------------


@dataclass
class Calls:
    """When the provider was called."""

    at: list[float] = field(default_factory=list)

    def most_in_a_second(self) -> int:
        calls = sorted(self.at)
        return max(bisect_left(calls, each + 1) - number for number, each in enumerate(calls))

    def between(self, since: float, until: float) -> int:
        return sum(since <= each < until for each in self.at)


@dataclass
class Claims:
    """How long a claim takes, within these bounds; while they stall, none is answered."""

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
        turn_at = loop.time()
        await claims.claim(random)
        if wait.is_late(loop.time() - turn_at):
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
    """One worker; at the end it is gone in the middle of everything."""
    random, rate, wait = Random(seed), rate_of(schedule, rate_per_s, seed), LatenessDetector()
    async with running(rate) as group:
        for _ in range(consumers):
            group.create_task(consume(rate, calls, claims, wait, random, service_s=0.05))
        await asyncio.sleep(for_s)


async def hold_up_the_loop(random: Random) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    while True:
        await asyncio.sleep(random.expovariate(4))
        loop.now += random.uniform(0, 0.012)


async def simulate(
    rate_per_s: float, workers: int, seed: int, *, claims: Claims, stall_s: float = 0.0
) -> Calls:
    """60 s; one worker joins at 20 s, one is gone at 40 s if there are more than one."""
    random, calls = Random(seed), Calls()
    schedule = Schedule(trip=lambda: random.uniform(0.0005, 0.003))
    each = max(3, round(1.25 * rate_per_s * (0.05 + claims.slowest_s) / workers) + 2)
    async with asyncio.TaskGroup() as group:
        held_up = group.create_task(hold_up_the_loop(random))
        stalling = group.create_task(claims.stall_now_and_then(stall_s))
        for number in range(workers):
            for_s = 40.0 if number == 0 and workers > 1 else 60.0
            group.create_task(
                work(schedule, rate_per_s, calls, claims, seed=number, consumers=each, for_s=for_s)
            )
        await asyncio.sleep(20)
        joined = work(schedule, rate_per_s, calls, claims, seed=seed + 9, consumers=each, for_s=40)
        await group.create_task(joined)
        held_up.cancel()
        stalling.cancel()
    return calls


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("rate_per_s", [10, 50, 500])
def test_no_second_is_above_the_rate_and_nearly_all_of_it_is_used(
    rate_per_s: float, workers: int
) -> None:
    calls = run_virtually(simulate(rate_per_s, workers, seed=workers, claims=Claims()))
    assert calls.most_in_a_second() <= floor(1.05 * rate_per_s)
    assert calls.between(0, 60) >= 0.97 * 60 * rate_per_s - 1
    assert calls.between(40, 50) >= 0.9 * 10 * rate_per_s - 1


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("rate_per_s", [50, 500])
def test_claims_that_are_always_slow_make_no_second_too_full_and_cost_little(
    rate_per_s: float, workers: int
) -> None:
    slow = Claims(quickest_s=0.02, slowest_s=0.08)
    calls = run_virtually(simulate(rate_per_s, workers, seed=workers, claims=slow))
    assert calls.most_in_a_second() <= floor(1.05 * rate_per_s)
    assert calls.between(1, 60) >= 0.9 * 59 * rate_per_s


@pytest.mark.parametrize("stall_s", [0.2, 0.5, 2.0])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("rate_per_s", [20, 50, 500])
def test_claims_that_stall_make_no_second_too_full(
    rate_per_s: float, workers: int, stall_s: float
) -> None:
    claims = Claims()
    calls = run_virtually(
        simulate(rate_per_s, workers, seed=workers, claims=claims, stall_s=stall_s)
    )
    assert calls.most_in_a_second() <= floor(1.05 * rate_per_s)
    assert calls.between(0, 60) >= 0.9 * (60 - 8 * stall_s) * rate_per_s


@pytest.mark.parametrize("rate_per_s", [0.1, 1, 1.9, 10, 19, 20, 39, 50, 140, 500, 21.9])
def test_thirty_ms_of_jitter_make_no_second_too_full(rate_per_s: float) -> None:
    rate = even_rate(rate_per_s)
    assert 0.97 * rate_per_s < rate <= rate_per_s
    assert 1.03 * rate <= max(rate_per_s, floor(1.05 * rate_per_s + 1e-9)) + 1e-9


# ---- whose turn it is ----------------------------------------------------------------------------


async def turns_of(*priorities: Priority) -> list[tuple[Priority, int]]:
    """Who is called after whom, of so many who join in this order before any slot comes."""
    turns: list[tuple[Priority, int]] = []

    async def take_turn(rate: ProviderRate, priority: Priority, number: int) -> None:
        await rate.acquire(priority)
        turns.append((priority, number))

    rate = rate_of(Schedule(trip=lambda: 0.001), 50)
    async with running(rate) as consumers:
        for number, priority in enumerate(priorities):
            consumers.create_task(take_turn(rate, priority, number))
        while len(turns) < len(priorities):
            await asyncio.sleep(0.01)
    return turns


def test_the_most_urgent_are_first_and_equals_in_the_order_they_came() -> None:
    turns = run_virtually(turns_of(LOW, HIGH, MEDIUM, LOW, HIGH, MEDIUM))
    assert turns == [(HIGH, 1), (HIGH, 4), (MEDIUM, 2), (MEDIUM, 5), (LOW, 0), (LOW, 3)]


async def test_whoever_had_a_slot_and_needs_another_comes_before_all() -> None:
    waiters = WaiterQueue()
    high, again = waiters.join(Priority.HIGH), waiters.join(None)
    assert waiters.wake_next()
    assert (high.done(), again.done()) == (False, True)


def test_every_sixteenth_slot_goes_to_whoever_waits_longest() -> None:
    turns = run_virtually(turns_of(LOW, LOW, MEDIUM, *[HIGH] * 40))
    assert [place for place, (priority, _) in enumerate(turns, 1) if priority is LOW] == [16, 32]
    assert turns[-1][0] is MEDIUM


# ---- slots that find nobody ----------------------------------------------------------------------


async def test_a_slot_of_one_who_is_cancelled_goes_to_the_next() -> None:
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


async def test_no_slot_is_handed_to_one_whose_wait_was_cancelled_just_now() -> None:
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


async def test_a_slot_that_is_not_used_goes_to_the_next() -> None:
    rate = rate_of(Schedule(), 0.01)
    async with running(rate):
        async with asyncio.timeout(5):
            await rate.acquire(HIGH)
            rate.restore()
            await rate.acquire(HIGH)


async def second_wait_s(after_s: float) -> float:
    """How long one waits who comes so much later than a slot that was not used; one slot a s."""
    loop, rate = asyncio.get_running_loop(), rate_of(Schedule(), 1)
    async with running(rate):
        await rate.acquire(HIGH)
        rate.restore()
        await asyncio.sleep(after_s)
        began = loop.time()
        await rate.acquire(HIGH)
        return loop.time() - began


def test_a_slot_is_good_for_a_little_and_is_lost_then() -> None:
    assert run_virtually(second_wait_s(SLOT_VALID_S * 0.9)) < 0.001
    assert run_virtually(second_wait_s(SLOT_VALID_S * 1.1)) > 0.9


# ---- the store -----------------------------------------------------------------------------------


async def ask_while_others_take_all() -> Schedule:
    schedule = Schedule(tat=10.0)
    rate = rate_of(schedule, 50)
    async with running(rate):
        await rate.acquire(HIGH)
        assert asyncio.get_running_loop().time() >= 10
    return schedule


def test_a_schedule_given_away_is_asked_again_only_when_it_comes_near() -> None:
    assert len(run_virtually(ask_while_others_take_all()).asks) <= 3


async def ask_for_many() -> Schedule:
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


def test_many_are_reserved_for_in_pieces_of_50_ms() -> None:
    asks = run_virtually(ask_for_many()).asks
    assert max(asks) == 25
    assert len(asks) < 45 * 2.1


async def wait_while_the_store_is_away() -> float:
    schedule = Schedule(is_away=True)
    rate = rate_of(schedule, 50)
    async with running(rate) as waiters:
        waiting = waiters.create_task(rate.acquire(HIGH))
        rate.throttled()
        await asyncio.sleep(10)
        assert not waiting.done()
        schedule.is_away = False
        await waiting
        return asyncio.get_running_loop().time()


def test_a_store_that_is_away_is_waited_for() -> None:
    assert 10 <= run_virtually(wait_while_the_store_is_away()) < 11


async def throttle_for(seconds: int) -> tuple[Schedule, list[float]]:
    """Many throttled answers a second; then none. The rate, each second."""
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


def test_a_throttled_answer_cuts_the_rate_once_a_second_and_it_grows_back() -> None:
    schedule, rates = run_virtually(throttle_for(3))
    assert schedule.cuts == 3
    assert 35 < min(rates) < 0.7 * 0.75 * 100
    assert rates[-1] == even_rate(100)
    assert all(later - rate <= 5.5 for rate, later in pairwise(rates))


async def test_stopped_it_hands_out_nothing_more() -> None:
    rate, stop = rate_of(Schedule(), 50), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(rate.run(stop))
        await rate.acquire(HIGH)
        stop.set()
        waiting = group.create_task(rate.acquire(HIGH))
        await let_all_run()
        assert not waiting.done()
        waiting.cancel()
