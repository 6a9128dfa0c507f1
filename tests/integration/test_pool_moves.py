"""A whole consumer pool: consumers follow the work, in one worker and in three."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise

import pytest

from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import QueueKey
from notifier.ports.store import Waiting
from tests.builders import EMAIL_HIGH, EMAIL_LOW, SMS_HIGH
from tests.scheduling_fakes import (
    FakeBackend,
    now,
    open_pool,
    three_workers,
)
from tests.virtual_time import run_virtually


def test_a_burst_of_low_gets_the_consumers_and_a_high_message_still_starts_at_once() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend) as (pool, broker):
            await asyncio.sleep(1)
            await broker.publish(backend.pointers(EMAIL_LOW, 5_000))
            await asyncio.sleep(0.5)
            assert pool.figures()[EMAIL_LOW].consumers >= 0.8 * 64
            assert pool.figures()[EMAIL_LOW].busy >= 0.8 * 64
            published_at = now()
            await broker.publish(backend.pointers(SMS_HIGH, 1))
            await asyncio.sleep(0.001)
            assert backend.calls_of(SMS_HIGH) == [pytest.approx(published_at, abs=1e-6)]
            await asyncio.sleep(2)
            assert len(backend.recorded) == 5_001
            assert set(backend.ids_called().values()) == {1}

    run_virtually(scene())


def test_due_rows_count_before_they_are_published() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend) as (pool, _):
            backlog = Waiting(due=1_000, is_ceiling=True, oldest_wait=timedelta(seconds=1))
            backend.due = {EMAIL_LOW: backlog}
            await asyncio.sleep(0.5)
            assert pool.figures()[EMAIL_LOW].consumers == 65
            assert pool.figures()[EMAIL_LOW].limited_by == "consumers"

    run_virtually(scene())


def test_wake_ups_that_move_no_consumer_do_not_make_the_scheduler_tick_faster() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend) as (pool, _):
            for _ in range(2_000):
                await asyncio.sleep(0.001)
                pool.wake()
        gaps = [later - before for before, later in pairwise(backend.polled)]
        assert min(gaps) >= 0.05
        assert len(backend.polled) <= 12

    run_virtually(scene())


def test_a_lane_that_fills_up_wakes_the_scheduler() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend) as (pool, broker):
            await asyncio.sleep(1.01)
            published = now()
            await broker.publish(backend.pointers(EMAIL_LOW, 5_000))
            while pool.figures()[EMAIL_LOW].consumers < 64:
                await asyncio.sleep(0.001)
            assert now() - published < 0.1

    run_virtually(scene())


class FaultyStore(FakeBackend):
    """A store that fails or hangs when the due rows are counted."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    async def waiting(self, _queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        if self._fault == "hangs":
            await asyncio.sleep(3600)
        raise StoreUnavailable


@pytest.mark.parametrize("fault", ["fails", "hangs"])
def test_consumers_move_while_postgres_is_unavailable(fault: str) -> None:
    async def scene() -> None:
        async with open_pool(backend := FaultyStore(fault)) as (pool, broker):
            await broker.publish(backend.pointers(EMAIL_LOW, 5_000))
            await asyncio.sleep(2.5)
            assert pool.figures()[EMAIL_LOW].done > 3_000

    run_virtually(scene())


def test_a_lane_without_a_reply_from_the_broker_delays_no_other_lane() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend) as (pool, broker):
            await asyncio.sleep(1)
            broker.stuck = {SMS_HIGH}
            await broker.publish(backend.pointers(SMS_HIGH, 3_000))
            await asyncio.sleep(0.5)
            await broker.publish(backend.pointers(EMAIL_HIGH, 500))
            await asyncio.sleep(2)
            assert pool.figures()[EMAIL_HIGH].done == 500

    run_virtually(scene())


def test_three_workers_each_follow_a_burst_and_a_high_message_still_starts_at_once() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with three_workers(backend) as (pools, broker):
            await asyncio.sleep(1)
            await broker.publish(backend.pointers(EMAIL_LOW, 15_000))
            await asyncio.sleep(0.5)
            for pool in pools:
                assert pool.figures()[EMAIL_LOW].consumers >= 0.8 * 64
            published_at = now()
            await broker.publish(backend.pointers(SMS_HIGH, 1))
            await asyncio.sleep(0.001)
            assert backend.calls_of(SMS_HIGH) == [pytest.approx(published_at, abs=1e-6)]
            await asyncio.sleep(5)
            assert len(backend.recorded) == 15_001

    run_virtually(scene())


def test_three_workers_each_move_consumers_for_their_part_of_the_backlog() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with three_workers(backend) as (pools, _):
            # A third of 300 is 100: at 0.1 s each, the initial value, 20 drain it in two ticks.
            due = Waiting(due=300, is_ceiling=False, oldest_wait=timedelta(0))
            backend.due = {EMAIL_LOW: due}
            await asyncio.sleep(0.5)
            assert [pool.figures()[EMAIL_LOW].consumers for pool in pools] == [20, 20, 20]

    run_virtually(scene())
