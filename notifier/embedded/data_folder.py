"""The folder of all data of `notifier dev`: its own, or a new one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from notifier.embedded.folder import LOCK, ForeignFolder, is_made
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.rabbitmq import RabbitmqServer
from notifier.embedded.server import PrivateServer

SERVERS: Final[Mapping[str, type[PrivateServer]]] = {
    "postgres": PostgresServer,
    "rabbitmq": RabbitmqServer,
}
"""The server of each sub-folder."""
DEFAULT: Final = ".notifier"
"""The name of the default folder: nobody else uses it, and the scripts of deploy/ unpack there."""
DEV_FILE: Final = "dev.json"
"""Says what a running `notifier dev` uses; see app/dev_file.py."""
EMPTY: Final = ("lost+found",)
"""What an empty file system contains."""


def refuse_foreign_data(folder: Path) -> None:
    """Raise ForeignFolder if the folder was never used and contains files of somebody else."""
    if folder.name == DEFAULT or not folder.is_dir() or _is_used(folder):
        return
    known = (*SERVERS, DEV_FILE, *EMPTY)
    foreign = sorted(path.name for path in folder.iterdir() if not is_made(path.name, known))
    if foreign:
        raise ForeignFolder(folder, foreign[0])


def _is_used(folder: Path) -> bool:
    return any(
        (folder / name / LOCK).is_file() and (folder / name / server.log_name).is_file()
        for name, server in SERVERS.items()
    )
