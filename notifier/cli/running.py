"""Runs a command's coroutine on uvloop, and turns signals into a stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

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
    try:
        run_briefly(_supervise(main))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it has ended already: keep its exit code


async def _supervise(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_signal, number, stop)
    await main(stop)


def _on_signal(number: signal.Signals, stop: asyncio.Event) -> None:
    if stop.is_set():
        _tell(f"{number.name} again: ending at once; what was under way stays `sending`.")
        os._exit(1)
    _tell(f"{number.name}: stopping, what is under way is finished. Once more ends at once.")
    stop.set()


def _tell(line: str) -> None:
    print(f"notifier: {line}", file=sys.stderr, flush=True)
