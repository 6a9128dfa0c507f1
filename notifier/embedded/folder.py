"""The folder of a private server: its lock, and the processes that run in it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from fnmatch import fnmatchcase
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
    """The folder contains files that no launcher created, so it is neither used nor removed."""

    def __init__(self, folder: Path, foreign: str) -> None:
        super().__init__(
            f"{folder} contains files that Notifier did not create ({foreign}); nothing was "
            "changed: choose an empty or a new folder"
        )
        self.folder = folder


def refuse_foreign(folder: Path, log: str, made: Collection[str]) -> None:
    """Raise ForeignFolder if the folder is not a launcher's and contains other files than `made`.

    `made` are patterns of the names that a launcher creates. Its own folder has its lock and log.
    """
    if (folder / LOCK).is_file() and (folder / log).is_file():
        return
    foreign = sorted(path.name for path in folder.iterdir() if not is_made(path.name, made))
    if foreign:
        raise ForeignFolder(folder, foreign[0])


def is_made(name: str, made: Collection[str]) -> bool:
    """Return whether a name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in made)


def remove_made(folder: Path, log: str, made: Collection[str]) -> None:
    """Remove what fits the patterns, and the folder if nothing else is in it.

    Beside other files lock and log stay: they show that the folder is a launcher's.
    """
    paths = list(folder.iterdir())
    is_shared = not all(is_made(path.name, made) for path in paths)
    for path in paths:
        if not is_made(path.name, made) or (is_shared and path.name in {LOCK, log}):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


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
