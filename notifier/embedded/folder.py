"""The folder of a private server: who holds it, who lives in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, Final

from notifier.embedded.process import ServerFailed

LOCK: Final = "lock"


class FolderInUse(ServerFailed):
    """Another process runs a server on this folder."""

    def __init__(self, folder: Path, pid: str) -> None:
        super().__init__(f"{folder} is in use by process {pid}; stop it or choose another folder")
        self.folder = folder


class ForeignFolder(ServerFailed):
    """The folder holds something that no launcher made: it is never removed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} holds what is not Notifier's; nothing was removed")
        self.folder = folder


def refuse_foreign(folder: Path, log: str) -> None:
    """Raise ForeignFolder unless the folder is empty or has a launcher's lock and log."""
    is_ours = (folder / LOCK).is_file() and (folder / log).is_file()
    if not is_ours and any(folder.iterdir()):
        raise ForeignFolder(folder)


class FolderLock:
    """At most one launcher per folder. The kernel lets go of it when we die, however we die."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    @property
    def is_held(self) -> bool:
        """Whether the folder is ours now."""
        return self._file is not None

    def take(self) -> None:
        """Hold the folder; does nothing if we hold it already. Raises FolderInUse."""
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
        """Let go of the folder."""
        if self._file is not None:
            self._file.close()
            self._file = None


def processes_in(folder: Path) -> list[int]:
    """Processes whose working directory is `folder` (Linux; elsewhere none are seen)."""
    home = os.path.realpath(folder)
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _cwd(entry) == home]


def program(pid: int) -> str:
    """What a process runs, by the kernel's short name; empty if it is gone (or not on Linux)."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _cwd(entry: Path) -> str:
    try:
        return str((entry / "cwd").readlink())
    except OSError:
        return ""
