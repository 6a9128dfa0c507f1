"""Where RabbitMQ and its Erlang are installed: the system's, or unpacked without root."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# In Debian's package the script in /usr/sbin insists on root or the user rabbitmq; the one in
# /usr/lib serves everybody. The other two are those of the generic archive and the official image.
SYSTEM = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
UNPACKED = Path(".notifier/rabbitmq-server")


@dataclass(frozen=True, slots=True)
class RabbitmqInstall:
    """The programs of one installation; `path` is the PATH they need."""

    server: Path
    epmd: Path
    path: str


def find_rabbitmq(unpacked: Path = UNPACKED) -> RabbitmqInstall | None:
    """The system's RabbitMQ, else what deploy/install-rabbitmq left in `unpacked`, else None."""
    return next(_installed(), None) or next(_unpacked(unpacked.absolute()), None)


def _installed() -> Iterator[RabbitmqInstall]:
    erlang = sorted(map(str, Path("/").glob("usr/lib*/erlang/erts-*/bin")))
    path = ":".join([PATH, "/opt/erlang/bin", *erlang])
    epmd = shutil.which("epmd", path=path)
    for folder in SYSTEM:
        server = Path(folder, "rabbitmq-server")
        if server.is_file() and epmd:
            yield RabbitmqInstall(server, Path(epmd), path)


def _unpacked(root: Path) -> Iterator[RabbitmqInstall]:
    erlang = root / "usr/lib/erlang"
    servers = root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
    epmds = erlang.glob("erts-*/bin/epmd")
    for server, epmd in zip(servers, epmds, strict=False):
        yield RabbitmqInstall(server, epmd, f"{erlang}/bin:{PATH}")
