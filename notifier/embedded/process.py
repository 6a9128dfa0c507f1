"""Child processes that end with their parent, and steps that run with or without an event loop.

A start or a stop is a generator that yields pauses in seconds. So one piece of code serves the
test fixtures (`run_steps`) and `notifier dev` (`run_steps_async`), and every fork happens in the
caller's thread: the kernel ties the child to that thread.
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
from typing import Final

from notifier.domain.errors import NotifierError
from notifier.embedded import parent_death

Steps = Generator[float, None, None]
Signals = Sequence[tuple[signal.Signals, float]]
"""Signals to send in this order, each with the seconds to wait for its effect."""

POLL_INTERVAL_S: Final = 0.02


class ServerFailed(NotifierError):
    """A private server did not start; the message is one line with the fix."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user and group of a child process."""

    uid: int
    gid: int


def run_steps(steps: Steps) -> None:
    """Run all steps; the pauses block this thread."""
    for pause_s in steps:
        time.sleep(pause_s)


async def run_steps_async(steps: Steps) -> None:
    """Run all steps; the event loop runs during the pauses. A cancellation undoes the steps."""
    try:
        for pause_s in steps:
            await asyncio.sleep(pause_s)
    finally:
        steps.close()


def until(
    condition: Callable[[], bool], *, timeout_s: float, interval_s: float = POLL_INTERVAL_S
) -> Steps:
    """Pause until the condition is true or the time-out has passed; the caller checks which."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        yield interval_s


def spawn(
    command: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in `folder` with its output appended to `log`.

    The kernel sends it `death_signal` when this process ends. It has its own session, so that
    Ctrl-C in a terminal reaches only this process. Raises RuntimeError outside the main thread: the
    child would end with the thread that forks.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "a server must be started in the main thread: it ends with the thread that starts it"
        )
    user = account or Account(-1, -1)
    script_arguments = [os.getpid(), int(death_signal), user.uid, user.gid]
    log.touch(mode=0o600)
    with log.open("ab") as output:
        return subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", parent_death.__file__),
                *map(str, [*script_arguments, *command]),
            ],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def terminating(process: subprocess.Popen[bytes], signals: Signals) -> Steps:
    """Send each signal and wait for its seconds; SIGKILL at the end, also when interrupted."""
    try:
        for number, wait_s in signals:
            if process.poll() is None:
                process.send_signal(number)
                yield from until(lambda: process.poll() is not None, timeout_s=wait_s)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def read_log(log: Path, *, start: int = 0) -> str:
    """Return the text of a log from byte `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")
