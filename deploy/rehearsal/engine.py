"""Runs commands of Docker and compose."""

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
COMMAND_TIMEOUT_S = 1800.0
MAX_ERROR_LENGTH = 240

ADVICE = """no Docker engine responds. Start one. On Debian, as root:
  apt-get install docker.io debootstrap
  dockerd &                          # with --storage-driver=vfs if there is no overlayfs"""


class EngineUnavailable(Exception):
    """No Docker engine responds. The message has the commands to start one."""


class CommandFailed(Exception):
    """A command exited with an error. The message ends with the end of its output."""


def run(
    command: Sequence[str | Path],
    *,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> str:
    """Run a command on the host and return its stdout. Raises CommandFailed."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        output = (done.stderr.strip() or done.stdout.strip())[-MAX_ERROR_LENGTH:]
        raise CommandFailed(f"{Path(command[0]).name} exited with {done.returncode}: ...{output}")
    return done.stdout


def docker(*arguments: str | Path, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run `docker ...` and return its stdout. Raises CommandFailed."""
    return run(["docker", *arguments], timeout_s=timeout_s)


def inspect(kind: str, name: str) -> Document:
    """Return Docker's description of an image or container. Raises CommandFailed if none exists."""
    (description,) = json.loads(docker(kind, "inspect", name))
    document: Document = description
    return document


def has_image(image: str) -> bool:
    """Return whether Docker has this image."""
    return bool(docker("image", "ls", "--quiet", image).strip())


def require_engine() -> None:
    """Raise EngineUnavailable unless an engine responds."""
    if shutil.which("docker") is None:
        raise EngineUnavailable(ADVICE)
    try:
        docker("version", "--format", "{{.Server.Version}}", timeout_s=20)
    except (CommandFailed, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(ADVICE) from error
