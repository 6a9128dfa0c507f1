"""Where the files of a private Postgres are, and the account that owns them.

Postgres refuses to run as root. For root it runs as the unprivileged system user, which may not
enter /root, for example. The data is then in a new folder under /var/tmp, and the symbolic link
`elsewhere` in the given folder points to it. So neither the rights of that user nor the mode of a
foreign folder are ever changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from notifier.embedded.postgres_binaries import can_reach
from notifier.embedded.process import Account, ServerFailed

SOCKET: Final = ".s.PGSQL.5432"
MAX_SOCKET_PATH_BYTES: Final = 103  # Linux allows 107, macOS 103


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLayout:
    """`root` contains `data` and copied programs.

    `sockets` is `data`, or a folder with a shorter path if a socket's path would be too long.
    `account` is the server's; None means this process's account.
    """

    root: Path
    data: Path
    sockets: Path
    account: Account | None

    def assign_to_server(self, path: Path) -> None:
        """Give `path` to the server's account, and access to no other account."""
        path.chmod(0o700)
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)


def open_data_layout(folder: Path) -> DataLayout:
    """Find or create the layout of `folder`. Raises ServerFailed if its data cannot be reached."""
    known_root = _linked_root(folder) or folder
    account = _account(known_root / "data")
    root = _root(folder, account)
    layout = DataLayout(
        root=root, data=root / "data", sockets=_sockets(folder, root), account=account
    )
    if layout.sockets != layout.data:
        layout.assign_to_server(layout.sockets)
    return layout


def close_data_layout(folder: Path) -> None:
    """Remove what served this run only."""
    _remove_link(folder / "sockets")


def remove_data_layout(folder: Path) -> None:
    """Remove the folders that the links of a folder point to."""
    _remove_link(folder / "sockets")
    _remove_link(folder / "elsewhere")


def _linked_root(folder: Path) -> Path | None:
    link = folder / "elsewhere"
    return link.resolve() if link.is_dir() else None


def _account(data: Path) -> Account | None:
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid:
        return Account(data.stat().st_uid, data.stat().st_gid)
    unprivileged = pwd.getpwnam("nobody")
    return Account(unprivileged.pw_uid, unprivileged.pw_gid)


def _root(folder: Path, account: Account | None) -> Path:
    if linked_root := _linked_root(folder):
        return linked_root
    if can_reach(account, folder):
        return folder.resolve()
    if (folder / "data").exists():
        raise ServerFailed(
            f"{folder}/data was created by another user, who is not root; start as that user"
        )
    return _new_linked_folder(folder / "elsewhere", Path("/var/tmp"), mode=0o711)  # noqa: S108 survives a reboot


def _sockets(folder: Path, root: Path) -> Path:
    data = root / "data"
    if len(os.fsencode(data / SOCKET)) <= MAX_SOCKET_PATH_BYTES:
        return data
    return _new_linked_folder(folder / "sockets", Path("/tmp"), mode=0o700)  # noqa: S108 a short path


def _new_linked_folder(link: Path, parent: Path, *, mode: int) -> Path:
    _remove_link(link)
    target = Path(tempfile.mkdtemp(prefix="notifier-", dir=parent))
    target.chmod(mode)
    link.symlink_to(target)
    return target


def _remove_link(link: Path) -> None:
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()
