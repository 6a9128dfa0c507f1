"""What a private RabbitMQ node is told: its files and its environment.

Everything that could reach outside its folder is named: the system's configuration is not read,
the system's epmd is not asked, nothing listens but on the loopback.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from notifier.embedded.free_ports import free_ports

LOOPBACK = "127.0.0.1"
COOKIE = ".erlang.cookie"
NAME = "notifier@localhost"
"""Of a node that is alone with its epmd: what it keeps lies under its name."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The four ports of a node."""

    amqp: int
    management: int
    distribution: int
    epmd: int

    @classmethod
    def free(cls) -> Ports:
        """Four that nobody listens on."""
        return cls(*free_ports(4))

    @classmethod
    def beside(cls, peer: Ports) -> Ports:
        """Three, and the epmd of a node that this one is to meet."""
        amqp, management, distribution = free_ports(3)
        return cls(amqp, management, distribution, peer.epmd)


def write_files(
    folder: Path, ports: Ports, settings: Mapping[str, str], *, cookie_of: Path | None = None
) -> None:
    """Configuration with `settings`, plugins and cookie of a node; the cookie may be another's."""
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (folder / "rabbitmq.conf").write_text(_configuration(ports) + more)
    (folder / "plugins").write_text("[rabbitmq_management].\n")
    cookie = folder / COOKIE
    if not cookie.exists():
        cookie.touch(mode=0o600)
        cookie.write_text((cookie_of / COOKIE).read_text() if cookie_of else secrets.token_hex(16))
        cookie.chmod(0o400)


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
    """All the node may know of the world. Its name can be fixed if it has an epmd of its own."""
    own = {
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
        "ALLOW_INPUT": "1",  # the script turns into the node: its pid is the node's
        "SERVER_START_ARGS": "-noinput",
        "SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 "
        "+sbwt none +sbwtdcpu none +sbwtdio none",
    }
    return {
        **{f"RABBITMQ_{name}": value for name, value in own.items()},
        **epmd_environment(ports),
        "PATH": path,
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }


def epmd_environment(ports: Ports) -> dict[str, str]:
    """Where epmd listens, for itself and for the node."""
    return {"ERL_EPMD_PORT": str(ports.epmd), "ERL_EPMD_ADDRESS": LOOPBACK}
