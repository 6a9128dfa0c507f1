"""A time limit held by one timer does to each call what `asyncio.timeout` does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from notifier.lifecycle import TimeLimit

SHORT_S = 0.05
Hold = Callable[[Awaitable[str]], Awaitable[str]]


async def _plain(call: Awaitable[str]) -> str:
    async with asyncio.timeout(SHORT_S):
        return await call


@pytest.fixture(params=["asyncio.timeout", "TimeLimit"])
def hold(request: pytest.FixtureRequest) -> Hold:
    return _plain if request.param == "asyncio.timeout" else TimeLimit(SHORT_S).hold


@asynccontextmanager
async def holding(hold: Hold, call: Awaitable[str]) -> AsyncIterator[asyncio.Task[str]]:
    async def run() -> str:
        return await hold(call)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(), name="holding")
        yield task
        task.cancel()


async def _never() -> str:
    await asyncio.Event().wait()
    return "never"


async def _stubborn() -> str:
    """Goes on after its first cancellation."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    return "went on"


async def test_a_call_in_time_answers(hold: Hold) -> None:
    assert await hold(asyncio.sleep(0, "done")) == "done"


async def test_a_call_that_takes_too_long_is_cancelled(hold: Hold) -> None:
    with pytest.raises(TimeoutError):
        await hold(_never())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_the_call_raises_is_raised(hold: Hold) -> None:
    async def fails() -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await hold(fails())


async def test_a_cancellation_by_another_is_no_timeout(hold: Hold) -> None:
    async with holding(hold, _never()) as task:
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancellation_by_another_outweighs_the_timeout(hold: Hold) -> None:
    async with holding(hold, _never()) as task:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(SHORT_S, task.cancel)
        time.sleep(2 * SHORT_S)  # both come in one tick
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_call_that_goes_on_keeps_its_answer_and_its_task(hold: Hold) -> None:
    assert await hold(_stubborn()) == "went on"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(2 * SHORT_S)  # nobody cancels it later


async def test_each_of_many_has_its_own_time() -> None:
    limit, loop = TimeLimit(SHORT_S), asyncio.get_running_loop()

    async def timed() -> tuple[float, float]:
        began = loop.time()
        with pytest.raises(TimeoutError):
            await limit.hold(_never())
        return began, loop.time()

    async with asyncio.TaskGroup() as group:
        tasks = []
        for _ in range(4):
            tasks.append(group.create_task(timed(), name="late"))
            tasks.append(
                group.create_task(limit.hold(asyncio.sleep(0, (0.0, 1.0))), name="in time")
            )
            await asyncio.sleep(SHORT_S / 3)
    spans = [ended - began for began, ended in (task.result() for task in tasks)]
    assert min(spans) >= 0.9 * SHORT_S


async def test_after_a_rest_it_holds_again() -> None:
    limit = TimeLimit(SHORT_S)
    assert await limit.hold(asyncio.sleep(0, 1)) == 1
    await asyncio.sleep(2 * SHORT_S)  # its timer found nothing to watch
    with pytest.raises(TimeoutError):
        await limit.hold(_never())
    with pytest.raises(TimeoutError):
        await limit.hold(_never())
