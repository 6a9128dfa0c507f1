"""Write the two requirement files with hashes, or check that they match pyproject.toml.

`write` resolves with uv for every platform and names no host. `check` compares, offline, the digest
of pyproject's dependency tables with the one recorded in the first lines of each file.
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
CONTENTS = {
    RUN: "to run Notifier: the dependencies, the `dev` extra and the `build` group",
    CHECK: "for `make check`: requirements.lock and the `dev` group",
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
    "--python-version=3.11",
    "--extra=dev",
    "--group=build",
)


def digest(pyproject: Path) -> str:
    """SHA-256 over all of a pyproject.toml that decides what is installed."""
    tables = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = tables["project"]
    inputs = [
        project["requires-python"],
        project["dependencies"],
        project.get("optional-dependencies", {}),
        tables.get("dependency-groups", {}),
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def header(lock: Path) -> str:
    """The comment a lock file begins with."""
    return (
        f"# What is installed {CONTENTS[lock]}.\n"
        "# Written by `make lock`; do not edit.\n"
        f"# pyproject sha256:{digest(PYPROJECT)}\n"
    )


def is_current(lock: Path) -> bool:
    """Whether the lock file was written for the present pyproject.toml."""
    return lock.is_file() and lock.read_text(encoding="utf-8").startswith(header(lock))


def write(lock: Path, *options: str) -> None:
    """Resolve into the lock file, keeping its present versions where they still fit."""
    uv = str(Path(sys.executable).with_name("uv"))
    compiling = [uv, *COMPILE, *options, f"--output-file={lock.name}", PYPROJECT.name]
    subprocess.run(compiling, cwd=ROOT, check=True)  # noqa: S603 our own words, no shell
    lock.write_text(header(lock) + lock.read_text(encoding="utf-8"), encoding="utf-8")


def main(command: str, *options: str) -> int:
    """Run `write` or `check`; the exit code says whether the files are right."""
    if command == "write":
        write(CHECK, "--group=dev", *options)
        write(RUN, f"--constraint={CHECK.name}", *options)
        return 0
    stale = [lock.name for lock in CONTENTS if not is_current(lock)]
    if stale:
        print(f"{' and '.join(stale)} do not match pyproject.toml: run `make lock`")
    return len(stale)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
