"""A private Postgres: the real server in its own folder, reached through a Unix socket only.

It ends when its parent ends, however that ends, and starts again after any kind of end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

from notifier.embedded.data_layout import (
    SOCKET,
    DataLayout,
    close_data_layout,
    open_data_layout,
    remove_data_layout,
)
from notifier.embedded.folder import LOCK, FolderInUse, processes_in, remove_made
from notifier.embedded.postgres_binaries import find_binaries, reachable_binaries
from notifier.embedded.process import (
    ServerFailed,
    Steps,
    read_log,
    run_steps,
    spawn,
    terminating,
    until,
)
from notifier.embedded.server import PrivateServer, opened, running

START_TIMEOUT_S: Final = 120.0  # recovery after a kill may replay much of the log
PROCESSES_END_TIMEOUT_S: Final = 10.0
STOP_SIGNALS: Final = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))
ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}

SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# With these a killed server loses nothing, but a machine that loses power may.
NOT_DURABLE: Final = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(PrivateServer):
    """A Postgres in one folder; see PrivateServer. `durable=False` turns off `fsync`."""

    folder_mode: ClassVar[int] = 0o711  # root's server runs as another user
    log_name = "postgres.log"
    made = frozenset(
        {LOCK, log_name, "data", "data-part", "sockets", "elsewhere", "server-*", ".cache"}
    )

    def __init__(
        self,
        folder: Path,
        *,
        bin_folder: Path | None = None,
        durable: bool = True,
        keep: bool = True,
    ) -> None:
        super().__init__(folder, keep=keep, stop_signals=STOP_SIGNALS)
        self._bin_folder = bin_folder
        self._durable = durable
        self._layout: DataLayout | None = None

    @property
    def data_folder(self) -> Path:
        """The folder of the data. Raises ServerFailed before the first start."""
        return self._known_layout().data

    @property
    def socket(self) -> Path:
        """The socket that the server listens on. Raises ServerFailed before the first start."""
        return self._known_layout().sockets / SOCKET

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database. Raises ServerFailed before the first start."""
        sockets = quote(str(self._known_layout().sockets), safe="/")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={sockets}"

    def killing(self) -> Steps:
        """Return the steps of `kill`: all its processes at once."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        data = self._known_layout().data
        for pid in processes_in(data):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        yield from until(lambda: not processes_in(data), timeout_s=PROCESSES_END_TIMEOUT_S)

    def _known_layout(self) -> DataLayout:
        if self._layout is None:
            raise ServerFailed(f"the Postgres of {self._folder} was never started")
        return self._layout

    def _launching(self) -> Steps:
        self._layout = layout = open_data_layout(self._folder)
        binaries = reachable_binaries(
            find_binaries(self._bin_folder), account=layout.account, root=layout.root
        )
        yield from self._waiting_for_old_processes(layout)
        yield from self._initialising(binaries, layout)
        yield from self._starting_server(binaries, layout)

    def _waiting_for_old_processes(self, layout: DataLayout) -> Steps:
        """Wait until the processes of a killed server have ended, then remove its pid file.

        By now another process may have the pid in that file, and Postgres would refuse to start.
        """
        yield from until(lambda: not processes_in(layout.data), timeout_s=PROCESSES_END_TIMEOUT_S)
        if remaining := processes_in(layout.data):
            raise FolderInUse(self._folder, str(remaining[0]))
        if Path("/proc/self").exists():
            (layout.data / "postmaster.pid").unlink(missing_ok=True)
            (layout.sockets / f"{SOCKET}.lock").unlink(missing_ok=True)

    def _initialising(self, binaries: Path, layout: DataLayout) -> Steps:
        """Create the data folder if it does not exist; an unfinished one has another name."""
        if layout.data.exists():
            return
        part = layout.root / "data-part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        layout.assign_to_server(part)
        options = "-U postgres --auth-local=trust --auth-host=reject --encoding=UTF8 --locale=C"
        sync = [] if self._durable else ["--no-sync"]
        yield from self._running_initdb(
            layout, part, [binaries / "initdb", "-D", part, *options.split(), *sync]
        )
        part.rename(layout.data)

    def _running_initdb(self, layout: DataLayout, folder: Path, command: list[str | Path]) -> Steps:
        log_start = self._log_size()
        process = self._spawn(layout, folder, command, death_signal=signal.SIGKILL)
        try:
            yield from until(lambda: process.poll() is not None, timeout_s=START_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise self._failure("could not create its data folder", log_start)

    def _starting_server(self, binaries: Path, layout: DataLayout) -> Steps:
        log_start = self._log_size()
        settings = {
            **SETTINGS,
            **({} if self._durable else NOT_DURABLE),
            "unix_socket_directories": f'"{layout.sockets}"',
        }
        options = [part for pair in settings.items() for part in ("-c", "=".join(pair))]
        process = self._spawn(
            layout,
            layout.data,
            [binaries / "postgres", "-D", layout.data, *options],
            death_signal=signal.SIGINT,
        )
        self._process = process
        yield from until(
            lambda: process.poll() is not None or self._is_ready(process),
            timeout_s=START_TIMEOUT_S,
        )
        if process.poll() is not None or not self._is_ready(process):
            raise self._failure("did not start", log_start)

    def _spawn(
        self,
        layout: DataLayout,
        folder: Path,
        command: list[str | Path],
        *,
        death_signal: signal.Signals,
    ) -> subprocess.Popen[bytes]:
        return spawn(
            command,
            death_signal=death_signal,
            environment={**ENVIRONMENT, "HOME": str(layout.root)},
            folder=folder,
            log=self.log,
            account=layout.account,
        )

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Read the eighth line of the pid file: pg_ctl waits for it as well."""
        try:
            text = (self._known_layout().data / "postmaster.pid").read_text()
        except FileNotFoundError:
            return False
        lines = [line.strip() for line in text.splitlines()]  # none while the file is being written
        return lines[:1] == [str(process.pid)] and lines[7:8] == ["ready"]

    def _log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _failure(self, what: str, log_start: int) -> ServerFailed:
        text = read_log(self.log, start=log_start)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "FATAL" in line or "DETAIL" in line or "rror:" in line]
        reason = " ".join(errors or lines[-1:]) or "its log is empty"
        return ServerFailed(f"Postgres {what}: {reason} (see {self.log})")

    def _kill_processes(self) -> None:
        if self._process:
            run_steps(terminating(self._process, [(signal.SIGQUIT, 1.0)]))

    def _clean_up(self) -> None:
        super()._clean_up()
        if self._keep:
            close_data_layout(self._folder)

    @classmethod
    def _remove_folder(cls, folder: Path) -> None:
        remove_data_layout(folder)
        remove_made(folder, cls.log_name, cls.made)


def running_postgres(
    folder: Path, *, keep: bool = True, bin_folder: Path | None = None, durable: bool = True
) -> AbstractContextManager[PostgresServer]:
    """Run a server for the length of the block, without an event loop."""
    return running(PostgresServer(folder, bin_folder=bin_folder, durable=durable, keep=keep))


def open_postgres(
    folder: Path, *, keep: bool = True, bin_folder: Path | None = None, durable: bool = True
) -> AbstractAsyncContextManager[PostgresServer]:
    """Run a server for the length of the block. With `keep` the next start finds its data.

    Raises ServerFailed, or FolderInUse if another process runs a server in the folder.
    """
    return opened(PostgresServer(folder, bin_folder=bin_folder, durable=durable, keep=keep))
