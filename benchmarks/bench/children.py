"""The processes of one round, each with a log; all are stopped at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from notifier.embedded.process import run_steps, spawn, terminating

START_S = 60.0
STOP = ((signal.SIGTERM, 8.0),)
LINES = 30
ASK_S = 2.0


class ChildFailed(Exception):
    """A process exited or did not become ready; the message has the end of its log."""


@dataclass(slots=True)
class Children:
    """Starts processes in one folder and stops them in reverse order."""

    folder: Path
    running: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        log = self.folder / f"{len(self.running)}-{name}.log"
        process = spawn(
            command,
            death_signal=signal.SIGTERM,
            environment=os.environ | dict(environment),
            folder=self.folder,
            log=log,
        )
        self.running.append((process, log))

    def groups(self) -> Mapping[str, Sequence[int]]:
        """Return the process ids by name."""
        found = dict[str, list[int]]()
        for process, log in self.running:
            found.setdefault(log.stem.partition("-")[2], []).append(process.pid)
        return found

    def check(self) -> None:
        """Raise ChildFailed if a process has exited."""
        for process, log in self.running:
            if process.poll() is not None:
                raise ChildFailed(f"{log.stem} ended with {process.returncode}:\n{said(log)}")

    def wait(self, is_so: Callable[[], bool], what: str, within: float = START_S) -> None:
        """Wait until the condition holds. Raises ChildFailed at the time-out."""
        deadline = time.monotonic() + within
        while not is_so():
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(f"{log.stem}: {said(log)}" for _, log in self.running)
                raise ChildFailed(f"{what}: not so after {within:g} s\n{logs}")
            time.sleep(0.02)

    def stop(self, name: str = "") -> None:
        """Stop all, or those of a name, in reverse order, each with its child processes."""
        for child in self.running[::-1]:
            process, log = child
            if name not in {"", log.stem.partition("-")[2]}:
                continue
            self.running.remove(child)
            run_steps(terminating(process, STOP))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def running_children(folder: Path) -> Iterator[Children]:
    children = Children(folder)
    try:
        yield children
    finally:
        children.stop()


def run_to_end(command: Sequence[str], environment: Mapping[str, str], within: float) -> str:
    """Run a command and return its output. Raises ChildFailed."""
    try:
        ended = subprocess.run(
            command,
            env=os.environ | dict(environment),
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ChildFailed(f"{command[0]}: not done after {within:g} s") from error
    if ended.returncode:
        said = (ended.stdout + ended.stderr).splitlines()[-LINES:]
        raise ChildFailed("\n".join([f"{command} ended with {ended.returncode}:", *said]))
    return ended.stdout


def said(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LINES:])


def answer(url: str) -> str | None:
    """Return the body of a 200 response, else None."""
    try:
        with urllib.request.urlopen(url, timeout=ASK_S) as response:  # noqa: S310 our own port
            return str(response.read().decode())
    except (urllib.error.URLError, OSError):
        return None
