"""What a lane claims: no more than its consumers begin soon, within the limits of the worker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.attempts import ClaimedRow
from notifier.scheduling.consumers.claim_budget import (
    KEPT_FOR_HIGH,
    MAX_CLAIMED_BYTES,
    MAX_CLAIMED_ROWS,
    MAX_WITH_ONE_DEATH,
)
from tests.builders import EMAIL_HIGH, EMAIL_LOW
from tests.lane_fakes import open_lanes, rate_of
from tests.scheduling_fakes import FakeBackend, max_in_any_second, now
from tests.virtual_time import run_virtually

EMAIL_MEDIUM = QueueKey(Channel("email"), Priority.MEDIUM)
MIB = 1024 * 1024


class HangingBackend(FakeBackend):
    """A provider whose calls hang where `hangs` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs: Callable[[ClaimedRow], bool] = lambda _: True

    async def call(self, row: ClaimedRow) -> bool:
        if not self.hangs(row):
            return await super().call(row)
        await asyncio.sleep(3600)
        raise AssertionError(row)


def test_ready_consumers_get_one_row_each_and_the_rest_of_the_message_stays_unclaimed() -> None:
    async def scene() -> None:
        backend = HangingBackend()
        async with open_lanes(backend, consumers=5) as group:
            group.put(64)
            await asyncio.sleep(0.1)
            assert [len(batch.pointers) for batch in backend.claims] == [5]
            assert (group.lanes[EMAIL_LOW].busy, group.lanes[EMAIL_LOW].held) == (5, 64)
            await asyncio.sleep(50)
            assert backend.rows_claimed == 5

    run_virtually(scene())


def test_no_more_is_claimed_than_ready_consumers_and_what_they_begin_in_a_tenth_of_a_second() -> (
    None
):
    async def scene() -> None:
        backend = FakeBackend()
        backend.claim_s = 0.01
        async with open_lanes(backend, consumers=10) as group:
            group.put(64, messages=300)
            await asyncio.sleep(20)
            claimed, lane = Counter[float](), group.lanes[EMAIL_LOW]
            for _ in range(2_000):
                await asyncio.sleep(0.001)
                in_hand = backend.rows_claimed - len(backend.recorded)
                # 10 consumers at 20 ms each begin 50 rows in 0.1 s.
                assert in_hand <= 10 + 50
                claimed[in_hand] += 1
            assert lane.figures().done_per_s == pytest.approx(500, rel=0.05)
            assert max(claimed) > 30

    run_virtually(scene())


def test_a_claim_has_at_most_256_rows() -> None:
    async def scene() -> None:
        backend = HangingBackend()
        async with open_lanes(backend, consumers=600) as group:
            group.put(64, messages=20)
            await asyncio.sleep(0.1)
            assert [len(batch.pointers) for batch in backend.claims] == [256, 256, 88]

    run_virtually(scene())


def test_a_claim_ends_with_the_row_that_brings_it_to_4_mib() -> None:
    async def scene() -> None:
        backend = HangingBackend()
        async with open_lanes(backend, consumers=20) as group:
            group.put(64, size=900_000)
            await asyncio.sleep(0.1)
            assert [len(batch.pointers) for batch in backend.claims] == [5, 5, 5, 5]

    run_virtually(scene())


def test_at_most_1024_rows_are_in_hand_but_one_for_each_reserved_consumer() -> None:
    async def scene() -> None:
        backend = HangingBackend()
        queues = [EMAIL_LOW, EMAIL_MEDIUM, EMAIL_HIGH]
        consumers = {EMAIL_LOW: 1_500, EMAIL_MEDIUM: 8, EMAIL_HIGH: 8}
        async with open_lanes(backend, queues, consumers=consumers) as group:
            group.put(64, messages=30)
            await asyncio.sleep(1)
            assert backend.rows_claimed == MAX_CLAIMED_ROWS
            group.put(64, EMAIL_MEDIUM)
            group.put(64, EMAIL_HIGH)
            await asyncio.sleep(1)
            assert len(backend.calls_of(EMAIL_MEDIUM)) == 1
            assert len(backend.calls_of(EMAIL_HIGH)) == 1
            assert backend.rows_claimed == MAX_CLAIMED_ROWS + 2

    run_virtually(scene())


def test_at_most_32_mib_are_in_hand_but_one_row_for_each_reserved_consumer() -> None:
    async def scene() -> None:
        backend = HangingBackend()
        async with open_lanes(backend, [EMAIL_LOW, EMAIL_HIGH], consumers=200) as group:
            group.put(64, messages=3, size=MIB)
            await asyncio.sleep(1)
            assert backend.rows_claimed == MAX_CLAIMED_BYTES // MIB
            group.put(64, EMAIL_HIGH, size=MIB)
            await asyncio.sleep(1)
            assert len(backend.calls_of(EMAIL_HIGH)) == 1

    run_virtually(scene())


def test_the_room_that_one_queue_leaves_is_used_by_another_at_once() -> None:
    """The two have claim loops of their own."""

    async def scene() -> None:
        backend = HangingBackend()
        backend.hangs = lambda row: row.claimed.queue == EMAIL_HIGH
        backend.latency_s = 10.0
        consumers = {EMAIL_LOW: 1_024, EMAIL_HIGH: 8}
        async with open_lanes(backend, [EMAIL_LOW, EMAIL_HIGH], consumers=consumers) as group:
            group.put(64, messages=16)
            await asyncio.sleep(1)
            group.put(64, EMAIL_HIGH)
            await asyncio.sleep(1)
            assert len(backend.calls_of(EMAIL_HIGH)) == 1
            await asyncio.sleep(9)
            assert len(backend.calls_of(EMAIL_HIGH)) == 8
            low_ended_at = max(backend.calls_of(EMAIL_LOW)) + 10
            assert max(backend.calls_of(EMAIL_HIGH)) == pytest.approx(low_ended_at, abs=1e-3)

    run_virtually(scene())


def test_what_is_claimed_and_not_begun_goes_back_when_a_tenant_or_tag_is_paused() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(backend, consumers=10) as group:
            group.put(64, messages=300)
            await asyncio.sleep(5)
            lane = group.lanes[EMAIL_LOW]
            claimed, begun = backend.rows_claimed, len(backend.calls_of(EMAIL_LOW))
            assert claimed > begun
            lane.return_claims()
            await asyncio.sleep(0.01)
            assert len(backend.returned_rows) == claimed - begun
            done = len(backend.recorded)
            await asyncio.sleep(1)
            assert len(backend.recorded) > done + 400

    run_virtually(scene())


def test_a_channel_that_holds_ambiguous_notifications_claims_only_for_ready_consumers() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(backend, consumers=10, claims_ahead=False) as group:
            group.put(64, messages=100)
            lane = group.lanes[EMAIL_LOW]
            for _ in range(5_000):
                await asyncio.sleep(0.001)
                assert backend.rows_claimed - len(backend.recorded) <= 10
            assert lane.figures().done_per_s > 300

    run_virtually(scene())


@pytest.mark.parametrize(
    ("deaths", "most", "messages"), [(1, MAX_WITH_ONE_DEATH, 40), (2, 1, 15), (3, 1, 15)]
)
def test_rows_during_which_workers_died_are_claimed_a_few_at_a_time(
    deaths: int, most: int, messages: int
) -> None:
    async def scene() -> None:
        backend = HangingBackend()
        backend.hangs = lambda _: False
        backend.latency_s = 1.0
        async with open_lanes(backend, [EMAIL_LOW, EMAIL_HIGH], consumers=64) as group:
            for queue in (EMAIL_LOW, EMAIL_HIGH):
                group.put(1, queue, messages=messages, deaths=deaths)
            seen = 0
            while len(backend.recorded) < 2 * messages:
                await asyncio.sleep(0.1)
                in_hand = backend.rows_claimed - len(backend.recorded)
                assert in_hand <= most
                seen = max(seen, in_hand)
            assert seen == most
            # As soon as one is recorded the next is claimed, in whichever queue it waits.
            assert now() < 1 + 2 * messages / most * 1.2

    run_virtually(scene())


@pytest.mark.parametrize("has_rate", [False, True])
def test_rows_that_wait_because_workers_died_hold_up_no_others(*, has_rate: bool) -> None:
    async def scene() -> None:
        backend = HangingBackend()
        suspects = set[object]()
        backend.hangs = lambda row: row.claimed.id in suspects
        rate = 1_000.0 if has_rate else None
        async with open_lanes(backend, consumers=40, consumer_rate=rate) as group:
            for message in group.put(1, messages=40, deaths=1):
                suspects.add(message.pointers[0].id)
            await asyncio.sleep(1)
            assert 0 < len(backend.calls) <= MAX_WITH_ONE_DEATH - KEPT_FOR_HIGH
            group.put(40)
            await asyncio.sleep(2)
            assert len(backend.recorded) == 40

    run_virtually(scene())


def test_the_lanes_of_a_claim_loop_take_turns() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.claim_s = 0.5
        backend.latency_s = 0.001
        consumers = {EMAIL_MEDIUM: 600, EMAIL_LOW: 4}
        async with open_lanes(backend, [EMAIL_MEDIUM, EMAIL_LOW], consumers=consumers) as group:
            group.put(64, EMAIL_MEDIUM, messages=200)
            await asyncio.sleep(2)
            assert {len(batch.pointers) for batch in backend.claims[-3:]} == {256}
            group.put(4)
            await asyncio.sleep(1.6)
            assert len(backend.calls_of(EMAIL_LOW)) == 4

    run_virtually(scene())


def test_a_claim_of_high_does_not_wait_for_a_claim_of_others() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(backend, [EMAIL_LOW, EMAIL_HIGH]) as group:
            backend.claim_s = 5.0
            group.put(64)
            await asyncio.sleep(0.1)
            backend.claim_s = 0.01
            published_at = now()
            group.put(1, EMAIL_HIGH)
            await asyncio.sleep(1)
            assert backend.calls_of(EMAIL_HIGH) == [pytest.approx(published_at + 0.01, abs=1e-3)]
            assert [batch.is_urgent for batch in backend.claims] == [False, True]
            assert not backend.calls_of(EMAIL_LOW)

    run_virtually(scene())


def test_nothing_is_claimed_while_this_worker_may_count_as_dead() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(backend) as group:
            backend.is_ready.clear()
            group.put(4)
            await asyncio.sleep(1)
            assert not backend.claims
            backend.is_ready.set()
            await asyncio.sleep(1)
            assert len(backend.recorded) == 4

    run_virtually(scene())


def test_a_slow_rate_takes_the_slot_first_and_then_claims_one() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(backend, consumers=4, consumer_rate=0.1) as group:
            group.put(64)
            for _ in range(400):
                await asyncio.sleep(0.1)
                assert backend.rows_claimed == len(backend.calls)
            assert len(backend.calls) >= 12
            called_at = sorted(at for at, _, _ in backend.calls)
            claimed_at = sorted(batch.at for batch in backend.claims for _ in batch.pointers)
            assert called_at == pytest.approx(claimed_at, abs=1e-3)

    run_virtually(scene())


def test_a_late_claim_needs_a_new_slot_before_its_call_and_gets_it_before_all_waiters() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        rate = rate_of(backend, 10.0)
        stop = asyncio.Event()
        rates = {EMAIL_LOW: rate, EMAIL_HIGH: rate}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rate.run(stop))
            async with open_lanes(backend, [EMAIL_LOW, EMAIL_HIGH], rates=rates) as group:
                backend.claim_s = 0.5
                group.put(1)
                await asyncio.sleep(0.3)
                backend.claim_s = 0.0
                group.put(64, EMAIL_HIGH)
                await asyncio.sleep(2)
                [low_at] = backend.calls_of(EMAIL_LOW)
                claimed_at = backend.claims[0].at + 0.5
                # The next slot of 10/s, and none more urgent before it.
                assert claimed_at < low_at < claimed_at + 0.11
                high = backend.calls_of(EMAIL_HIGH)
                assert not [at for at in high if claimed_at + 1e-6 < at < low_at]
                assert max_in_any_second([low_at, *high]) <= 10
            stop.set()

    run_virtually(scene())


def test_consumers_that_waited_for_the_same_late_claim_do_not_call_at_once() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        rate, stop = rate_of(backend, 20.0), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rate.run(stop))
            async with open_lanes(backend, consumers=30, rates={EMAIL_LOW: rate}) as group:
                backend.claim_s = 0.4
                group.put(64, messages=3)
                await asyncio.sleep(10)
                assert max_in_any_second(backend.calls_of(EMAIL_LOW)) <= 21
                assert len(backend.calls) > 50
            stop.set()

    run_virtually(scene())


def test_a_row_whose_new_slot_comes_too_late_goes_back_unbegun() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        rate, stop = rate_of(backend, 1.0), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(rate.run(stop))
            async with open_lanes(backend, rates={EMAIL_LOW: rate}) as group:
                backend.claim_s = 0.5
                group.put(1)
                await asyncio.sleep(0.3)
                assert len(backend.claims) == 1
                running.cancel()  # the slots end here
                await asyncio.sleep(5)
                assert not backend.calls
                [(returned_at, _)] = backend.returned_rows
                assert 2 < returned_at - backend.claims[0].at < 2.3
                assert len(group.queues[EMAIL_LOW].acked) == 1

    run_virtually(scene())


def test_a_slow_rate_sends_though_every_claim_is_late() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.claim_s = 0.1
        rate, stop = rate_of(backend, 0.2), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rate.run(stop))
            async with open_lanes(backend, rates={EMAIL_LOW: rate}) as group:
                group.put(64)
                await asyncio.sleep(50)
                assert len(backend.calls) >= 9
                assert not backend.returned_rows
            stop.set()

    run_virtually(scene())


def test_a_consumer_that_waits_for_a_claim_wakes_at_once_when_it_is_moved() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(
            backend,
            [EMAIL_LOW, EMAIL_HIGH],
            consumers={EMAIL_LOW: 1, EMAIL_HIGH: 0},
            consumer_rate=1_000,
        ) as group:
            [consumer] = group.consumers[EMAIL_LOW]
            backend.claim_s = 5.0
            group.put(1)
            await asyncio.sleep(0.5)
            backend.claim_s = 0.0
            consumer.assign(group.lanes[EMAIL_HIGH])
            group.consumers[EMAIL_HIGH].append(consumer)
            group.tick()
            group.put(1, EMAIL_HIGH)
            await asyncio.sleep(0.5)
            assert len(backend.calls_of(EMAIL_HIGH)) == 1

    run_virtually(scene())


def test_sends_that_return_at_once_let_others_run() -> None:
    class InstantBackend(FakeBackend):
        """A provider that answers without a suspension."""

        async def call(self, _: ClaimedRow) -> bool:
            self.called += 1
            return True

        called = 0

    async def scene() -> None:
        backend = InstantBackend()
        backend.claim_s = 0.01
        async with open_lanes(backend, consumers=256) as group:
            group.put(64, messages=4)
            await asyncio.sleep(0.005)
            # Only one consumer is left, with 256 rows claimed for all of them.
            for consumer in group.consumers[EMAIL_LOW][1:]:
                consumer.assign(None)
            steps = 0
            while backend.called < 256:
                before = backend.called
                await asyncio.sleep(0)
                steps += backend.called > before
                assert backend.called - before <= 64
            assert steps >= 8

    run_virtually(scene())
