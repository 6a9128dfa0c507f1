"""The only clever asyncio: stopping. Stop is an event, cancellation is the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cached_property
from math import inf
from typing import Any, Final, TypeVar

T = TypeVar("T")
OVER: Final = -inf
TICK_S: Final = 0.001
"""What uvloop's timers count in: less is at once, and would go round until the clock moves."""


async def wait(stop: asyncio.Event, span: float) -> bool:
    """Sleep `span` seconds or until `stop`, whichever is first; True if stopped."""
    try:
        async with asyncio.timeout(span):
            return await stop.wait()
    except TimeoutError:
        return stop.is_set()


async def repeat(
    run_once: Callable[[], Awaitable[object]], stop: asyncio.Event, every: float
) -> None:
    """One pass after another, `every` seconds apart, until `stop`."""
    while not stop.is_set():
        await run_once()
        await wait(stop, every)


class TimeLimit:
    """A time limit of `seconds` for many calls at once, as `asyncio.timeout` for each of them.

    One timer watches over all: most calls end long before it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until: dict[asyncio.Task[Any], float] = {}
        self._is_watched = False

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: on Python 3.11 that is a system call."""
        return asyncio.get_running_loop()

    async def hold(self, call: Awaitable[T]) -> T:
        """Await the call, one at a time in a task. Raises TimeoutError once its time is over."""
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a call outside of a task cannot be cancelled")
        cancelled_before = task.cancelling()
        self._until[task] = self._loop.time() + self.seconds
        if not self._is_watched:
            self._is_watched = True
            self._loop.call_later(self.seconds, self._watch)
        try:
            answer = await call
        except asyncio.CancelledError as error:
            if self._is_over(task, cancelled_before):
                raise TimeoutError from error
            raise
        except BaseException:
            self._is_over(task, cancelled_before)
            raise
        self._is_over(task, cancelled_before)
        return answer

    def _is_over(self, task: asyncio.Task[Any], cancelled_before: int) -> bool:
        """Whether this call, which ended, was cancelled by us and by nobody else."""
        return self._until.pop(task) == OVER and task.uncancel() <= cancelled_before

    def _watch(self) -> None:
        """Cancel what is over its time; they stand in the order in which they began."""
        now = self._loop.time()
        for task, until in self._until.items():
            if until > now:
                self._loop.call_later(max(until - now, TICK_S), self._watch)
                return
            if until != OVER:
                self._until[task] = OVER
                task.cancel()
        self._is_watched = False


@asynccontextmanager
async def running(
    run: Callable[[asyncio.Event], Coroutine[None, None, None]], name: str
) -> AsyncIterator[None]:
    """Run something beside the block, and stop it when the block is left."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run(stop), name=name)
        try:
            yield
        finally:
            stop.set()
