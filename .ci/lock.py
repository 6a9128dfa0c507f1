"""Writes the requirement files with hashes, or checks that they match their sources.

`write` resolves with uv for all platforms and writes no host names. `check` works offline: it
compares the digest of pyproject's dependency tables, or of a peer's requirements, with the digest
in the first lines of each file. The peers of benchmarks/peers/node are locked by npm instead.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
RUN = ROOT / "requirements.lock"
CHECK = ROOT / "requirements-dev.lock"
PEERS = ROOT / "benchmarks/peers/requirements.lock"
OBAN = ROOT / "benchmarks/peers/requirements-oban.lock"
CONTENTS = {
    RUN: "to run Notifier: the dependencies, the extras and the `build` group",
    CHECK: "for `make check`: requirements.lock and the `dev` group",
    PEERS: "for `make bench`: the systems that Notifier is compared with",
    OBAN: "for `make bench`: Oban, which needs a newer Python than the others",
}
COMPILE = (
    "pip",
    "compile",
    "--quiet",
    "--no-config",
    "--universal",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-header",
)
PYTHON = "--python-version=3.11"
PYTHON_OF_OBAN = "--python-version=3.13"
OURS = ("--extra=dev", "--extra=mjml", "--group=build")


def digest(pyproject: Path) -> str:
    """Return the SHA-256 of the tables of a pyproject.toml that define the installed packages."""
    tables = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = tables["project"]
    inputs = [
        project["requires-python"],
        project["dependencies"],
        project.get("optional-dependencies", {}),
        tables.get("dependency-groups", {}),
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def recorded(lock: Path) -> str:
    """Return the source of the lock file and its digest."""
    if lock in {PEERS, OBAN}:
        source = lock.with_suffix(".in")
        return f"{source.name} sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"
    return f"pyproject sha256:{digest(PYPROJECT)}"


def header(lock: Path) -> str:
    """Return the comment at the start of a lock file."""
    return (
        f"# What is installed {CONTENTS[lock]}.\n"
        "# Written by `make lock`; do not edit.\n"
        f"# {recorded(lock)}\n"
    )


def is_current(lock: Path) -> bool:
    """Return whether the lock file was written for the current requirements."""
    return lock.is_file() and lock.read_text(encoding="utf-8").startswith(header(lock))


def write(lock: Path, *options: str, source: Path = PYPROJECT) -> None:
    """Resolve into the lock file; keep its versions where they still fit."""
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, *COMPILE, *options, f"--output-file={lock.name}", source.name]
    subprocess.run(command, cwd=source.parent, check=True)  # noqa: S603 fixed arguments, no shell
    lock.write_text(header(lock) + lock.read_text(encoding="utf-8"), encoding="utf-8")


def main(command: str, *options: str) -> int:
    """Run `write` or `check`. Returns the exit code: the number of files that do not match."""
    if command == "write":
        write(CHECK, PYTHON, *OURS, "--group=dev", *options)
        write(RUN, PYTHON, *OURS, f"--constraint={CHECK.name}", *options)
        write(PEERS, PYTHON, *options, source=PEERS.with_suffix(".in"))
        write(OBAN, PYTHON_OF_OBAN, *options, source=OBAN.with_suffix(".in"))
        return 0
    stale = [lock.name for lock in CONTENTS if not is_current(lock)]
    if stale:
        print(f"{' and '.join(stale)} do not match their sources: run `make lock`")
    return len(stale)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
