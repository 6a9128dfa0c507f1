"""The machine and the software versions of a measurement."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPBasicAuthHandler, HTTPPasswordMgrWithDefaultRealm, build_opener

from benchmarks.bench.place import ROOT, Servers
from benchmarks.bench.recording_peers import NODE_FOLDER, OBAN_PYTHON, redis_server
from benchmarks.bench.systems import PEER_PYTHON

PACKAGES = (
    "celery",
    "dramatiq",
    "taskiq",
    "taskiq-aio-pika",
    "faststream",
    "pgqueuer",
    "procrastinate",
    "fastapi",
    "uvicorn",
)
NODE_PACKAGES = ("graphile-worker", "bullmq")
DRIVERS = ("aiosmtplib", "aiohttp")
"""Notifier's own, which also run without it."""
ASKING = (
    "import json, sys; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)


def machine() -> Mapping[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": commit(),
    }


def commit() -> str:
    return _said("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")


def versions(servers: Servers) -> Mapping[str, str]:
    """Return the versions of the peers that are installed and of the servers."""
    return {
        **_python_packages(PEER_PYTHON, *PACKAGES),
        **(_oban() if OBAN_PYTHON.exists() else {}),
        **(_node() if NODE_FOLDER.exists() else {}),
        **_redis(),
        **{name: version(name) for name in DRIVERS},
        "RabbitMQ": _rabbitmq(servers),
        "Postgres": servers.version(),
    }


def _python_packages(python: Path, *names: str) -> Mapping[str, str]:
    return dict(json.loads(_said(str(python), "-c", ASKING, *names)))


def _oban() -> Mapping[str, str]:
    _, _, number = _said(str(OBAN_PYTHON), "--version").partition(" ")
    return {**_python_packages(OBAN_PYTHON, "oban"), "Python of oban": number}


def _node() -> Mapping[str, str]:
    packages = {
        name: str(json.loads((NODE_FOLDER / name / "package.json").read_text())["version"])
        for name in NODE_PACKAGES
    }
    return {**packages, "Node": _said("node", "--version").removeprefix("v")}


def _redis() -> Mapping[str, str]:
    """Return the name and version of the server, as in `Redis server v=7.0.15 sha=...`."""
    program = redis_server()
    if program is None:
        return {}
    name, _, number = _said(program, "--version").partition(" server v=")
    return {name: number.split()[0]}


def _rabbitmq(servers: Servers) -> str:
    url = urlsplit(servers.rabbitmq.management_url)
    where = f"http://{url.hostname}:{url.port}/api/overview"
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, where, url.username or "", url.password or "")
    opener = build_opener(HTTPBasicAuthHandler(passwords))
    with opener.open(where, timeout=10) as answer:
        return str(json.load(answer)["rabbitmq_version"])


def _processor() -> str:
    """Return the processor's name on Linux, "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else ""


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
