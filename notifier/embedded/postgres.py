"""A private Postgres: the real server on a folder of its own, reached by a Unix socket only.

Whatever kills its parent ends it too; whatever killed it last time, it starts again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from notifier.embedded.data_layout import (
    SOCKET,
    DataLayout,
    close_data_layout,
    open_data_layout,
    remove_data_layout,
)
from notifier.embedded.folder import FolderInUse, FolderLock, processes_in, refuse_foreign
from notifier.embedded.postgres_binaries import find_binaries, reachable_binaries
from notifier.embedded.process import (
    ServerFailed,
    Steps,
    ending,
    run_steps,
    spawn,
    tail,
    until,
)
from notifier.embedded.server import PrivateServer, opened, running

LOG: Final = "postgres.log"
START_S: Final = 120.0  # recovery after a kill may replay much
LEAVE_S: Final = 10.0
STOP: Final = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))
ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}

SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# A killed server loses nothing by these, a machine that loses power may.
NOT_DURABLE: Final = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(PrivateServer):
    """A Postgres on one folder; see PrivateServer. `durable=False` gives up `fsync`."""

    folder_mode = 0o711  # for root's server is another user

    def __init__(
        self,
        folder: Path,
        *,
        bin_folder: Path | None = None,
        durable: bool = True,
        keep: bool = True,
    ) -> None:
        super().__init__(folder, keep=keep, stop=STOP)
        self._given = bin_folder
        self._durable = durable
        self._home: DataLayout | None = None

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._folder / LOG

    @property
    def data_folder(self) -> Path:
        """Where the data lies; once started."""
        return self._at_home().data

    @property
    def socket(self) -> Path:
        """The socket it listens on; once started."""
        return self._at_home().sockets / SOCKET

    def url(self, database: str = "postgres") -> str:
        """The address of a database, as asyncpg and libpq read it; once started."""
        sockets = quote(str(self._at_home().sockets), safe="/")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={sockets}"

    def killing(self) -> Steps:
        """The steps of `kill`: all its processes at once."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        home = self._at_home()
        for pid in processes_in(home.data):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        yield from until(lambda: not processes_in(home.data), within=LEAVE_S)

    def _at_home(self) -> DataLayout:
        if self._home is None:
            raise ServerFailed(f"the Postgres of {self._folder} was never started")
        return self._home

    def _launching(self) -> Steps:
        self._home = home = open_data_layout(self._folder)
        binaries = reachable_binaries(
            find_binaries(self._given), account=home.account, home=home.root
        )
        yield from self._outlasting_the_dead(home)
        yield from self._initialising(binaries, home)
        yield from self._serving(binaries, home)

    def _outlasting_the_dead(self, home: DataLayout) -> Steps:
        """Wait for processes of a killed predecessor; then its pid file means nothing.

        Its pid may belong to anything by now, and Postgres would refuse to start because of it.
        """
        yield from until(lambda: not processes_in(home.data), within=LEAVE_S)
        if left := processes_in(home.data):
            raise FolderInUse(self._folder, str(left[0]))
        if Path("/proc/self").exists():
            (home.data / "postmaster.pid").unlink(missing_ok=True)
            (home.sockets / f"{SOCKET}.lock").unlink(missing_ok=True)

    def _initialising(self, binaries: Path, home: DataLayout) -> Steps:
        """Make the data folder if there is none. A half-made one never takes its name."""
        if home.data.exists():
            return
        part = home.root / "data-part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        home.give(part)
        options = "-U postgres --auth-local=trust --auth-host=reject --encoding=UTF8 --locale=C"
        sync = [] if self._durable else ["--no-sync"]
        yield from self._running(
            home, part, [binaries / "initdb", "-D", part, *options.split(), *sync]
        )
        part.rename(home.data)

    def _running(self, home: DataLayout, folder: Path, command: list[str | Path]) -> Steps:
        start = self._logged()
        process = self._spawn(home, folder, command, dies_by=signal.SIGKILL)
        try:
            yield from until(lambda: process.poll() is not None, within=START_S)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise self._failed("could not make its data folder", start)

    def _serving(self, binaries: Path, home: DataLayout) -> Steps:
        start = self._logged()
        settings = {
            **SETTINGS,
            **({} if self._durable else NOT_DURABLE),
            "unix_socket_directories": f'"{home.sockets}"',
        }
        options = [part for pair in settings.items() for part in ("-c", "=".join(pair))]
        process = self._spawn(
            home, home.data, [binaries / "postgres", "-D", home.data, *options], signal.SIGINT
        )
        self._process = process
        yield from until(
            lambda: process.poll() is not None or self._is_ready(process), within=START_S
        )
        if process.poll() is not None or not self._is_ready(process):
            raise self._failed("did not start", start)

    def _spawn(
        self, home: DataLayout, folder: Path, command: list[str | Path], dies_by: signal.Signals
    ) -> subprocess.Popen[bytes]:
        return spawn(
            command,
            dies_by=dies_by,
            environment={**ENVIRONMENT, "HOME": str(home.root)},
            folder=folder,
            log=self.log,
            account=home.account,
        )

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """The eighth line of the pid file is what pg_ctl waits for, too."""
        try:
            text = (self._at_home().data / "postmaster.pid").read_text()
        except FileNotFoundError:
            return False
        lines = [line.strip() for line in text.splitlines()]  # none yet, while it is being written
        return lines[:1] == [str(process.pid)] and lines[7:8] == ["ready"]

    def _logged(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _failed(self, what: str, start: int) -> ServerFailed:
        lines = [line.strip() for line in tail(self.log, start=start).splitlines() if line.strip()]
        telling = [line for line in lines if "FATAL" in line or "DETAIL" in line or "rror:" in line]
        why = " ".join(telling or lines[-1:]) or "no word in its log"
        return ServerFailed(f"Postgres {what}: {why} (see {self.log})")

    def _end_all(self) -> None:
        if self._process:
            run_steps(ending(self._process, [(signal.SIGQUIT, 1.0)]))

    def _tidy(self) -> None:
        if self._keep:
            close_data_layout(self._folder)
        else:
            remove_data_layout(self._folder)


def running_postgres(
    folder: Path, *, keep: bool = True, bin_folder: Path | None = None, durable: bool = True
) -> AbstractContextManager[PostgresServer]:
    """A running server for the length of the block, without an event loop."""
    return running(PostgresServer(folder, bin_folder=bin_folder, durable=durable, keep=keep))


def open_postgres(
    folder: Path, *, keep: bool = True, bin_folder: Path | None = None, durable: bool = True
) -> AbstractAsyncContextManager[PostgresServer]:
    """A running server for the length of the block. The data stays for the next time if `keep`.

    Raises ServerFailed (FolderInUse if another process has it) with one line that says why.
    """
    return opened(PostgresServer(folder, bin_folder=bin_folder, durable=durable, keep=keep))


def remove_postgres(folder: Path) -> None:
    """Delete all data of `folder`, wherever it lies.

    Raises FolderInUse if a server runs there, ForeignFolder if no launcher made it.
    """
    if folder.exists():
        refuse_foreign(folder, LOG)
        lock = FolderLock(folder)
        lock.take()
        remove_data_layout(folder)
        lock.release()
