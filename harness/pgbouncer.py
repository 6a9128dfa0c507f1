"""A private PgBouncer before a private Postgres, unpacked by deploy/install-pgbouncer."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from notifier.embedded.free_ports import free_ports
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import Account, ServerFailed, run_steps, spawn, terminating, until

ROOT: Final = Path(__file__).resolve().parents[1]
UNPACKED: Final = ROOT / ".notifier/pgbouncer"
PROGRAMS: Final = (
    Path("/usr/sbin/pgbouncer"),
    Path("/usr/local/bin/pgbouncer"),
    UNPACKED / "usr/sbin/pgbouncer",
)
LOOPBACK: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 30.0
STOP_SIGNALS: Final = ((signal.SIGINT, 5.0),)


class PgBouncer:
    """A running PgBouncer."""

    def __init__(self, port: int) -> None:
        self._port = port

    def url(self, database_url: str) -> str:
        """Return the URL of a database of the Postgres, through this pooler."""
        database = database_url.partition("?")[0].rpartition("/")[2]
        return f"postgresql://postgres@{LOOPBACK}:{self._port}/{database}"


@contextmanager
def running_pgbouncer(
    folder: Path, postgres: PostgresServer, *, pool_mode: str
) -> Iterator[PgBouncer]:
    """Run a PgBouncer in a new folder. Raises ServerFailed if it is not installed."""
    program = next((path for path in PROGRAMS if path.is_file()), None)
    if program is None:
        raise ServerFailed("no PgBouncer is installed: `make test` installs it")
    account = _account()
    (port,) = free_ports(1)
    folder.mkdir(mode=0o711)
    _write_files(folder, postgres, port, pool_mode)
    log = folder / "log"
    process = spawn(
        [program, folder / "pgbouncer.ini"],
        death_signal=signal.SIGINT,
        environment={"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": _libraries()},
        folder=folder,
        log=log,
        account=account,
    )
    try:
        run_steps(until(lambda: _is_up(process, port), timeout_s=START_TIMEOUT_S))
        if process.poll() is not None:
            raise ServerFailed(f"PgBouncer did not start: {log.read_text()[-1000:]}")
        yield PgBouncer(port)
    finally:
        run_steps(terminating(process, STOP_SIGNALS))


def _account() -> Account | None:
    """PgBouncer refuses to run as root; the user nobody may enter the socket's folder."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def _libraries() -> str:
    return ":".join(str(path) for path in UNPACKED.glob("usr/lib/*"))


def _write_files(folder: Path, postgres: PostgresServer, port: int, pool_mode: str) -> None:
    (folder / "users").write_text('"postgres" ""\n"app" ""\n')
    (folder / "pgbouncer.ini").write_text(f"""\
[databases]
* = host={postgres.socket.parent}

[pgbouncer]
listen_addr = {LOOPBACK}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {pool_mode}
default_pool_size = 50
max_client_conn = 200
""")


def _is_up(process: subprocess.Popen[bytes], port: int) -> bool:
    if process.poll() is not None:
        return True
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False
