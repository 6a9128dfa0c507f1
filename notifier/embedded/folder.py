"""The folder of a private server: its lock, and the processes that run in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, Final

from notifier.embedded.process import ServerFailed

LOCK: Final = "lock"


class FolderInUse(ServerFailed):
    """Another process runs a server in this folder."""

    def __init__(self, folder: Path, pid: str) -> None:
        super().__init__(f"{folder} is in use by process {pid}; stop it or choose another folder")
        self.folder = folder


class ForeignFolder(ServerFailed):
    """The folder contains files that no launcher created, so it is not removed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} contains files that Notifier did not create; nothing was removed"
        )
        self.folder = folder


def refuse_foreign(folder: Path, log: str) -> None:
    """Raise ForeignFolder unless the folder is empty or contains a launcher's lock and log."""
    is_launchers = (folder / LOCK).is_file() and (folder / log).is_file()
    if not is_launchers and any(folder.iterdir()):
        raise ForeignFolder(folder)


class FolderLock:
    """Allows one launcher per folder. The kernel releases the lock when its process ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process holds the lock."""
        return self._file is not None

    def acquire(self) -> None:
        """Lock the folder; does nothing if the lock is held already. Raises FolderInUse."""
        if self.is_held:
            return
        file = (self._folder / LOCK).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise FolderInUse(self._folder, holder or "unknown") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Unlock the folder; does nothing if the lock is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


def processes_in(folder: Path) -> list[int]:
    """Return the pids whose working directory is `folder`. Linux only; none elsewhere."""
    path = os.path.realpath(folder)
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if _working_directory(entry) == path
    ]


def program_name(pid: int) -> str:
    """Return the kernel's short name of a process's program; empty if unknown. Linux only."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _working_directory(entry: Path) -> str:
    try:
        return str((entry / "cwd").readlink())
    except OSError:
        return ""
