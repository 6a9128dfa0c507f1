"""Runs the coroutine of a command on uvloop, and turns signals into a stop."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Final, NoReturn, TypeVar

from notifier.cli.messages import print_message, print_message_at_once
from notifier.cli.streams import write_without_blocking

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDING: Final = "ending at once; sends in flight are ambiguous."
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
    main: Callable[[asyncio.Event], Awaitable[None]],
    *,
    has_parent: bool = False,
    stop_limit_s: float = inf,
) -> None:
    """Run `main(stop)` until it returns.

    The first SIGINT, SIGTERM or SIGHUP sets `stop`; the second ends the process at once with exit
    code 1. None of it depends on stdout or stderr.
    With `has_parent`, a second signal within 1 s is ignored: a service manager may have signalled
    both this process and its parent, which forwards signals.
    A stop that takes longer than `stop_limit_s` ends the process with exit code 1: a server that
    does not answer costs each of its last statements a time-out.
    """
    stop = asyncio.Event()
    signals = _StopSignals(stop, DUPLICATE_SIGNAL_S if has_parent else 0.0, stop_limit_s)
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
    """Run `main()` until it returns; every stop signal calls `on_signal` in the event loop.

    A signal that arrives while the loop has not run the call for one a second before ends the
    process with exit code 1: the loop is stuck.
    """
    _raise_open_files_limit()
    relay = _SignalRelay(on_signal)
    try:
        return run_async(_with_relay(main, relay))
    finally:
        relay.main_has_ended()


def _raise_open_files_limit() -> None:
    """Raise the limit of open files; the usual 1,024 is below the connections an API accepts."""
    limit, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if maximum == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, maximum)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, maximum))


async def _with_relay(main: Callable[[], Awaitable[T]], relay: _SignalRelay) -> T:
    relay.start(asyncio.get_running_loop())
    return await main()


class _SignalRelay:
    """Handles the stop signals and calls `on_signal` in the loop.

    The handlers are Python's and not the loop's, because they also run while the loop waits in a
    write to a pipe that nobody reads.
    """

    def __init__(self, on_signal: Callable[[signal.Signals], None]) -> None:
        self._on_signal = on_signal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unhandled_since = float("inf")
        self._late_signals = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle the signals from now on. A SIGHUP that is ignored (nohup) stays ignored."""
        self._loop = loop
        for number in _STOP_SIGNALS:
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            signal.signal(number, self._handle)

    def main_has_ended(self) -> None:
        """Keep main's exit code at the next signal; the one after that ends the process."""
        self._loop = None

    def _handle(self, number: int, _: object) -> None:
        write_without_blocking()
        now = time.monotonic()
        if self._loop is None or self._loop.is_closed():
            self._late_signals += 1
            if self._late_signals > 1:
                _end_at_once(signal.Signals(number))
        elif now - self._unhandled_since >= DUPLICATE_SIGNAL_S:
            _end_at_once(signal.Signals(number))
        else:
            self._unhandled_since = min(self._unhandled_since, now)
            self._loop.call_soon_threadsafe(self._call, signal.Signals(number))

    def _call(self, number: signal.Signals) -> None:
        self._unhandled_since = float("inf")
        self._on_signal(number)


def _end_at_once(number: signal.Signals) -> NoReturn:
    print_message_at_once(f"{number.name} again: {ENDING}")
    os._exit(1)


class _StopSignals:
    """The first signal sets `stop`; a later one, after `duplicate_s`, ends the process."""

    def __init__(self, stop: asyncio.Event, duplicate_s: float, stop_limit_s: float) -> None:
        self._stop = stop
        self._duplicate_s = duplicate_s
        self._stop_limit_s = stop_limit_s
        self._first_at = float("inf")

    def on_signal(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if now < self._first_at:
            self._first_at = now
            self._stop.set()
            if self._stop_limit_s < inf:
                asyncio.get_running_loop().call_later(self._stop_limit_s, self._on_time_out)
            print_message(
                f"{number.name}: stopping after the work in flight. "
                "A second signal ends the process at once."
            )
        elif now - self._first_at >= max(self._duplicate_s, duplicate_span_s(number)):
            _end_at_once(number)

    def _on_time_out(self) -> None:
        print_message_at_once(f"still stopping after {self._stop_limit_s:g} s: {ENDING}")
        os._exit(1)


def duplicate_span_s(number: signal.Signals) -> float:
    """For how long after a first signal this one is a copy of it, in seconds.

    A closed terminal sends SIGHUP twice: once by the shell and once by the kernel.
    """
    return DUPLICATE_SIGNAL_S if number is signal.SIGHUP else 0.0
