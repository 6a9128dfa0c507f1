"""Child processes that never outlive us, and steps that run with or without an event loop.

A start or a stop is a generator of pauses in seconds. So one piece of code serves the test
fixtures (`run_steps`) and `notifier dev` (`run_steps_async`), and every fork happens on the
caller's own thread, which the leash needs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from notifier.domain.errors import NotifierError
from notifier.embedded import parent_death

Steps = Generator[float, None, None]
Signals = Sequence[tuple[signal.Signals, float]]

BEAT_S = 0.02


class ServerFailed(NotifierError):
    """A private server could not be started; the message is one line a person can act on."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a child runs as; `None` where an `Account` is optional means: as we do."""

    uid: int
    gid: int


def run_steps(steps: Steps) -> None:
    """Take all steps, sleeping in this thread."""
    for pause in steps:
        time.sleep(pause)


async def run_steps_async(steps: Steps) -> None:
    """Take all steps, sleeping in the event loop. When cancelled, the steps undo themselves."""
    try:
        for pause in steps:
            await asyncio.sleep(pause)
    finally:
        steps.close()


def until(is_so: Callable[[], bool], *, within: float, every: float = BEAT_S) -> Steps:
    """Pauses until `is_so()`, or until `within` seconds are over: ask again afterwards."""
    deadline = time.monotonic() + within
    while not is_so() and time.monotonic() < deadline:
        yield every


def spawn(
    command: Sequence[str | Path],
    *,
    dies_by: signal.Signals,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in `folder`, its output appended to `log`, dying by `dies_by` with us.

    It has its own session, so that Ctrl-C in a terminal reaches only us. The leash is tied to the
    thread that forks, so only the main thread may.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("servers end with the thread that started them: use the main thread")
    who = account or Account(-1, -1)
    bound = [os.getpid(), int(dies_by), who.uid, who.gid]
    log.touch(mode=0o600)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", parent_death.__file__, *map(str, [*bound, *command])],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ending(process: subprocess.Popen[bytes], signals: Signals) -> Steps:
    """Send each signal and give it its seconds; SIGKILL in the end, also when interrupted."""
    try:
        for number, within in signals:
            if process.poll() is None:
                process.send_signal(number)
                yield from until(lambda: process.poll() is not None, within=within)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def tail(log: Path, *, start: int = 0) -> str:
    """What was logged from byte `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")
