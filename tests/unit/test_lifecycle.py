"""Waits, back-offs and time limits. TimeLimit treats each call as `asyncio.timeout` does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from notifier import lifecycle
from notifier.lifecycle import Backoff, TimeLimit, wait
from tests.doubles import Draws

SHORT_S = 0.05
RunLimited = Callable[[Awaitable[str]], Awaitable[str]]


async def test_a_wait_ends_when_the_event_is_set() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait(event, 3600.0)


async def test_a_wait_ends_after_its_timeout() -> None:
    assert not await wait(asyncio.Event(), SHORT_S)


async def test_a_wait_for_an_event_that_is_set_returns_at_once() -> None:
    event = asyncio.Event()
    event.set()
    assert await wait(event, 0.0)


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 0.5)
    assert [backoff.next_s() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_after_a_success_the_delays_start_from_the_first() -> None:
    backoff = Backoff(1.0, 60.0)
    fresh = [backoff.is_fresh]
    delays = [backoff.next_s(), backoff.next_s()]
    fresh.append(backoff.is_fresh)
    backoff.reset()
    fresh.append(backoff.is_fresh)
    assert [*delays, backoff.next_s()] == [1.0, 2.0, 1.0]
    assert fresh == [True, False, True]


def test_half_of_a_delay_is_random() -> None:
    backoff = Backoff(1.0, 60.0, random=Draws(0.0, 0.5, 1.0))
    assert [backoff.next_s() for _ in range(3)] == [0.5, 1.5, 4.0]


async def _with_asyncio_timeout(call: Awaitable[str]) -> str:
    async with asyncio.timeout(SHORT_S):
        return await call


@pytest.fixture(params=["asyncio.timeout", "TimeLimit"])
def run_limited(request: pytest.FixtureRequest) -> RunLimited:
    return _with_asyncio_timeout if request.param == "asyncio.timeout" else TimeLimit(SHORT_S).run


@asynccontextmanager
async def limited_task(
    run_limited: RunLimited, call: Awaitable[str]
) -> AsyncIterator[asyncio.Task[str]]:
    async def run() -> str:
        return await run_limited(call)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(), name="limited")
        yield task
        task.cancel()


async def _never() -> str:
    await asyncio.Event().wait()
    return "never"


async def _ignores_one_cancellation() -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    return "went on"


async def test_a_call_within_the_limit_returns_its_result(run_limited: RunLimited) -> None:
    assert await run_limited(asyncio.sleep(0, "done")) == "done"


async def test_a_call_that_takes_too_long_is_cancelled(run_limited: RunLimited) -> None:
    with pytest.raises(TimeoutError):
        await run_limited(_never())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_of_the_call_is_raised(run_limited: RunLimited) -> None:
    async def fails() -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await run_limited(fails())


async def test_a_cancellation_from_outside_is_not_a_timeout(run_limited: RunLimited) -> None:
    async with limited_task(run_limited, _never()) as task:
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancellation_from_outside_wins_over_the_timeout(run_limited: RunLimited) -> None:
    async with limited_task(run_limited, _never()) as task:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(SHORT_S, task.cancel)
        time.sleep(2 * SHORT_S)  # both happen in one tick of the loop
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_call_that_ignores_its_cancellation_returns_its_result(
    run_limited: RunLimited,
) -> None:
    assert await run_limited(_ignores_one_cancellation()) == "went on"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(2 * SHORT_S)  # the task is not cancelled later either


async def test_each_of_many_calls_has_its_own_deadline() -> None:
    limit, loop = TimeLimit(SHORT_S), asyncio.get_running_loop()

    async def timed() -> tuple[float, float]:
        began = loop.time()
        with pytest.raises(TimeoutError):
            await limit.run(_never())
        return began, loop.time()

    async with asyncio.TaskGroup() as group:
        tasks = []
        for _ in range(4):
            tasks.append(group.create_task(timed(), name="late"))
            tasks.append(group.create_task(limit.run(asyncio.sleep(0, (0.0, 1.0))), name="in time"))
            await asyncio.sleep(SHORT_S / 3)
    spans = [ended - began for began, ended in (task.result() for task in tasks)]
    assert min(spans) >= 0.9 * SHORT_S


async def test_the_limit_holds_again_after_a_time_without_calls() -> None:
    limit = TimeLimit(SHORT_S)
    assert await limit.run(asyncio.sleep(0, 1)) == 1
    await asyncio.sleep(2 * SHORT_S)  # its timer found no call
    with pytest.raises(TimeoutError):
        await limit.run(_never())
    with pytest.raises(TimeoutError):
        await limit.run(_never())


async def test_a_run_that_lasts_longer_than_its_grace_after_the_stop_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "STOP_GRACE_S", 0.01)
    stop, was_cancelled = asyncio.Event(), asyncio.Event()

    class Hanging:
        async def run_once(self) -> None:
            stop.set()
            try:
                await asyncio.Event().wait()
            finally:
                was_cancelled.set()

    await lifecycle.repeat(Hanging(), stop, 1.0)
    assert was_cancelled.is_set()
