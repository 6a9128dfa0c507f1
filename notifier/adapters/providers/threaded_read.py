"""A blocking read in a daemon thread, which does not keep the process from ending."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Generic, Protocol, TypeVar

from notifier.domain.errors import ConfigError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Read(Protocol[T_co]):
    """Reads a value; may block. Raises ConfigError or OSError."""

    def __call__(self) -> T_co: ...


class ThreadedRead(Generic[T]):
    """Calls `read` in a thread, one call at a time."""

    # A thread of an executor would be joined when the interpreter ends, however long it hangs.

    def __init__(self, name: str, read: Read[T]) -> None:
        self._name = name
        self._read = read
        self._thread: Thread | None = None

    async def __call__(self) -> T:
        """Return the value that `read` returns.

        Raises ConfigError and OSError from `read`, and TimeoutError while an earlier read hangs.
        Cancelled, it leaves the thread running.
        """
        if self._thread is not None and self._thread.is_alive():
            raise TimeoutError("the last read has not ended")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._thread = Thread(target=self._run, args=(loop, future), name=self._name, daemon=True)
        self._thread.start()
        return await future

    def _run(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
        try:
            value = self._read()
        except (ConfigError, OSError) as error:
            report = partial(_set_exception, future, error)
        else:
            report = partial(_set_result, future, value)
        with suppress(RuntimeError):  # the loop is closed: the result is not needed any longer
            loop.call_soon_threadsafe(report)


def _set_result(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
