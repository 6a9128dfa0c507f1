"""Private RabbitMQ nodes with what only tests and benchmarks need: vhosts, data loss, clusters."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import ServerFailed, Steps, run_steps
from notifier.embedded.rabbitmq import RabbitmqInstall, RabbitmqServer, find_rabbitmq
from notifier.embedded.rabbitmq_install import find_unpacked
from notifier.embedded.rabbitmq_node import COOKIE, NAME, Ports, write_cookie
from notifier.embedded.server import running

ALL_PERMISSIONS: Final = '{"configure":".*","write":".*","read":".*"}'


FOLDER: Final = Path(__file__).parents[1] / ".notifier"


def choose_rabbitmq(version: str = "") -> RabbitmqInstall:
    """Return an unpacked RabbitMQ, `4` or `4.0`; without a version the one that users would get.

    Raises ServerFailed.
    """
    if version:
        install = find_unpacked(FOLDER / f"rabbitmq-{version}")
    else:
        install = find_rabbitmq(FOLDER / "rabbitmq-server")
    if install is None:
        command = f"deploy/install-rabbitmq --version {version}" if version else "`make test`"
        raise ServerFailed(f"RabbitMQ {version} is not installed: {command} installs it")
    return install


class RabbitmqNode(RabbitmqServer):
    """A node whose vhosts survive `wipe`, and that `rabbitmqctl` controls."""

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
        super().__init__(
            folder, install=install, keep=keep, settings=settings, ports=ports, name=name
        )
        self._vhosts: set[str] = set()

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def install(self) -> RabbitmqInstall:
        """The installation that it runs."""
        return self._found_install()

    def create_vhost(self, name: str) -> None:
        """Create a vhost that the default user may use."""
        self._create_vhost(name)
        self._vhosts.add(name)

    def delete_vhost(self, name: str) -> None:
        """Delete a vhost with its queues; its connections are closed."""
        self._management.call("DELETE", f"/api/vhosts/{quote(name, safe='')}")
        self._vhosts.discard(name)

    def wipe(self) -> None:
        """Lose all data, as if the disk was replaced; the vhosts exist again afterwards, empty."""
        run_steps(self.wiping())

    def wiping(self) -> Steps:
        """Return the steps of `wipe`."""
        yield from self.killing()
        shutil.rmtree(self._folder / "mnesia")
        yield from self.starting()
        for name in sorted(self._vhosts):
            self._create_vhost(name)

    async def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node; return its output. Raises ServerFailed."""
        install = self._found_install()
        process = await asyncio.create_subprocess_exec(
            install.server.with_name("rabbitmqctl"),
            *arguments,
            env=self._environment(install),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode(errors="replace")
        if process.returncode:
            raise ServerFailed(f"rabbitmqctl {arguments[0]}: {text.strip()}")
        return text

    def _create_vhost(self, name: str) -> None:
        vhost = quote(name, safe="")
        self._management.call("PUT", f"/api/vhosts/{vhost}")
        self._management.call("PUT", f"/api/permissions/{vhost}/guest", ALL_PERMISSIONS)


class ClusterPeer(RabbitmqNode):
    """A node that can join the cluster of `first`: it shares the epmd and the cookie of `first`.

    It keeps nothing, and is stopped before `first`.
    """

    def __init__(
        self, folder: Path, *, first: RabbitmqNode, install: RabbitmqInstall | None = None
    ) -> None:
        amqp, management, distribution = free_ports(3)
        super().__init__(
            folder,
            install=install,
            keep=False,
            ports=Ports(amqp, management, distribution, first.ports.epmd),
            name=f"notifier-{distribution}@localhost",
        )
        self._first = first

    async def join(self) -> None:
        """Join the cluster of `first`; returns when RabbitMQ runs on both."""
        for command in (("stop_app",), ("join_cluster", self._first.name), ("start_app",)):
            await self.control(*command)
        await self.wait_until_both_run()

    async def wait_until_both_run(self) -> None:
        """Wait until RabbitMQ runs here and on `first`.

        A node of a cluster of two pauses itself when it notices late that the other one was away
        while it joined. It continues by itself.
        """
        for node in (self._first, self):
            await node.control("await_startup")

    def _launching(self) -> Steps:
        if not (self._folder / COOKIE).exists():
            write_cookie(self._folder, (self._first.folder / COOKIE).read_text())
        yield from super()._launching()

    def _starting_epmd(self, install: RabbitmqInstall) -> Steps:  # noqa: ARG002 it uses the epmd of `first`
        yield from ()


def running_node(
    folder: Path,
    *,
    keep: bool = True,
    install: RabbitmqInstall | None = None,
    settings: Mapping[str, str] | None = None,
) -> AbstractContextManager[RabbitmqNode]:
    """Run a node for the length of the block, without an event loop."""
    return running(RabbitmqNode(folder, install=install, keep=keep, settings=settings))
