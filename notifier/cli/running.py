"""Runs a command's coroutine on uvloop, and turns signals into a stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeVar

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)

T = TypeVar("T")


def run_briefly(work: Coroutine[object, object, T]) -> T:
    """Run a command that ends by itself; Ctrl-C cancels it and raises KeyboardInterrupt."""
    import uvloop  # noqa: PLC0415 start-up time

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def run_until_signal(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a process until it ends by itself or after a signal.

    The first SIGINT or SIGTERM sets the event given to `main`; the second ends the process at once
    with exit code 1.
    """
    stop = asyncio.Event()
    run_told(lambda: main(stop), lambda number: _on_signal(number, stop))


def run_told(main: Callable[[], Awaitable[T]], on_signal: Callable[[signal.Signals], None]) -> T:
    """Run a process until it ends by itself; every SIGINT and SIGTERM calls `on_signal`."""
    try:
        return run_briefly(_told(main, on_signal))
    finally:
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)  # it has ended already: keep its exit code


async def _told(main: Callable[[], Awaitable[T]], on_signal: Callable[[signal.Signals], None]) -> T:
    loop = asyncio.get_running_loop()
    for number in _NUMBERS:
        loop.add_signal_handler(number, on_signal, number)
    return await main()


def _on_signal(number: signal.Signals, stop: asyncio.Event) -> None:
    if stop.is_set():
        tell(f"{number.name} again: ending at once; what was under way counts as ambiguous.")
        os._exit(1)
    tell(f"{number.name}: stopping, what is under way is finished. Once more ends at once.")
    stop.set()


def tell(line: str) -> None:
    """One line for the person at the terminal."""
    print(f"notifier: {line}", file=sys.stderr, flush=True)
