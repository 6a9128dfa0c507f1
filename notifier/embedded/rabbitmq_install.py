"""Finds RabbitMQ and its Erlang: the system's installation, or one unpacked without root."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Debian's script in /usr/sbin requires root or the user rabbitmq; the script in /usr/lib does not.
# The other two folders are those of the generic archive and of the official image.
SYSTEM_FOLDERS: Final = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin")
PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
UNPACKED: Final = Path(".notifier/rabbitmq-server")


@dataclass(frozen=True, slots=True)
class RabbitmqInstall:
    """The programs of one installation; `path` is the PATH that they need."""

    server: Path
    epmd: Path
    path: str

    @property
    def version(self) -> str:
        """The version by the name of its folder, `rabbitmq_server-4.3.6`; else ""."""
        folder = self.server.resolve().parent.parent
        return folder.name.partition("-")[2]


def find_rabbitmq(unpacked: Path = UNPACKED) -> RabbitmqInstall | None:
    """Return the system's RabbitMQ, else the one unpacked by deploy/install-rabbitmq, else None."""
    return next(_installed(), None) or find_unpacked(unpacked)


def find_unpacked(folder: Path) -> RabbitmqInstall | None:
    """Return the RabbitMQ that deploy/install-rabbitmq unpacked into a folder, else None."""
    return next(_unpacked(folder.absolute()), None)


def _installed() -> Iterator[RabbitmqInstall]:
    erlang = sorted(map(str, Path("/").glob("usr/lib*/erlang/erts-*/bin")))
    path = ":".join([PATH, "/opt/erlang/bin", *erlang])
    epmd = shutil.which("epmd", path=path)
    for folder in SYSTEM_FOLDERS:
        server = Path(folder, "rabbitmq-server")
        if server.is_file() and epmd:
            yield RabbitmqInstall(server, Path(epmd), path)


def _unpacked(root: Path) -> Iterator[RabbitmqInstall]:
    erlang = root / "usr/lib/erlang"
    servers = root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
    epmds = erlang.glob("erts-*/bin/epmd")
    for server, epmd in zip(servers, epmds, strict=False):
        yield RabbitmqInstall(server, epmd, f"{erlang}/bin:{PATH}")
