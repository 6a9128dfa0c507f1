"""The file in which a running `notifier dev` says what it uses, so that `doctor` can examine it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from notifier.embedded.data_folder import DEV_FILE

PRIVATE: Final = 0o600


class DevFile(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of a `dev` process: a broker URL "" is the broker in its memory.

    `sandbox_url` and `smtp_port` are those of the sandbox to which it sends, empty and 0 if it
    sends to the providers of the settings.
    """

    pid: int
    database_url: str
    broker_url: str
    sandbox_url: str = ""
    smtp_port: int = 0


@contextmanager
def written(folder: Path, content: DevFile) -> Iterator[None]:
    """Write the file for the length of the block; only its owner may read it.

    The URLs may have passwords.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DEV_FILE
    path.unlink(missing_ok=True)
    path.touch(PRIVATE, exist_ok=False)
    path.write_bytes(msgspec.json.encode(content))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_dev(folder: Path) -> DevFile | None:
    """Return what a live `dev` process with this data folder uses, None if there is none."""
    try:
        content = msgspec.json.decode((folder / DEV_FILE).read_bytes(), type=DevFile)
        os.kill(content.pid, 0)
    except (OSError, msgspec.DecodeError):
        return None
    return content
