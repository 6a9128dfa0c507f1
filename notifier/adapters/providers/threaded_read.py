"""A read of the world that may hang: in a thread that keeps no process from ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Generic, TypeVar

from notifier.domain.errors import ConfigError

T = TypeVar("T")


class ThreadedRead(Generic[T]):
    """Calls `read`, which may raise ConfigError or OSError, one at a time.

    A thread of an executor would be joined when the interpreter ends, however long it hangs.
    """

    def __init__(self, name: str, read: Callable[[], T]) -> None:
        self._name = name
        self._read = read
        self._thread: Thread | None = None

    async def __call__(self) -> T:
        """What it read. Raises what `read` raises, and TimeoutError while the last one hangs."""
        if self._thread is not None and self._thread.is_alive():
            raise TimeoutError("the last read has not ended")
        loop = asyncio.get_running_loop()
        told: asyncio.Future[T] = loop.create_future()
        self._thread = Thread(target=self._run, args=(loop, told), name=self._name, daemon=True)
        self._thread.start()
        return await told

    def _run(self, loop: asyncio.AbstractEventLoop, told: asyncio.Future[T]) -> None:
        try:
            answer = self._read()
        except (ConfigError, OSError) as error:
            how = partial(_fail, told, error)
        else:
            how = partial(_answer, told, answer)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(how)


def _answer(told: asyncio.Future[T], answer: T) -> None:
    if not told.done():
        told.set_result(answer)


def _fail(told: asyncio.Future[T], error: Exception) -> None:
    if not told.done():
        told.set_exception(error)
