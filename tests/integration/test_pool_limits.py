"""A whole consumer pool: pauses, breakers, bulkheads, rates and hanging providers are respected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest

from notifier.domain.controls import SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Priority, QueueKey
from notifier.ports.attempts import ClaimedRow
from notifier.ports.broker import Broker
from notifier.ports.rates import RateStore, Slice
from notifier.scheduling.rates.provider_rate import ProviderRate
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES, SMS_HIGH
from tests.scheduling_fakes import (
    CountingObserver,
    FakeBackend,
    FakeGates,
    SingleWorker,
    deployment,
    max_in_any_second,
    now,
    open_pool,
)
from tests.virtual_time import run_virtually


def test_a_queue_with_an_open_breaker_sends_nothing_and_a_probed_one_sends_one_at_a_time() -> None:
    async def scene() -> None:
        backend, gates = FakeBackend(), FakeGates()
        async with open_pool(backend, environment=deployment(gates=gates)) as (pool, broker):
            await broker.publish(backend.pointers(SMS_HIGH, 50_000))
            await asyncio.sleep(2)
            gates.permissions[SMS_HIGH] = SendPermission.BREAKER_OPEN
            await asyncio.sleep(1)
            figures, calls = pool.figures()[SMS_HIGH], len(backend.calls)
            assert (figures.busy, figures.held, figures.limited_by) == (0, 0, "breaker")
            gates.permissions[SMS_HIGH] = SendPermission.PROBE
            for _ in range(2_000):
                await asyncio.sleep(0.001)
                assert pool.figures()[SMS_HIGH].held <= 1
            figures = pool.figures()[SMS_HIGH]
            assert (figures.consumers, figures.limited_by) == (1, "breaker")
            assert 1 <= len(backend.calls) - calls <= 100
            gates.permissions[SMS_HIGH] = SendPermission.ALLOWED
            await asyncio.sleep(1)
            assert pool.figures()[SMS_HIGH].busy > 40

    run_virtually(scene())


def test_a_probe_and_what_follows_it_are_sent_while_all_consumers_of_the_worker_hang() -> None:
    async def scene() -> None:
        backend, gates = HangingBackend(), FakeGates()
        backend.is_hanging, backend.seconds = True, 120.0
        environment = deployment(gates=gates)
        async with open_pool(backend, consumers=8, environment=environment) as (pool, broker):

            async def permit(permission: SendPermission) -> None:
                gates.permissions[SMS_HIGH] = permission
                pool.apply_permissions()
                await asyncio.sleep(1)

            await broker.publish(backend.pointers(SMS_HIGH, 50))
            await asyncio.sleep(4)
            assert pool.figures()[SMS_HIGH].busy == 9
            await permit(SendPermission.BREAKER_OPEN)
            await permit(SendPermission.PROBE)
            assert pool.figures()[SMS_HIGH].busy == 10
            await asyncio.sleep(10)
            assert pool.figures()[SMS_HIGH].busy == 10
            await permit(SendPermission.BREAKER_OPEN)
            backend.is_hanging = False
            await permit(SendPermission.PROBE)
            assert pool.figures()[SMS_HIGH].done > 1
            await permit(SendPermission.ALLOWED)
            sent = pool.figures()[SMS_HIGH].done
            await broker.publish(backend.pointers(SMS_HIGH, 10))
            await asyncio.sleep(1)
            figures = pool.figures()[SMS_HIGH]
            assert (figures.busy, figures.held) == (10, 10)
            assert figures.done >= sent + 10
            await asyncio.sleep(120)
            await broker.publish(backend.pointers(SMS_HIGH, 1_000))
            await asyncio.sleep(0.1)
            assert pool.figures()[SMS_HIGH].busy == 1 + 8

    run_virtually(scene())


def test_the_consumer_of_a_probe_serves_the_queue_until_the_calls_from_before_have_ended() -> None:
    async def scene() -> None:
        backend, gates = HangingBackend(), FakeGates()
        backend.is_hanging, backend.seconds = True, 120.0
        low = QueueKey(SMS_HIGH.channel, Priority.LOW)
        gates.permissions[QueueKey(SMS_HIGH.channel, Priority.MEDIUM)] = SendPermission.PAUSED
        environment = deployment(gates=gates)
        async with open_pool(backend, consumers=8, environment=environment) as (pool, broker):

            async def permit(high: SendPermission, others: SendPermission) -> None:
                gates.permissions[SMS_HIGH], gates.permissions[low] = high, others
                pool.apply_permissions()
                await asyncio.sleep(1)

            await broker.publish(backend.pointers(SMS_HIGH, 50))
            await asyncio.sleep(4)
            await permit(SendPermission.BREAKER_OPEN, SendPermission.BREAKER_OPEN)
            backend.is_hanging = False
            await permit(SendPermission.PROBE, SendPermission.BREAKER_OPEN)
            await permit(SendPermission.ALLOWED, SendPermission.ALLOWED)
            for _ in range(5):
                sent = pool.figures()[SMS_HIGH].done
                await broker.publish(backend.pointers(SMS_HIGH, 10))
                await asyncio.sleep(10)
                figures = pool.figures()[SMS_HIGH]
                assert (figures.busy, figures.done) == (9, sent + 10)
            await asyncio.sleep(120)
            await broker.publish(backend.pointers(SMS_HIGH, 1_000))
            await asyncio.sleep(0.1)
            assert pool.figures()[SMS_HIGH].busy == 1 + 8

    run_virtually(scene())


def test_a_paused_queue_sends_nothing_and_the_others_continue() -> None:
    async def scene() -> None:
        backend, gates = FakeBackend(), FakeGates()
        gates.permissions[SMS_HIGH] = SendPermission.PAUSED
        async with open_pool(backend, environment=deployment(gates=gates)) as (pool, broker):
            await broker.publish(backend.pointers(SMS_HIGH, 100))
            await broker.publish(backend.pointers(EMAIL_LOW, 5_000))
            await asyncio.sleep(3)
            assert not backend.calls_of(SMS_HIGH)
            assert pool.figures()[SMS_HIGH].limited_by == "pause"
            assert len(backend.calls_of(EMAIL_LOW)) == 5_000

    run_virtually(scene())


@pytest.mark.parametrize("permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN])
def test_a_suspended_queue_starts_no_attempt_though_the_broker_is_slow_to_stop(
    permission: SendPermission,
) -> None:
    async def scene() -> None:
        backend, gates = FakeBackend(), FakeGates()
        async with open_pool(backend, environment=deployment(gates=gates)) as (pool, broker):
            await broker.publish(backend.pointers(SMS_HIGH, 50_000))
            await asyncio.sleep(2)
            broker.stuck.add(SMS_HIGH)
            gates.permissions[SMS_HIGH] = permission
            pool.apply_permissions()
            started = (
                len(backend.calls_of(SMS_HIGH)) + 1
            )  # one may have its slot and not yet have called
            await asyncio.sleep(5)
            assert len(backend.calls_of(SMS_HIGH)) <= started
            broker.stuck.clear()
            gates.permissions[SMS_HIGH] = SendPermission.ALLOWED
            await asyncio.sleep(2)
            assert len(backend.calls_of(SMS_HIGH)) > started + 100

    run_virtually(scene())


def test_consumers_leave_a_channel_whose_server_takes_fewer_connections() -> None:
    @dataclass
    class FoundLimit:
        calls: int | None = None

        def call_limit(self, channel: str) -> int | None:
            return self.calls if channel == "sms" else None

    async def scene() -> None:
        backend, found = FakeBackend(), FoundLimit()
        environment = deployment(call_limits=found)
        async with open_pool(backend, bulkhead=64, environment=environment) as (pool, broker):
            for queue in QUEUES:
                await broker.publish(backend.pointers(queue, 20_000))
            await asyncio.sleep(1)
            found.calls = 8
            await asyncio.sleep(1)
            for _ in range(50):
                await asyncio.sleep(0.02)
                figures = pool.figures()
                assert sum(figures[queue].busy for queue in QUEUES if queue.channel == "sms") <= 8
            assert pool.figures()[SMS_HIGH].limited_by == "connections"

    run_virtually(scene())


def test_a_channel_makes_no_more_concurrent_calls_than_its_bulkhead() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, bulkhead=8) as (pool, broker):
            await asyncio.sleep(1)
            for queue in QUEUES:
                await broker.publish(backend.pointers(queue, 2_000))
            for _ in range(100):
                await asyncio.sleep(0.02)
                figures = pool.figures()
                assert sum(figures[queue].busy for queue in QUEUES if queue.channel == "sms") <= 8
            assert pool.figures()[SMS_HIGH].limited_by == "connections"

    run_virtually(scene())


class UnavailableRates:
    """A store of rates that is never available."""

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        raise StoreUnavailable(f"{count} of {rate_per_s}/s for {provider}")

    async def cut(self, provider: str) -> bool:
        raise StoreUnavailable(provider)


@pytest.mark.parametrize(("share", "consumers"), [(1.0, 34), (0.25, 10)])
def test_a_worker_assigns_the_consumers_that_use_its_part_of_the_providers_rate(
    share: float, consumers: int
) -> None:
    """For 200/s at 100 ms: 1.25 * 20 in calls, 8 for slots ahead, one that waits."""

    async def scene() -> None:
        backend = FakeBackend()
        rate = provider_rate(backend, 200.0, UnavailableRates())
        environment = deployment(cluster=SingleWorker(share), rates={EMAIL_LOW: rate})
        async with open_pool(backend, environment=environment) as (pool, broker):
            await broker.publish(backend.pointers(EMAIL_LOW, 5_000))
            await asyncio.sleep(2)
            figures = pool.figures()[EMAIL_LOW]
            assert (figures.consumers, figures.limited_by) == (consumers, "rate")
            assert figures.held <= 64

    run_virtually(scene())


class ImmediateRates(UnavailableRates):
    """A store of rates without other workers: every slot is free at once."""

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        del provider
        return Slice(starts_in_s=0.0, spacing_s=1 / rate_per_s, count=count, rate_per_s=rate_per_s)


def provider_rate(backend: FakeBackend, rate_per_s: float, store: RateStore) -> ProviderRate:
    return ProviderRate(
        "smtp",
        rate_per_s,
        store=store,
        observer=CountingObserver(backend),
        clock=now,
        random=Random(1),
    )


def test_the_reported_capacity_is_what_the_consumers_can_begin_at_the_time_of_a_call() -> None:
    async def scene() -> None:
        backend, gates = FakeBackend(), FakeGates()
        environment = deployment(gates=gates)
        async with open_pool(backend, [EMAIL_LOW], consumers=3, environment=environment) as (
            pool,
            broker,
        ):
            await asyncio.sleep(1)
            assert pool.figures()[EMAIL_LOW].capacity_per_s is None
            await broker.publish(backend.pointers(EMAIL_LOW, 4))
            await asyncio.sleep(1)
            figures = pool.figures()[EMAIL_LOW]
            assert figures.capacity_per_s == pytest.approx(figures.consumers / 0.02)
            gates.permissions[EMAIL_LOW] = SendPermission.PAUSED
            await asyncio.sleep(1)
            assert pool.figures()[EMAIL_LOW].capacity_per_s == 0.0

    run_virtually(scene())


def test_the_reported_capacity_stays_within_the_consumer_rate() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, [EMAIL_LOW], consumers=3, consumer_rate=5.0) as (
            pool,
            broker,
        ):
            await broker.publish(backend.pointers(EMAIL_LOW, 1))
            await asyncio.sleep(1)
            figures = pool.figures()[EMAIL_LOW]
            assert figures.capacity_per_s == pytest.approx(5.0 * figures.consumers)

    run_virtually(scene())


def test_the_reported_capacity_stays_within_the_workers_part_of_the_providers_rate() -> None:
    async def scene() -> None:
        backend, stop = FakeBackend(), asyncio.Event()
        rate = provider_rate(backend, 200.0, ImmediateRates())
        environment = deployment(cluster=SingleWorker(0.25), rates={EMAIL_LOW: rate})
        async with asyncio.TaskGroup() as group:
            group.create_task(rate.run(stop))
            async with open_pool(backend, environment=environment) as (pool, broker):
                await broker.publish(backend.pointers(EMAIL_LOW, 100))
                await asyncio.sleep(2)
                own_rate = pytest.approx(0.25 * rate.rate_per_s)
                assert pool.figures()[EMAIL_LOW].capacity_per_s == own_rate
            stop.set()

    run_virtually(scene())


def test_consumers_that_are_stuck_in_a_call_add_no_capacity() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, [EMAIL_LOW], consumers=3) as (pool, broker):
            await broker.publish(backend.pointers(EMAIL_LOW, 1))
            await asyncio.sleep(1)
            backend.latency_s = 60.0
            await broker.publish(backend.pointers(EMAIL_LOW, 2))
            await asyncio.sleep(3)
            figures = pool.figures()[EMAIL_LOW]
            assert figures.capacity_per_s == pytest.approx((figures.consumers - 2) / 0.02)

    run_virtually(scene())


class HangingBackend(FakeBackend):
    """A provider of sms that may hang: its calls then time out after 20 s without an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_hanging = False
        self.seconds = 20.0

    async def call(self, row: ClaimedRow) -> bool:
        if row.claimed.queue.channel != "sms" or not self.is_hanging:
            return await super().call(row)
        await asyncio.sleep(self.seconds)
        return False


async def keep_busy(
    backend: FakeBackend, broker: Broker, queues: Sequence[QueueKey], span_s: float
) -> None:
    """Publish 1,000 a second, a third of what the pool can send."""
    for _ in range(round(span_s / 0.02)):
        for queue in queues:
            await broker.publish(backend.pointers(queue, 20 // len(queues)))
        await asyncio.sleep(0.02)


def test_a_hanging_provider_gets_a_quarter_of_the_consumers_until_it_answers() -> None:
    async def scene() -> None:
        backend = HangingBackend()
        sms = [queue for queue in QUEUES if queue.channel == "sms"]
        async with open_pool(backend) as (pool, broker):
            async with asyncio.TaskGroup() as group:
                group.create_task(keep_busy(backend, broker, [SMS_HIGH, EMAIL_HIGH], 120))
                await asyncio.sleep(10)
                backend.is_hanging = True
                await asyncio.sleep(35)
                for _ in range(200):
                    await asyncio.sleep(0.25)
                    figures = pool.figures()
                    assert sum(figures[queue].consumers for queue in sms) <= 16
                    assert sum(figures[queue].busy for queue in sms) <= 16
                    assert figures[SMS_HIGH].limited_by == "hang"
                    # Each attempt starts at once: no message waits for a consumer.
                    assert figures[EMAIL_HIGH].held <= 3 * 20
                backend.is_hanging = False
                while pool.figures()[SMS_HIGH].limited_by == "hang":
                    await asyncio.sleep(0.01)
                answered = now()
                done = pool.figures()[SMS_HIGH].done
                await asyncio.sleep(2)
                assert now() - answered == pytest.approx(2)
                assert pool.figures()[SMS_HIGH].done - done > 1_000
            await asyncio.sleep(60)
            assert sum(pool.figures()[queue].held for queue in QUEUES) == 0

    run_virtually(scene())


def test_a_consumer_in_a_hanging_call_is_given_to_no_other_queue() -> None:
    async def scene() -> None:
        backend = HangingBackend()
        backend.is_hanging = True
        async with open_pool(backend) as (pool, broker):
            await broker.publish(backend.pointers(SMS_HIGH, 200))
            await asyncio.sleep(12)
            hanging = pool.figures()[SMS_HIGH]
            assert (hanging.busy, hanging.consumers) == (40, 14)
            await broker.publish(backend.pointers(EMAIL_LOW, 10_000))
            await asyncio.sleep(0.6)
            email = pool.figures()[EMAIL_LOW]
            assert email.busy == email.consumers == 1 + 64 - 39  # one of the 40 is reserved

    run_virtually(scene())


@pytest.mark.parametrize(("consumers", "limit"), [(0, 5), (1, 10)])
def test_each_consumer_keeps_its_rate_in_any_second(consumers: int, limit: int) -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, [EMAIL_LOW], consumers=consumers, consumer_rate=5) as (
            _,
            broker,
        ):
            await asyncio.sleep(10)
            await broker.publish(backend.pointers(EMAIL_LOW, 1_000))
            await asyncio.sleep(60)
            assert max_in_any_second(backend.calls_of(EMAIL_LOW)) == limit
            assert len(backend.calls) >= 0.96 * limit * 60

    run_virtually(scene())


def test_a_rate_above_ten_is_used_and_exceeded_only_by_its_burst() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.latency_s = 0.001
        async with open_pool(backend, [EMAIL_LOW], consumers=0, consumer_rate=100) as (_, broker):
            await asyncio.sleep(10)
            await broker.publish(backend.pointers(EMAIL_LOW, 20_000))
            await asyncio.sleep(60)
            assert max_in_any_second(backend.calls_of(EMAIL_LOW)) <= 105
            assert len(backend.calls) >= 0.99 * 100 * 60

    run_virtually(scene())


def test_a_moved_consumer_gets_no_new_burst() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, consumers=4, consumer_rate=5) as (_, broker):
            for turn in range(40):
                queue = (EMAIL_LOW, EMAIL_HIGH)[turn % 2]
                await broker.publish(backend.pointers(queue, 60))
                await asyncio.sleep(1.5)
            assert backend.moved[EMAIL_LOW]
            assert backend.moved[EMAIL_HIGH]
            for name, moments in backend.by_consumer.items():
                assert max_in_any_second(moments) <= 5, name

    run_virtually(scene())
