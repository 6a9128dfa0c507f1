"""What private servers have in common: one folder, one main process, one way to come and go."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from notifier.embedded.folder import FolderLock
from notifier.embedded.process import (
    ServerFailed,
    Signals,
    Steps,
    ending,
    run_steps,
    run_steps_async,
)


class PrivateServer(ABC):
    """One server on one folder. Start it from the main thread: it ends when its thread does.

    Each verb has its steps beside it, for those who must not block an event loop:
    `await run_steps_async(server.restarting())`. `keep=False` removes the folder at the stop.
    """

    folder_mode = 0o700

    def __init__(self, folder: Path, *, keep: bool, stop: Signals) -> None:
        self._folder = folder.absolute()
        self._keep = keep
        self._stop = stop
        self._lock = FolderLock(self._folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The main process, if it runs."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    def start(self) -> None:
        """Start and wait until it accepts connections. Raises ServerFailed."""
        run_steps(self.starting())

    def stop(self) -> None:
        """Stop it in order."""
        run_steps(self.stopping())

    def restart(self) -> None:
        """Stop it in order and start it."""
        run_steps(self.restarting())

    def kill(self) -> None:
        """SIGKILL, as if the power failed; `start` brings back all that was confirmed."""
        run_steps(self.killing())

    def starting(self) -> Steps:
        """The steps of `start`; undone when closed half way."""
        self._hold()
        try:
            yield from self._launching()
        except BaseException:
            self._leave()
            raise

    def stopping(self) -> Steps:
        """The steps of `stop`."""
        try:
            if self._process:
                yield from ending(self._process, self._stop)
        finally:
            self._leave()

    def restarting(self) -> Steps:
        """The steps of `restart`. The folder stays ours, and kept, in between."""
        if self._process:
            yield from ending(self._process, self._stop)
        yield from self.starting()

    @abstractmethod
    def killing(self) -> Steps:
        """The steps of `kill`."""

    @abstractmethod
    def _launching(self) -> Steps:
        """Start and wait until it accepts connections; the folder is ours."""

    @abstractmethod
    def _end_all(self) -> None:
        """End what may still run, at once."""

    @abstractmethod
    def _tidy(self) -> None:
        """Remove the folder, or only what was for this run."""

    def _hold(self) -> None:
        try:
            self._folder.mkdir(mode=self.folder_mode, parents=True, exist_ok=True)
            self._lock.take()
        except OSError as error:
            raise ServerFailed(f"cannot use the folder {self._folder}: {error.strerror}") from error

    def _leave(self) -> None:
        self._end_all()
        self._process = None
        if self._lock.is_held:  # or what lies there is another's
            self._tidy()
            self._lock.release()


AnyServer = TypeVar("AnyServer", bound=PrivateServer)


@contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    """The server, running for the length of the block."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def opened(server: AnyServer) -> AsyncIterator[AnyServer]:
    """The same in an event loop, which goes on meanwhile."""
    await run_steps_async(server.starting())
    try:
        yield server
    finally:
        await run_steps_async(server.stopping())
