"""What private servers have in common: one folder, one main process, one way to start and stop."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

from notifier.embedded.folder import FolderLock, refuse_foreign, remove_made
from notifier.embedded.process import (
    ServerFailed,
    Signals,
    Steps,
    run_steps,
    run_steps_async,
    terminating,
)


class PrivateServer(ABC):
    """One server in one folder. Start it in the main thread: it ends when its thread ends.

    Each command has its steps beside it, for callers that must not block an event loop:
    `await run_steps_async(server.restarting())`. With `keep=False` the folder is removed at the
    stop.
    """

    folder_mode: ClassVar[int] = 0o700
    log_name: ClassVar[str]
    made: ClassVar[frozenset[str]]
    """Patterns of the names of all that it creates in its folder; nothing else is removed."""

    def __init__(self, folder: Path, *, keep: bool, stop_signals: Signals) -> None:
        self._folder = folder.absolute()
        self._keep = keep
        self._stop_signals = stop_signals
        self._lock = FolderLock(self._folder)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def remove(cls, folder: Path) -> None:
        """Delete all data of `folder`.

        Raises FolderInUse if a server runs there, ForeignFolder if no launcher created it.
        """
        if folder.exists():
            refuse_foreign(folder, cls.log_name, cls.made)
            lock = FolderLock(folder)
            lock.acquire()
            cls._remove_folder(folder)
            lock.release()

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._folder / self.log_name

    @property
    def pid(self) -> int | None:
        """The pid of the main process, or None if it does not run."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Raises ServerFailed."""
        run_steps(self.starting())

    def stop(self) -> None:
        """Stop the server in order."""
        run_steps(self.stopping())

    def restart(self) -> None:
        """Stop the server in order and start it again."""
        run_steps(self.restarting())

    def kill(self) -> None:
        """Kill the server as if the power failed; `start` restores all that was confirmed."""
        run_steps(self.killing())

    def starting(self) -> Steps:
        """Return the steps of `start`. Closed before their end, they undo themselves."""
        self._lock_folder()
        try:
            yield from self._launching()
        except BaseException:
            self._shut_down()
            raise

    def stopping(self) -> Steps:
        """Return the steps of `stop`."""
        try:
            if self._process:
                yield from terminating(self._process, self._stop_signals)
        finally:
            self._shut_down()

    def restarting(self) -> Steps:
        """Return the steps of `restart`. In between, the folder stays locked and is kept."""
        if self._process:
            yield from terminating(self._process, self._stop_signals)
        yield from self.starting()

    @abstractmethod
    def killing(self) -> Steps:
        """Return the steps of `kill`."""

    @abstractmethod
    def _launching(self) -> Steps:
        """Start the server in the locked folder and wait until it accepts connections."""

    @abstractmethod
    def _kill_processes(self) -> None:
        """Kill the processes that still run."""

    def _clean_up(self) -> None:
        """Remove the folder unless it is kept."""
        if not self._keep:
            self._remove_folder(self._folder)

    @classmethod
    def _remove_folder(cls, folder: Path) -> None:
        remove_made(folder, cls.log_name, cls.made)

    def _lock_folder(self) -> None:
        try:
            self._folder.mkdir(mode=self.folder_mode, parents=True, exist_ok=True)
            refuse_foreign(self._folder, self.log_name, self.made)
            self._lock.acquire()
        except OSError as error:
            raise ServerFailed(f"cannot use the folder {self._folder}: {error.strerror}") from error

    def _shut_down(self) -> None:
        self._kill_processes()
        self._process = None
        if self._lock.is_held:  # otherwise the folder belongs to another launcher
            self._clean_up()
            self._lock.release()


AnyServer = TypeVar("AnyServer", bound=PrivateServer)


@contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    """Run the server for the length of the block, without an event loop."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def opened(server: AnyServer) -> AsyncIterator[AnyServer]:
    """Run the server for the length of the block; the event loop runs while it starts and stops."""
    await run_steps_async(server.starting())
    try:
        yield server
    finally:
        await run_steps_async(server.stopping())
