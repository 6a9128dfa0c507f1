"""`--processes N`: a parent process that keeps N children running until it gets a signal.

Each child has its own session, so Ctrl-C in a terminal reaches only the parent, which forwards it
once. A child gets SIGTERM when its parent ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

import structlog

from notifier.cli.failures import FAILED, MISUSED
from notifier.cli.messages import print_message
from notifier.cli.running import ENDING, duplicate_span_s, run_with_signals
from notifier.embedded import parent_death
from notifier.lifecycle import Backoff, wait

FIRST_RESTART_DELAY_S: Final = 1.0
MAX_RESTART_DELAY_S: Final = 30.0
STEADY_S: Final = 60.0
"""A process that ran this long did start: the delays begin at 1 s again."""
KILL_DELAY_S: Final = 2.0
CLEAN_EXIT_CODES: Final = (0, -signal.SIGTERM)
"""Exit codes after a stop. A child that gets SIGTERM before its handler exists dies by it."""

log = structlog.get_logger(__name__)


def run_children(commands: Iterable[Sequence[str]]) -> int:
    """Run each command in its own process until a signal. Returns the exit code.

    0: all children stopped cleanly. 2: a child rejected a setting at its first start. 1: otherwise.
    """
    supervisor = Supervisor([Child(number, command) for number, command in enumerate(commands)])
    return run_with_signals(supervisor.run, supervisor.on_signal)


class Child:
    """One command and, while it runs, its process."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self.number = number
        self.starts = 0
        self._backoff = Backoff(FIRST_RESTART_DELAY_S, MAX_RESTART_DELAY_S)
        self._command = command
        self._process: Process | None = None

    async def run_once(self, stop: asyncio.Event) -> tuple[int, float]:
        """Start the process and wait for its end. Returns its exit code and running time in s."""
        self.starts += 1
        started_at = time.monotonic()
        try:
            self._process = await create_subprocess_exec(
                *_bound_to_parent(self._command), stdin=DEVNULL, start_new_session=True
            )
        except OSError as error:  # such as no memory: the other children keep running
            log.error("process_start_failed", process=self.number, reason=error.strerror)  # noqa: TRY400 the reason is enough
            return FAILED, 0.0
        if stop.is_set():  # the stop came during the start
            self.send_signal(signal.SIGTERM)
        code = await self._process.wait()
        self._process = None
        return code, time.monotonic() - started_at

    def restart_delay_s(self, ran_s: float) -> float:
        """Return the delay before the next start, after a process that ran for `ran_s`."""
        if ran_s >= STEADY_S:
            self._backoff.reset()
        return self._backoff.next_s()

    def send_signal(self, number: signal.Signals) -> None:
        """Send the signal if the process runs."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)


class Supervisor:
    """Starts every child, and restarts it until a signal asks for the stop."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._stop = asyncio.Event()
        self._code = 0
        self._stopped_at = -inf

    async def run(self) -> int:
        """Run until all children have ended after a stop. Returns the exit code."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._keep_running(child), name=f"process {child.number}")
        return self._code

    def on_signal(self, number: signal.Signals) -> None:
        """Stop all children at the first signal; forward later ones and soon send SIGKILL."""
        now = time.monotonic()
        if not self._stop.is_set():
            self._stopped_at = now
            self._begin_stop(0)
            print_message(
                f"{number.name}: stopping {len(self._children)} processes. "
                "A second signal ends them at once."
            )
        elif now - self._stopped_at >= duplicate_span_s(number):
            self._code = self._code or FAILED
            self._signal_all(signal.SIGTERM)
            asyncio.get_running_loop().call_later(KILL_DELAY_S, self._signal_all, signal.SIGKILL)
            print_message(f"{number.name} again: {ENDING}")

    async def _keep_running(self, child: Child) -> None:
        while not self._stop.is_set():
            code, ran_s = await child.run_once(self._stop)
            if self._stop.is_set():
                self._record_exit(code)
            elif code == MISUSED and child.starts == 1:
                # The child has printed the wrong setting. The others, and a restart, would too.
                self._begin_stop(MISUSED)
            else:
                delay_s = child.restart_delay_s(ran_s)
                log.error("process_exited", process=child.number, code=code, restart_in_s=delay_s)
                await wait(self._stop, delay_s)

    def _begin_stop(self, code: int) -> None:
        self._code = code
        self._stop.set()
        self._signal_all(signal.SIGTERM)

    def _record_exit(self, code: int) -> None:
        if code not in CLEAN_EXIT_CODES:
            self._code = self._code or FAILED

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children:
            child.send_signal(number)


def _bound_to_parent(command: Sequence[str]) -> list[str]:
    """Return the command wrapped so that it gets SIGTERM when this process ends."""
    arguments = [str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1"]
    return [sys.executable, "-I", "-S", parent_death.__file__, *arguments, *command]
