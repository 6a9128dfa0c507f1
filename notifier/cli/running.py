"""Runs the coroutine of a command on uvloop, and turns signals into a stop."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeVar

from notifier.cli.messages import print_message

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
DUPLICATE_SIGNAL_S: Final = 1.0
GC_THRESHOLD: Final = 20_000
MAX_OPEN_FILES: Final = 65_536

T = TypeVar("T")


def run_async(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end. Ctrl-C cancels it and raises KeyboardInterrupt."""
    import uvloop  # noqa: PLC0415 start-up time

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def run_until_signal(
    main: Callable[[asyncio.Event], Awaitable[None]], *, has_parent: bool = False
) -> None:
    """Run `main(stop)` until it returns.

    The first SIGINT or SIGTERM sets `stop`; the second ends the process at once with exit code 1.
    With `has_parent`, a second signal within 1 s is ignored: a service manager may have signalled
    both this process and its parent, which forwards signals.
    """
    stop = asyncio.Event()
    signals = _StopSignals(stop, DUPLICATE_SIGNAL_S if has_parent else 0.0)
    run_with_signals(lambda: main(stop), signals.on_signal)


def freeze_startup_objects() -> None:
    """Exclude the objects that exist now from garbage collection; call it after the start.

    Otherwise every full collection, about once a second under load, visits all objects of all
    modules and blocks the loop for 35 ms. The threshold is above the objects of a few hundred
    attempts in flight, which are no garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def run_with_signals(
    main: Callable[[], Awaitable[T]], on_signal: Callable[[signal.Signals], None]
) -> T:
    """Run `main()` until it returns; every SIGINT and SIGTERM calls `on_signal`."""
    _raise_open_files_limit()
    try:
        return run_async(_with_handlers(main, on_signal))
    finally:
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # main has returned: keep its exit code


def _raise_open_files_limit() -> None:
    """Raise the limit of open files; the usual 1,024 is below the connections an API accepts."""
    limit, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if maximum == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, maximum)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, maximum))


async def _with_handlers(
    main: Callable[[], Awaitable[T]], on_signal: Callable[[signal.Signals], None]
) -> T:
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    return await main()


class _StopSignals:
    """The first signal sets `stop`; a later one, after `duplicate_s`, ends the process."""

    def __init__(self, stop: asyncio.Event, duplicate_s: float) -> None:
        self._stop = stop
        self._duplicate_s = duplicate_s
        self._first_at = float("inf")

    def on_signal(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if now < self._first_at:
            print_message(
                f"{number.name}: stopping after the work in flight. "
                "A second signal ends the process at once."
            )
            self._first_at = now
            self._stop.set()
        elif now - self._first_at >= self._duplicate_s:
            print_message(f"{number.name} again: ending at once; sends in flight are ambiguous.")
            os._exit(1)
