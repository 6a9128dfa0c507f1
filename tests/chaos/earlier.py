"""The code of an earlier commit, to run beside the present one."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PARTS: Final = ("notifier", "config")


def export(commit: str, folder: Path) -> Path:
    """Unpack package and settings of a commit into the folder, once, and return the folder.

    Raises RuntimeError if the history does not have the commit.
    """
    if folder.exists():
        return folder
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, *PARTS], capture_output=True, check=False
    )
    if archive.returncode:
        raise RuntimeError(
            f"the history of this clone does not have commit {commit}, from which is upgraded: "
            "fetch all of it, e.g. `git fetch --unshallow`"
        )
    folder.mkdir(mode=0o755)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder
