"""`--processes N`: a parent that keeps N identical children running, and ends when they have.

A child has a session of its own, so that Ctrl-C in a terminal reaches the parent alone, which hands
it on once. A child that loses its parent gets SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from notifier.cli.failures import FAILED, MISUSED
from notifier.cli.running import run_told, tell
from notifier.embedded import parent_death
from notifier.lifecycle import Backoff, wait

FIRST_PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A process that ran this long did start: the pauses begin at 1 s again."""
KILL_AFTER_S: Final = 2.0
ORDERLY: Final = (0, -signal.SIGTERM)
"""How a child ends that was told to stop: the second before it had begun."""

log = structlog.get_logger(__name__)


def run_children(commands: Iterable[Sequence[str]]) -> int:
    """Run each command in a process of its own until a signal; the exit code.

    0 if all that were told to stop did; 2 if one would not start for a wrong setting; 1 else.
    """
    supervisor = Supervisor([Child(number, command) for number, command in enumerate(commands)])
    return run_told(supervisor.run, supervisor.on_signal)


class Child:
    """One command and, while it lives, its process."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self.number = number
        self._backoff = Backoff(FIRST_PAUSE_S, MAX_PAUSE_S)
        self.lives = 0
        self._command = command
        self._process: Process | None = None

    async def live(self, stop: asyncio.Event) -> tuple[int, float]:
        """One life from start to end; the exit code, and the seconds it took."""
        self.lives += 1
        began = time.monotonic()
        try:
            self._process = await create_subprocess_exec(
                *_dying_with_parent(self._command), stdin=DEVNULL, start_new_session=True
            )
        except OSError as error:  # no memory for one more must not end those that run
            log.error("process_start_failed", process=self.number, reason=error.strerror)  # noqa: TRY400 the reason is enough
            return FAILED, 0.0
        if stop.is_set():  # told while it was being born
            self.tell(signal.SIGTERM)
        code = await self._process.wait()
        self._process = None
        return code, time.monotonic() - began

    def restart_delay_s(self, ran_s: float) -> float:
        """Return the pause before the next start, after a process that ran for `ran_s`."""
        if ran_s >= STEADY_S:
            self._backoff.reset()
        return self._backoff.next_s()

    def tell(self, number: signal.Signals) -> None:
        """Send the signal, if there is somebody to send it to."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)


class Supervisor:
    """Starts every child, and starts it again until told to stop."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._stop = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Until all children have ended after a signal, or none can be started; the exit code."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._keep(child), name=f"process {child.number}")
        return self._code

    def on_signal(self, number: signal.Signals) -> None:
        """The first asks all to stop; each later one is handed on, with SIGKILL soon after."""
        if not self._stop.is_set():
            tell(
                f"{number.name}: stopping {len(self._children)} processes. Once more ends at once."
            )
            self._end(0)
            return
        tell(f"{number.name} again: ending at once; what was under way counts as ambiguous.")
        self._code = self._code or FAILED
        self._tell_all(signal.SIGTERM)
        asyncio.get_running_loop().call_later(KILL_AFTER_S, self._tell_all, signal.SIGKILL)

    async def _keep(self, child: Child) -> None:
        while not self._stop.is_set():
            code, lived_s = await child.live(self._stop)
            if self._stop.is_set():
                self._note(code)
            elif code == MISUSED and child.lives == 1:
                self._end(MISUSED)  # it has said why; so would all others and every next life
            else:
                pause = child.restart_delay_s(lived_s)
                log.error("process_exited", process=child.number, code=code, restart_in_s=pause)
                await wait(self._stop, pause)

    def _end(self, code: int) -> None:
        self._code = code
        self._stop.set()
        self._tell_all(signal.SIGTERM)

    def _note(self, code: int) -> None:
        if code not in ORDERLY:
            self._code = self._code or FAILED

    def _tell_all(self, number: signal.Signals) -> None:
        for child in self._children:
            child.tell(number)


def _dying_with_parent(command: Sequence[str]) -> list[str]:
    """The command bound to this process's life."""
    bound = [str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1"]
    return [sys.executable, "-I", "-S", parent_death.__file__, *bound, *command]
