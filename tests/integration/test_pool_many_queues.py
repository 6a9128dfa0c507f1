"""A consumer pool with more queues than a tick polls: idle ones are left out, work is not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from notifier.domain.controls import SendPermission
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.store import Waiting
from notifier.scheduling.consumers.sampler import CHANNELS_IN_TURN, MAX_POLLED_QUEUES
from tests.scheduling_fakes import (
    FakeBackend,
    FakeGates,
    deployment,
    now,
    open_pool,
)
from tests.virtual_time import run_virtually

MANY = [
    QueueKey(Channel(f"c{number:02}"), priority)
    for number in range(MAX_POLLED_QUEUES)
    for priority in Priority
]
HIGH, LOW = MANY[30], MANY[35]
FLOATING = 64
A_ROUND_S = 0.3 * len(MANY) / len(Priority) / CHANNELS_IN_TURN


class CountingBackend(FakeBackend):
    """Records which queues are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = list[Sequence[QueueKey]]()

    async def waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        self.counted.append(queues)
        counted = await super().waiting(queues)
        return {queue: counted[queue] for queue in queues if queue in counted}


def test_a_tick_polls_few_of_many_idle_queues_and_each_in_its_turn() -> None:
    async def scene() -> None:
        backend = CountingBackend()
        async with open_pool(backend, MANY):
            await asyncio.sleep(1)
            backend.counted.clear()
            await asyncio.sleep(A_ROUND_S)
        assert max(map(len, backend.counted)) == CHANNELS_IN_TURN * len(Priority)
        assert {queue for queues in backend.counted for queue in queues} == {*MANY}

    run_virtually(scene())


def test_a_message_of_an_idle_queue_starts_at_once() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, MANY) as (_, broker):
            await asyncio.sleep(20)
            for queue in MANY:
                await broker.publish(backend.pointers(queue, 1))
                published_at = now()
                await asyncio.sleep(0.01)
                assert backend.calls_of(queue) == [pytest.approx(published_at, abs=0.001)]

    run_virtually(scene())


def test_a_burst_gets_the_floating_consumers_and_leaves_them_unassigned() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, MANY) as (pool, broker):
            await asyncio.sleep(20)
            assert pool.consumers == len(MANY)
            await broker.publish(backend.pointers(LOW, 20_000))
            await asyncio.sleep(0.5)
            assert pool.figures()[LOW].consumers >= 0.8 * FLOATING
            await broker.publish(backend.pointers(HIGH, 5_000))
            await asyncio.sleep(1.5)
            assert pool.figures()[HIGH].consumers >= FLOATING // 8
            await asyncio.sleep(30)
            assert len(backend.recorded) == 25_000
            assert pool.consumers == len(MANY)

    run_virtually(scene())


def test_due_rows_of_an_idle_queue_are_found_within_a_round() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, MANY) as (pool, _):
            await asyncio.sleep(1)
            backlog = Waiting(due=1_000, is_ceiling=True, oldest_wait=timedelta(seconds=1))
            backend.due = {LOW: backlog}
            await asyncio.sleep(A_ROUND_S)
            assert pool.figures()[LOW].consumers == 1 + FLOATING

    run_virtually(scene())


def test_a_permission_of_an_idle_queue_takes_effect_at_the_next_tick() -> None:
    async def scene() -> None:
        backend, gates = FakeBackend(), FakeGates()
        gates.permissions = dict.fromkeys(MANY, SendPermission.PAUSED)
        async with open_pool(backend, MANY, environment=deployment(gates=gates)) as (pool, broker):
            for queue in MANY:
                await broker.publish(backend.pointers(queue, 1))
            await asyncio.sleep(2)
            assert not backend.calls
            gates.permissions = {}
            pool.apply_permissions()
            await asyncio.sleep(1.5)
            assert {queue for _, queue, _ in backend.calls} == {*MANY}

    run_virtually(scene())


def test_work_that_a_probe_could_send_is_seen_within_a_second() -> None:
    async def scene() -> None:
        backend, gates = FakeBackend(), FakeGates()
        stopped = MANY[30:60:3]
        async with open_pool(backend, MANY, environment=deployment(gates=gates)) as (pool, broker):
            gates.permissions = dict.fromkeys(stopped, SendPermission.BREAKER_OPEN)
            pool.apply_permissions()
            await asyncio.sleep(20)
            for queue in stopped:
                await broker.publish(backend.pointers(queue, 1))
            waiting = Waiting(due=0, is_ceiling=False, oldest_wait=timedelta(seconds=1))
            backend.due = dict.fromkeys(stopped, waiting)
            await asyncio.sleep(0.9)
            assert [pool.has_work(queue) for queue in stopped] == [True] * len(stopped)

    run_virtually(scene())


def test_a_late_answer_is_noticed_though_the_channel_is_idle_then() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.latency_s = 12.0
        async with open_pool(backend, MANY) as (pool, broker):
            await asyncio.sleep(20)
            for queue in MANY[::3]:
                await broker.publish(backend.pointers(queue, 1))
            await asyncio.sleep(13)
            assert {pool.unanswered_s(queue.channel) for queue in MANY} == {0.0}

    run_virtually(scene())
