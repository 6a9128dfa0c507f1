"""Words to Docker and to compose, and what they answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
COMPOSE = Path(sys.executable).with_name("docker-compose")
WITHIN_S = 1800.0
LAST = 240

ADVICE = """no Docker engine answers. On Debian, as root:
  apt-get install docker.io debootstrap
  dockerd &                          # --storage-driver=vfs where overlayfs is not to be had"""


class EngineAway(Exception):
    """There is no engine to rehearse on; the words say what to do."""


class CommandFailed(Exception):
    """A command ended otherwise than with 0; the words are its last ones."""


def run(
    command: Sequence[str | Path],
    *,
    variables: Mapping[str, str] | None = None,
    within: float = WITHIN_S,
) -> str:
    """Run a command of the host; what it printed. Raises CommandFailed."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip())[-LAST:]
        raise CommandFailed(f"{Path(command[0]).name} ended with {done.returncode}: ...{words}")
    return done.stdout


def docker(*words: str | Path, within: float = WITHIN_S) -> str:
    """`docker ...`; what it printed."""
    return run(["docker", *words], within=within)


def inspected(kind: str, name: str) -> Document:
    """What Docker knows of an image or a container. Raises CommandFailed if there is none."""
    (found,) = json.loads(docker(kind, "inspect", name))
    document: Document = found
    return document


def is_here(image: str) -> bool:
    """Whether Docker has this image."""
    return bool(docker("image", "ls", "--quiet", image).strip())


def require_engine() -> None:
    """Raises EngineAway."""
    if shutil.which("docker") is None:
        raise EngineAway(ADVICE)
    try:
        docker("version", "--format", "{{.Server.Version}}", within=20)
    except (CommandFailed, subprocess.TimeoutExpired) as error:
        raise EngineAway(ADVICE) from error
