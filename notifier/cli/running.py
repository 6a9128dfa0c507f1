"""Runs a command's coroutine on uvloop, and turns signals into a stop."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeVar

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)
ECHO_S: Final = 1.0
GARBAGE_AT: Final = 20_000
FILES: Final = 65_536

T = TypeVar("T")


def run_briefly(work: Coroutine[object, object, T]) -> T:
    """Run a command that ends by itself; Ctrl-C cancels it and raises KeyboardInterrupt."""
    import uvloop  # noqa: PLC0415 start-up time

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def run_until_signal(
    main: Callable[[asyncio.Event], Awaitable[None]], *, has_parent: bool = False
) -> None:
    """Run a process until it ends by itself or after a signal.

    The first SIGINT or SIGTERM sets the event given to `main`; the second ends the process at once
    with exit code 1. With a parent, which hands signals on, one within a second of the first is the
    same: whoever stops a service may have told them both.
    """
    stop, told = asyncio.Event(), _Told(ECHO_S if has_parent else 0.0)
    run_told(lambda: main(stop), lambda number: told.on_signal(number, stop))


def started() -> None:
    """Say that what exists now is there to stay: the garbage collector passes over it.

    Else it walks through every module's objects again, about once a second under load, and nothing
    else runs for 35 ms. What a few hundred attempts hold at once is no garbage either.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AT)


def run_told(main: Callable[[], Awaitable[T]], on_signal: Callable[[signal.Signals], None]) -> T:
    """Run a process until it ends by itself; every SIGINT and SIGTERM calls `on_signal`."""
    _allow_files()
    try:
        return run_briefly(_told(main, on_signal))
    finally:
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)  # it has ended already: keep its exit code


def _allow_files() -> None:
    """What a shell allows at first, 1,024, is less than the callers we take."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


async def _told(main: Callable[[], Awaitable[T]], on_signal: Callable[[signal.Signals], None]) -> T:
    loop = asyncio.get_running_loop()
    for number in _NUMBERS:
        loop.add_signal_handler(number, on_signal, number)
    return await main()


class _Told:
    """What the signals mean that come one after the other."""

    def __init__(self, echo_s: float) -> None:
        self._echo_s = echo_s
        self._first_at = float("inf")

    def on_signal(self, number: signal.Signals, stop: asyncio.Event) -> None:
        now = time.monotonic()
        if now < self._first_at:
            tell(f"{number.name}: stopping, what is under way is finished. Once more ends at once.")
            self._first_at = now
            stop.set()
        elif now - self._first_at >= self._echo_s:
            tell(f"{number.name} again: ending at once; what was under way counts as ambiguous.")
            os._exit(1)


def tell(line: str) -> None:
    """One line for the person at the terminal."""
    print(f"notifier: {line}", file=sys.stderr, flush=True)
