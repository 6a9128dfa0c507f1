"""Where a private Postgres lives in its folder, and as whom.

Postgres refuses to run as root, so for root it runs as `nobody`, who cannot enter, say, /root.
Then the data lies in a folder of its own under /var/tmp, to which `elsewhere` in the given folder
points: nobody's rights and no mode of a folder that is not ours are ever changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from notifier.embedded.postgres_binaries import can_reach
from notifier.embedded.process import Account, ServerFailed

SOCKET = ".s.PGSQL.5432"
LONGEST_SOCKET_PATH = 103  # bytes; 107 on Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLayout:
    """`root` holds `data` and copied programs; `sockets` is `data` itself if its path is short."""

    root: Path
    data: Path
    sockets: Path
    account: Account | None

    def give(self, path: Path) -> None:
        """Make `path` the server's own, and nobody else's."""
        path.chmod(0o700)
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)


def open_data_layout(folder: Path) -> DataLayout:
    """Find or make the home of `folder`. Raises ServerFailed if its data cannot be reached."""
    known = _elsewhere(folder) or folder
    account = _account(known / "data")
    root = _root(folder, account)
    home = DataLayout(
        root=root, data=root / "data", sockets=_sockets(folder, root), account=account
    )
    if home.sockets != home.data:
        home.give(home.sockets)
    return home


def close_data_layout(folder: Path) -> None:
    """Remove what was only for this run."""
    _forget(folder / "sockets")


def remove_data_layout(folder: Path) -> None:
    """Remove the folder and whatever of it lies elsewhere."""
    _forget(folder / "sockets")
    _forget(folder / "elsewhere")
    shutil.rmtree(folder, ignore_errors=True)


def _elsewhere(folder: Path) -> Path | None:
    link = folder / "elsewhere"
    return link.resolve() if link.is_dir() else None


def _account(data: Path) -> Account | None:
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid:
        return Account(data.stat().st_uid, data.stat().st_gid)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def _root(folder: Path, account: Account | None) -> Path:
    if peer_load := _elsewhere(folder):
        return peer_load
    if can_reach(account, folder):
        return folder.resolve()
    if (folder / "data").exists():
        raise ServerFailed(
            f"{folder}/data was made by another user who is not root; start as that user"
        )
    return _linked(folder / "elsewhere", Path("/var/tmp"), mode=0o711)  # noqa: S108 outlives a boot


def _sockets(folder: Path, root: Path) -> Path:
    data = root / "data"
    if len(os.fsencode(data / SOCKET)) <= LONGEST_SOCKET_PATH:
        return data
    return _linked(folder / "sockets", Path("/tmp"), mode=0o700)  # noqa: S108 short by purpose


def _linked(link: Path, where: Path, *, mode: int) -> Path:
    _forget(link)
    target = Path(tempfile.mkdtemp(prefix="notifier-", dir=where))
    target.chmod(mode)
    link.symlink_to(target)
    return target


def _forget(link: Path) -> None:
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()
