"""A private RabbitMQ: a node of the installed package on a folder and ports of its own.

It has its own epmd, which is ended last. Whatever kills the parent ends both.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from notifier.embedded.folder import FolderInUse, FolderLock, processes_in, program, refuse_foreign
from notifier.embedded.process import (
    ServerFailed,
    Steps,
    ending,
    run_steps,
    spawn,
    tail,
    until,
)
from notifier.embedded.rabbitmq_install import RabbitmqInstall, find_rabbitmq
from notifier.embedded.rabbitmq_management import Management
from notifier.embedded.rabbitmq_node import (
    LOOPBACK,
    NAME,
    Ports,
    environment,
    epmd_environment,
    write_files,
)
from notifier.embedded.server import PrivateServer, opened, running

__all__ = [
    "RabbitmqInstall",
    "RabbitmqServer",
    "find_rabbitmq",
    "open_rabbitmq",
    "remove_rabbitmq",
    "running_rabbitmq",
]

HELPERS: Final = frozenset({"beam.smp", "erl_child_setup", "inet_gethost"})
HELPERS_S: Final = 2.0
LOG: Final = "rabbitmq.log"
START_S: Final = 120.0
LEAVE_S: Final = 10.0
CHECK_INTERVAL_S: Final = 0.1
# Its stores are closed at once; the management plugin then takes 5 s, and is not waited for.
STOP: Final = ((signal.SIGTERM, 2.0),)


class RabbitmqServer(PrivateServer):
    """A node on one folder; see PrivateServer. Ports and vhosts outlast all but `stop`.

    A node `beside` another has the other's epmd and cookie, so that the two can be a cluster; it
    keeps nothing, and is to be stopped first.

    `settings` are lines of rabbitmq.conf, beside ours.
    """

    def __init__(
        self,
        folder: Path,
        *,
        install: RabbitmqInstall | None = None,
        keep: bool = True,
        beside: RabbitmqServer | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, keep=keep and beside is None, stop=STOP)
        self._install = install
        self._beside = beside
        self._ports: Ports = Ports.beside(beside._ports) if beside else Ports.free()  # noqa: SLF001 a peer
        self.node = f"notifier-{self._ports.distribution}@localhost" if beside else NAME
        self._settings = settings or {}
        self._management = Management(self._ports.management)
        self._vhosts: set[str] = set()
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The node's log."""
        return self._folder / LOG

    @property
    def port(self) -> int:
        """Where it speaks AMQP, on the loopback."""
        return self._ports.amqp

    @property
    def management_url(self) -> str:
        """The HTTP API, with user and password."""
        return f"http://guest:guest@{LOOPBACK}:{self._ports.management}"

    def url(self, vhost: str = "/") -> str:
        """The AMQP address of a vhost."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/{quote(vhost, safe='')}"

    def create_vhost(self, name: str) -> None:
        """Create a vhost; `wipe` creates it again."""
        self._management.create_vhost(name)
        self._vhosts.add(name)

    def delete_vhost(self, name: str) -> None:
        """Delete a vhost with its queues; its connections are closed."""
        self._management.delete_vhost(name)
        self._vhosts.discard(name)

    async def control(self, *words: str) -> str:
        """What `rabbitmqctl` says to these words on this node. Raises ServerFailed."""
        install = self._installed()
        process = await asyncio.create_subprocess_exec(
            install.server.with_name("rabbitmqctl"),
            *words,
            env=environment(self._folder, self._ports, install.path, name=self.node),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise ServerFailed(f"rabbitmqctl {words[0]}: {said.decode(errors='replace').strip()}")
        return said.decode(errors="replace")

    def wipe(self) -> None:
        """Lose everything, as if the disk was replaced: only empty vhosts come back."""
        run_steps(self.wiping())

    def stopping(self) -> Steps:
        """The steps of `stop`. What is not kept need not be closed in order."""
        if self._keep:
            yield from super().stopping()
        else:
            self._leave()

    def wiping(self) -> Steps:
        """The steps of `wipe`."""
        yield from self.killing()
        shutil.rmtree(self._folder / "mnesia")
        yield from self.starting()
        for name in sorted(self._vhosts):
            self._management.create_vhost(name)

    def killing(self) -> Steps:
        """The steps of `kill`. The helpers of a killed node end by themselves."""
        if self._process:
            yield from ending(self._process, ())
            yield from until(lambda: not self._strangers(), within=LEAVE_S)

    def _launching(self) -> Steps:
        install = self._installed()
        yield from self._outlasting_the_dead()
        peer = self._beside._folder if self._beside else None  # noqa: SLF001 a peer
        write_files(self._folder, self._ports, self._settings, cookie_of=peer)
        yield from self._starting_epmd(install)
        yield from self._starting_node(install)

    def _installed(self) -> RabbitmqInstall:
        install = self._install or find_rabbitmq()
        if install is None:
            raise ServerFailed("no RabbitMQ is installed: deploy/install-rabbitmq installs it")
        return install

    def _strangers(self) -> list[int]:
        """Who lives in our folder beside epmd and node: helpers, or what a dead launcher left."""
        own = {process.pid for process in (self._epmd, self._process) if process}
        return [pid for pid in processes_in(self._folder) if pid not in own]

    def _outlasting_the_dead(self) -> Steps:
        yield from until(lambda: not self._strangers(), within=LEAVE_S)
        if left := self._strangers():
            raise FolderInUse(self._folder, str(left[0]))

    def _starting_epmd(self, install: RabbitmqInstall) -> Steps:
        if self._beside or (self._epmd and self._epmd.poll() is None):
            return
        self._epmd = spawn(
            [install.epmd],
            dies_by=signal.SIGKILL,
            environment=epmd_environment(self._ports),
            folder=self._folder,
            log=self._folder / "epmd.log",
        )
        yield from self._waiting(self._epmd, self._epmd_answers, self._folder / "epmd.log")

    def _epmd_answers(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self._ports.epmd), timeout=1).close()
        except OSError:
            return False
        return True

    def _starting_node(self, install: RabbitmqInstall) -> Steps:
        self._process = spawn(
            [install.server],
            dies_by=signal.SIGKILL,
            environment=environment(self._folder, self._ports, install.path, name=self.node),
            folder=self._folder,
            log=self.log,
        )
        yield from self._waiting(self._process, self._node_answers, self.log)

    def _node_answers(self) -> bool:
        return self._management.is_up() and _speaks_amqp(self._ports.amqp)

    def _waiting(
        self, process: subprocess.Popen[bytes], answers: Callable[[], bool], log: Path
    ) -> Steps:
        start = log.stat().st_size
        yield from until(
            lambda: process.poll() is not None or answers(), within=START_S, every=CHECK_INTERVAL_S
        )
        if process.poll() is not None or not answers():
            raise ServerFailed(f"RabbitMQ did not start: {_last_line(log, start)} (see {log})")

    def _end_all(self) -> None:
        for process in (self._process, self._epmd):
            if process:
                run_steps(ending(process, ()))
        self._epmd = None
        if self._lock.is_held:
            run_steps(self._ending_helpers())

    def _ending_helpers(self) -> Steps:
        """The node's helpers end with it, a moment later; one that hangs is killed.

        Seen: the `erl` by which a node makes sure of epmd, still there when its node had gone.
        """
        yield from until(lambda: not self._helpers(), within=HELPERS_S)
        for pid in self._helpers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        yield from until(lambda: not self._helpers(), within=HELPERS_S)

    def _helpers(self) -> list[int]:
        return [pid for pid in self._strangers() if program(pid) in HELPERS]

    def _tidy(self) -> None:
        if not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)


def _speaks_amqp(port: int) -> bool:
    """Whether the first frame of an AMQP server comes back."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _last_line(log: Path, start: int) -> str:
    lines = [line.strip() for line in tail(log, start=start).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]
    return next(iter([*telling, *lines[-1:]]), "no word in its log")


def running_rabbitmq(
    folder: Path,
    *,
    keep: bool = True,
    install: RabbitmqInstall | None = None,
    settings: Mapping[str, str] | None = None,
) -> AbstractContextManager[RabbitmqServer]:
    """A running node for the length of the block, without an event loop."""
    return running(RabbitmqServer(folder, install=install, keep=keep, settings=settings))


def open_rabbitmq(
    folder: Path, *, keep: bool = True, install: RabbitmqInstall | None = None
) -> AbstractAsyncContextManager[RabbitmqServer]:
    """A running node for the length of the block. What it holds stays for the next if `keep`.

    Raises ServerFailed (FolderInUse if another process has it) with one line that says why.
    """
    return opened(RabbitmqServer(folder, install=install, keep=keep))


def remove_rabbitmq(folder: Path) -> None:
    """Delete all data of `folder`.

    Raises FolderInUse if a node runs there, ForeignFolder if no launcher made it.
    """
    if folder.exists():
        refuse_foreign(folder, LOG)
        lock = FolderLock(folder)
        lock.take()
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
