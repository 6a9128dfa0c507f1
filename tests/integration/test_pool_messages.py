"""A whole consumer pool: no message is lost, in faults and at the stop."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from notifier.ports.attempts import ClaimedRow
from notifier.ports.broker import Depth, Pointer
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES
from tests.scheduling_fakes import (
    FakeBackend,
    now,
    open_pool,
)
from tests.virtual_time import run_virtually


@pytest.mark.parametrize("seed", range(5))
def test_every_message_is_attempted_in_spite_of_moves_and_lost_connections(seed: int) -> None:
    """Each row is attempted once: a redelivered copy carries an old claim number.

    The load has lost connections, bursts, slow sends and quick sends.
    """

    async def scene() -> None:
        backend, random = FakeBackend(), Random(seed)
        async with open_pool(backend, consumers=16) as (pool, broker):
            published: list[Pointer] = []
            for _ in range(60):
                backend.latency_s = random.choice([0.0, 0.001, 0.03, 0.3])
                batch = backend.pointers(random.choice(QUEUES), random.choice([1, 2, 40, 400]))
                published += batch
                await broker.publish(batch)
                await asyncio.sleep(random.choice([0.0, 0.01, 0.2, 0.7]))
                if random.random() < 0.1:
                    await broker.cut()
            backend.latency_s = 0.001
            for _ in range(400):
                again, backend.returned = backend.returned, []
                published_again = await broker.publish(again)
                assert all(published_again)
                await asyncio.sleep(0.1)
            assert set(backend.recorded) == {pointer.id for pointer in published}
            assert set(backend.ids_called().values()) == {1}
            assert all(side.held == 0 for side in pool.figures().values())

    run_virtually(scene())


def test_without_faults_a_message_is_attempted_or_given_back_and_never_both() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend) as (pool, broker):
            backend.latency_s = 0.3
            low = backend.pointers(EMAIL_LOW, 2_000)
            await broker.publish(low)
            await asyncio.sleep(2)
            await broker.publish(backend.pointers(EMAIL_HIGH, 5_000))
            await asyncio.sleep(5)
            assert pool.figures()[EMAIL_LOW].consumers < 32
            called = {id_ for _, _, id_ in backend.calls}
            returned = {pointer.id for pointer in backend.returned}
            assert returned
            assert not called & returned

    run_virtually(scene())


def test_a_lost_connection_drops_the_buffer_and_attempts_in_flight_continue() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.latency_s = 1.0
        async with open_pool(backend, [EMAIL_LOW], consumers=3) as (pool, broker):
            await broker.publish(backend.pointers(EMAIL_LOW, 8))
            await asyncio.sleep(0.5)
            assert (pool.figures()[EMAIL_LOW].busy, pool.figures()[EMAIL_LOW].held) == (4, 4)
            await broker.cut()
            assert (pool.figures()[EMAIL_LOW].busy, pool.figures()[EMAIL_LOW].held) == (4, 0)
            await asyncio.sleep(5)
            # The four in flight were delivered again, and their claims refused.
            assert backend.rows_claimed == 12
            assert pool.figures()[EMAIL_LOW].done == 8
            assert len(backend.recorded) == 8
            assert pool.figures()[EMAIL_LOW].held == 0

    run_virtually(scene())


def test_a_message_buffered_for_a_minute_is_given_back_and_acknowledged_afterwards() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        rate = 0.005
        async with open_pool(backend, [EMAIL_LOW], consumers=1, consumer_rate=rate) as (
            pool,
            broker,
        ):
            pointers = backend.pointers(EMAIL_LOW, 4)
            await broker.publish(pointers)
            await asyncio.sleep(1)
            assert len(backend.calls) == 2
            backend.refusals = 2
            held_at_return: list[int] = []
            backend.on_return = lambda: held_at_return.append(pool.figures()[EMAIL_LOW].held)
            await asyncio.sleep(200)
            taken = {id_ for _, _, id_ in backend.calls}
            assert not taken & {pointer.id for pointer in backend.returned}
            assert taken | {pointer.id for pointer in backend.returned} == {
                pointer.id for pointer in pointers
            }
            assert pool.figures()[EMAIL_LOW].held == 0
            assert backend.refusals == 0
            assert held_at_return[:3] == [1, 1, 1]

    run_virtually(scene())


def test_a_stop_gives_the_buffers_back_and_lets_attempts_finish() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.latency_s = 2.0
        async with open_pool(backend, [EMAIL_LOW, EMAIL_HIGH], consumers=4) as (pool, broker):
            await broker.publish(backend.pointers(EMAIL_LOW, 20))
            await asyncio.sleep(1.5)
            running = pool.busy
            await pool.stop_taking()
            assert backend.returned
            assert pool.figures()[EMAIL_LOW].held == running
            await broker.publish(backend.pointers(EMAIL_HIGH, 5))
            assert await pool.finish(0.1) == running > 0
            assert await pool.finish(5) == 0
            calls = len(backend.calls)
            await asyncio.sleep(5)
            assert len(backend.calls) == calls
            assert not backend.ids_called().keys() & {pointer.id for pointer in backend.returned}
            assert (await broker.depths())[EMAIL_HIGH] == Depth(5, 0)
        assert backend.cancelled == 0

    run_virtually(scene())


def test_attempts_that_do_not_finish_are_cancelled_at_the_end() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.latency_s = 3600
        async with open_pool(backend, [EMAIL_LOW], consumers=4) as (pool, broker):
            await broker.publish(backend.pointers(EMAIL_LOW, 3))
            await asyncio.sleep(0.5)
            await pool.stop_taking()
            assert await pool.finish(10) == 3
        assert backend.cancelled == 3

    run_virtually(scene())


class FailingAttempts(FakeBackend):
    """A backend whose attempts raise."""

    async def call(self, _: ClaimedRow) -> bool:
        raise ZeroDivisionError


def test_an_attempt_that_raises_ends_the_pool() -> None:
    async def scene() -> None:
        async with open_pool(backend := FailingAttempts()) as (_, broker):
            await broker.publish(backend.pointers(EMAIL_LOW, 1))
            await asyncio.sleep(3600)

    with pytest.raises(ExceptionGroup) as caught:
        run_virtually(scene())
    assert caught.group_contains(ZeroDivisionError, depth=1)


def test_the_heartbeat_figures_report_held_messages_and_the_drained_time() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_pool(backend, [EMAIL_LOW], consumers=2) as (pool, broker):
            await broker.publish(backend.pointers(EMAIL_LOW, 1))
            published = now()
            await asyncio.sleep(8)
            figures = pool.figures()[EMAIL_LOW]
            assert figures.watermark is None
            assert 6 < figures.drained_s < 8
            assert (figures.consumers, figures.busy, figures.held) == (3, 0, 0)
            assert figures.service_s == pytest.approx(0.02)
            await asyncio.sleep(3)
            assert pool.figures()[EMAIL_LOW].watermark == pytest.approx(published, abs=1e-6)
            backend.latency_s = 5
            await broker.publish(backend.pointers(EMAIL_LOW, 1))
            taken = now()
            await asyncio.sleep(1)
            figures = pool.figures()[EMAIL_LOW]
            assert (figures.busy, figures.held) == (1, 1)
            assert figures.held_since == pytest.approx(taken, abs=1e-6)
            assert figures.drained_s == 0

    run_virtually(scene())
