"""A private RabbitMQ: a node of the installed package in its own folder and on its own ports.

It has its own epmd (Erlang's port mapper), which is stopped last. Both end when the parent ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from notifier.embedded.folder import LOCK, FolderInUse, processes_in, program_name
from notifier.embedded.process import (
    ServerFailed,
    Steps,
    read_log,
    run_steps,
    spawn,
    terminating,
    until,
)
from notifier.embedded.rabbitmq_install import RabbitmqInstall, find_rabbitmq
from notifier.embedded.rabbitmq_management import Management
from notifier.embedded.rabbitmq_node import (
    COOKIE,
    LOOPBACK,
    NAME,
    Ports,
    environment,
    epmd_environment,
    write_files,
)
from notifier.embedded.server import PrivateServer, opened

__all__ = [
    "RabbitmqInstall",
    "RabbitmqServer",
    "find_rabbitmq",
    "open_rabbitmq",
]

HELPERS: Final = frozenset({"beam.smp", "erl_child_setup", "inet_gethost"})
HELPERS_END_TIMEOUT_S: Final = 2.0
START_TIMEOUT_S: Final = 120.0
PROCESSES_END_TIMEOUT_S: Final = 10.0
CHECK_INTERVAL_S: Final = 0.1
CONNECT_TIMEOUT_S: Final = 1.0
# The node closes its stores at once. The management plugin then takes 5 s; nothing waits for it.
STOP_SIGNALS: Final = ((signal.SIGTERM, 2.0),)


class _ReadinessCheck(Protocol):
    def __call__(self) -> bool: ...


class RabbitmqServer(PrivateServer):
    """A node in one folder; see PrivateServer. It keeps its ports until `stop`.

    `settings` are further lines of rabbitmq.conf.
    """

    log_name = "rabbitmq.log"
    made = frozenset(
        {
            *(LOCK, log_name, "epmd.log", "rabbitmq.conf", "plugins", COOKIE, "pid", "log"),
            *("mnesia", "schema", "config", "advanced.config", "erl_crash.dump", ".cache"),
            *(".config", ".erlang*", "data", "none"),
        }
    )

    def __init__(
        self,
        folder: Path,
        *,
        install: RabbitmqInstall | None = None,
        keep: bool = True,
        settings: Mapping[str, str] | None = None,
        ports: Ports | None = None,
        name: str = NAME,
    ) -> None:
        super().__init__(folder, keep=keep, stop_signals=STOP_SIGNALS)
        self.name = name
        self.ports = ports or Ports.free()
        self._install = install
        self._settings = settings or {}
        self._management = Management(self.ports.management)
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The AMQP port, on the loopback."""
        return self.ports.amqp

    @property
    def management_url(self) -> str:
        """The URL of the HTTP API, with user and password."""
        return f"http://guest:guest@{LOOPBACK}:{self.ports.management}"

    def url(self, vhost: str = "/") -> str:
        """Return the AMQP URL of a vhost."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/{quote(vhost, safe='')}"

    def stopping(self) -> Steps:
        """Return the steps of `stop`. A node whose data is not kept is killed."""
        if self._keep:
            yield from super().stopping()
        else:
            self._shut_down()

    def killing(self) -> Steps:
        """Return the steps of `kill`. The helpers of a killed node end by themselves."""
        if self._process:
            yield from terminating(self._process, ())
            yield from until(lambda: not self._other_processes(), timeout_s=PROCESSES_END_TIMEOUT_S)

    def _launching(self) -> Steps:
        install = self._found_install()
        yield from self._waiting_for_old_processes()
        write_files(self._folder, self.ports, self._settings)
        yield from self._starting_epmd(install)
        yield from self._starting_node(install)

    def _found_install(self) -> RabbitmqInstall:
        install = self._install or find_rabbitmq()
        if install is None:
            raise ServerFailed("no RabbitMQ is installed: run deploy/install-rabbitmq")
        return install

    def _environment(self, install: RabbitmqInstall) -> dict[str, str]:
        return environment(self._folder, self.ports, install.path, name=self.name)

    def _other_processes(self) -> list[int]:
        """Return the folder's processes except epmd and node: helpers, or a dead launcher's."""
        own = {process.pid for process in (self._epmd, self._process) if process}
        return [pid for pid in processes_in(self._folder) if pid not in own]

    def _waiting_for_old_processes(self) -> Steps:
        yield from until(lambda: not self._other_processes(), timeout_s=PROCESSES_END_TIMEOUT_S)
        if remaining := self._other_processes():
            raise FolderInUse(self._folder, str(remaining[0]))

    def _starting_epmd(self, install: RabbitmqInstall) -> Steps:
        if self._epmd and self._epmd.poll() is None:
            return
        self._epmd = spawn(
            [install.epmd],
            death_signal=signal.SIGKILL,
            environment=epmd_environment(self.ports),
            folder=self._folder,
            log=self._folder / "epmd.log",
        )
        yield from self._waiting_until_ready(
            self._epmd, self._epmd_is_ready, self._folder / "epmd.log"
        )

    def _epmd_is_ready(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.ports.epmd), timeout=CONNECT_TIMEOUT_S).close()
        except OSError:
            return False
        return True

    def _starting_node(self, install: RabbitmqInstall) -> Steps:
        self._process = spawn(
            [install.server],
            death_signal=signal.SIGKILL,
            environment=self._environment(install),
            folder=self._folder,
            log=self.log,
        )
        yield from self._waiting_until_ready(self._process, self._node_is_ready, self.log)

    def _node_is_ready(self) -> bool:
        return self._management.is_up() and _speaks_amqp(self.ports.amqp)

    def _waiting_until_ready(
        self, process: subprocess.Popen[bytes], is_ready: _ReadinessCheck, log: Path
    ) -> Steps:
        log_start = log.stat().st_size
        yield from until(
            lambda: process.poll() is not None or is_ready(),
            timeout_s=START_TIMEOUT_S,
            interval_s=CHECK_INTERVAL_S,
        )
        if process.poll() is not None or not is_ready():
            reason = _reason(log, log_start)
            raise ServerFailed(f"RabbitMQ did not start: {reason} (see {log})")

    def _kill_processes(self) -> None:
        for process in (self._process, self._epmd):
            if process:
                run_steps(terminating(process, ()))
        self._epmd = None
        if self._lock.is_held:
            run_steps(self._ending_helpers())

    def _ending_helpers(self) -> Steps:
        """Wait for the node's helpers, which end shortly after it; kill any that hang.

        Observed: the `erl` by which a node checks epmd was still running when its node had ended.
        """
        yield from until(lambda: not self._helpers(), timeout_s=HELPERS_END_TIMEOUT_S)
        for pid in self._helpers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        yield from until(lambda: not self._helpers(), timeout_s=HELPERS_END_TIMEOUT_S)

    def _helpers(self) -> list[int]:
        return [pid for pid in self._other_processes() if program_name(pid) in HELPERS]


def _speaks_amqp(port: int) -> bool:
    """Return whether the port answers a protocol header with the first byte of an AMQP frame."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=CONNECT_TIMEOUT_S) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _reason(log: Path, start: int) -> str:
    """Return the first line with an error in the log from byte `start`, or its last line."""
    lines = [line.strip() for line in read_log(log, start=start).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return next(iter([*errors, *lines[-1:]]), "its log is empty")


def open_rabbitmq(
    folder: Path, *, keep: bool = True, install: RabbitmqInstall | None = None
) -> AbstractAsyncContextManager[RabbitmqServer]:
    """Run a node for the length of the block. With `keep` the next start finds its data.

    Raises ServerFailed, or FolderInUse if another process runs a node in the folder.
    """
    return opened(RabbitmqServer(folder, install=install, keep=keep))
