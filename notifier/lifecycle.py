"""Waiting, repeating and stopping. A stop is an event, a deadline is a cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cached_property, partial
from math import inf
from random import Random
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")
Clock = Callable[[], float]
"""Seconds; of a monotonic clock, unless said otherwise."""
UPTIME_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
uptime_s: Final[Clock] = partial(time.clock_gettime, UPTIME_CLOCK)
"""Returns monotonic seconds that go on while the machine is suspended, where the system can.

Ages of claims and heartbeats: after a suspension others may have taken over."""
EXPIRED: Final = -inf
STOP_GRACE_S: Final = 2.0
"""How long maintenance that is under way at a stop may go on."""
MIN_TIMER_S: Final = 0.001
"""uvloop's timers have a resolution of 1 ms: a shorter one fires at once, in a busy loop."""


async def wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until `event` is set or `timeout_s` have passed; return whether it is set."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return event.is_set()


async def rest(worked_s: float, *, times: float, max_s: float) -> None:
    """Sleep `times` as long as a piece of work took, at most `max_s`: others get the time."""
    await asyncio.sleep(min(max_s, times * worked_s))


class RepeatedTask(Protocol):
    """A task that is done again and again."""

    async def run_once(self) -> object:
        """Do it once."""
        ...


async def repeat(task: RepeatedTask, stop: asyncio.Event, interval_s: float) -> None:
    """Run the task, wait `interval_s`, and so on until `stop` is set.

    A run that lasts STOP_GRACE_S longer is cancelled.
    """
    await cancelled_after_stop(_repeat(task, stop, interval_s), stop)


async def _repeat(task: RepeatedTask, stop: asyncio.Event, interval_s: float) -> None:
    while not stop.is_set():
        await task.run_once()
        await wait(stop, interval_s)


async def cancelled_after_stop(run: Coroutine[Any, Any, object], stop: asyncio.Event) -> None:
    """Run a coroutine that ends after `stop`, and cancel it if it lasts STOP_GRACE_S longer.

    For what may be cut off: several of them may wait for one connection, each for its time limit.
    """
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run, name="until the stop")
        await stop.wait()
        await asyncio.wait([task], timeout=STOP_GRACE_S)
        task.cancel()


class StoppableTask(Protocol):
    """A task that runs until it is told to stop."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set."""
        ...


@asynccontextmanager
async def background_task(task: StoppableTask, name: str) -> AsyncIterator[None]:
    """Run a task during the block. Leaving the block sets its stop event and waits for its end."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(task.run(stop), name=name)
        try:
            yield
        finally:
            stop.set()


class Backoff:
    """Delays that double from `first_s` to `max_s`, to wait between attempts that fail.

    Half of a delay is fixed and half is multiplied by a number from `random`, so that many
    processes do not retry in step. Without it the delays are exact.
    """

    def __init__(self, first_s: float, max_s: float, *, random: Random | None = None) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._random = random
        self._next_s = first_s

    @property
    def is_fresh(self) -> bool:
        """Whether no attempt has failed since the last success."""
        return self._next_s == self._first_s

    def next_s(self) -> float:
        """Return the delay after one more failure, in seconds."""
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, self._max_s)
        jitter = self._random.random() if self._random else 1.0
        return delay_s / 2 + jitter * delay_s / 2

    def reset(self) -> None:
        """Record a success: the next delay is the first one again."""
        self._next_s = self._first_s


class TimeLimit:
    """A limit of `seconds` on each of many concurrent calls.

    Each call is treated as by `asyncio.timeout`, but one timer serves them all: nearly every call
    ends long before its limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._is_timer_set = False

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # Read once: on Python 3.11 `get_running_loop` makes a system call.
        return asyncio.get_running_loop()

    async def run(self, call: Awaitable[T]) -> T:
        """Await `call` in the current task; one call per task at a time.

        Raises TimeoutError when the limit is exceeded.
        """
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("TimeLimit.run needs a task, because it cancels the one it runs in")
        cancelled_before = task.cancelling()
        self._deadlines[task] = self._loop.time() + self.seconds
        if not self._is_timer_set:
            self._is_timer_set = True
            self._loop.call_later(self.seconds, self._cancel_expired)
        try:
            return await call
        except asyncio.CancelledError as error:
            is_only_cancel = task.cancelling() == cancelled_before + 1
            if self._deadlines[task] == EXPIRED and is_only_cancel:
                raise TimeoutError from error
            raise
        finally:
            if self._deadlines.pop(task) == EXPIRED:
                task.uncancel()

    def _cancel_expired(self) -> None:
        """Cancel the calls past their deadline and set the timer for the next one."""
        now = self._loop.time()
        for task, deadline in self._deadlines.items():  # in the order of their deadlines
            if deadline > now:
                self._loop.call_later(max(deadline - now, MIN_TIMER_S), self._cancel_expired)
                return
            if deadline != EXPIRED:
                self._deadlines[task] = EXPIRED
                task.cancel()
        self._is_timer_set = False
