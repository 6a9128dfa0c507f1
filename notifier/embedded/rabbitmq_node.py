"""The files and the environment of a private RabbitMQ node.

They set everything by which a node could reach outside its folder: it does not read the system's
configuration, does not use the system's epmd, and listens on the loopback only.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from notifier.embedded.free_ports import free_ports

LOOPBACK: Final = "127.0.0.1"
COOKIE: Final = ".erlang.cookie"
NAME: Final = "notifier@localhost"
"""The name of a node with its own epmd. It is fixed because the node stores its data under it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The four ports of a node."""

    amqp: int
    management: int
    distribution: int
    epmd: int

    @classmethod
    def free(cls) -> Ports:
        """Return four ports on which nothing listens."""
        return cls(*free_ports(4))


def write_files(folder: Path, ports: Ports, settings: Mapping[str, str]) -> None:
    """Write a node's configuration, its list of plugins, and its cookie if it has none."""
    further_lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (folder / "rabbitmq.conf").write_text(_configuration(ports) + further_lines)
    (folder / "plugins").write_text("[rabbitmq_management].\n")
    if not (folder / COOKIE).exists():
        write_cookie(folder, secrets.token_hex(16))


def write_cookie(folder: Path, cookie: str) -> None:
    """Write the secret that nodes of a cluster share."""
    path = folder / COOKIE
    path.touch(mode=0o600)
    path.write_text(cookie)
    path.chmod(0o400)


def _configuration(ports: Ports) -> str:
    return f"""\
listeners.tcp.local = {LOOPBACK}:{ports.amqp}
management.tcp.ip = {LOOPBACK}
management.tcp.port = {ports.management}
log.console = true
log.console.level = warning
log.file = false
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
cluster_partition_handling = pause_minority
"""


def environment(folder: Path, ports: Ports, path: str, *, name: str = NAME) -> dict[str, str]:
    """Return the whole environment of a node."""
    variables = {
        "NODENAME": name,
        "NODE_PORT": str(ports.amqp),
        "NODE_IP_ADDRESS": LOOPBACK,
        "DIST_PORT": str(ports.distribution),
        "MNESIA_BASE": str(folder / "mnesia"),
        "LOG_BASE": str(folder / "log"),
        "LOGS": "-",
        "SCHEMA_DIR": str(folder / "schema"),
        "GENERATED_CONFIG_DIR": str(folder / "config"),
        "CONF_ENV_FILE": str(folder / "none"),
        "CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "PID_FILE": str(folder / "pid"),
        "ALLOW_INPUT": "1",  # the script replaces itself by the node, so its pid is the node's
        "SERVER_START_ARGS": "-noinput",
        "SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 "
        "+sbwt none +sbwtdcpu none +sbwtdio none",
    }
    return {
        **{f"RABBITMQ_{name}": value for name, value in variables.items()},
        **epmd_environment(ports),
        "PATH": path,
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }


def epmd_environment(ports: Ports) -> dict[str, str]:
    """Return the environment with epmd's address and port, for epmd and for the node."""
    return {"ERL_EPMD_PORT": str(ports.epmd), "ERL_EPMD_ADDRESS": LOOPBACK}
