"""A small disk for Postgres, and a file that fills it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SIZE: Final = "400m"
CHUNK: Final = bytes(1024 * 1024)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a tmpfs at `folder`. Raises CalledProcessError unless run as root."""
    folder.mkdir(mode=0o711)
    options = f"size={SIZE},mode=711"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def ballast(folder: Path) -> Iterator[None]:
    """Fill the rest of the disk with one file."""
    path = folder / "ballast"
    try:
        with path.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(CHUNK):
                pass
        yield
    finally:
        path.unlink(missing_ok=True)
