"""A real `notifier dev` as a child process with its own folder, ports, broker and short retries."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import notifier
from harness.demo.plan import TRIES
from notifier.domain.errors import InfrastructureError
from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import read_log, run_steps_async, spawn, terminating
from notifier.embedded.rabbitmq_install import find_rabbitmq

STOP_TIMEOUT_S = 40.0
MAX_LOG_LINES = 20


class NodeFailed(InfrastructureError):
    """The child ended too early or took too long. The message ends with its last log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A running child and its addresses."""

    broker: str
    api: str
    sandbox: str
    log: Path
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise NodeFailed if the child has ended."""
        code = self.process.poll()
        if code is not None:
            raise self.failed(f"ended with {code}")

    def failed(self, failure: str) -> NodeFailed:
        """An error with how the child failed and its last log lines."""
        last_lines = "\n".join(read_log(self.log).splitlines()[-MAX_LOG_LINES:])
        return NodeFailed(f"notifier dev {failure}; its log ends:\n{last_lines}")


@asynccontextmanager
async def open_node() -> AsyncIterator[Node]:
    """Start the child. Leaving the block drains and ends it, and removes its folder.

    Every user may enter the folder, since the embedded Postgres does not run as root.
    """
    with tempfile.TemporaryDirectory(prefix="notifier-demo-", ignore_cleanup_errors=True) as name:
        node = _start(Path(name), "rabbitmq" if find_rabbitmq() else "in-process")
        try:
            yield node
        finally:
            await run_steps_async(terminating(node.process, [(signal.SIGINT, STOP_TIMEOUT_S)]))


def _start(folder: Path, broker: str) -> Node:
    folder.chmod(0o711)
    api, metrics, http, smtp = free_ports(4)
    command = [sys.executable, "-m", "notifier", "dev", "--data", str(folder / "data")]
    if broker == "rabbitmq":
        command += ["--broker", "rabbitmq"]
    log = folder / "log"
    process = spawn(
        command,
        death_signal=signal.SIGTERM,
        environment={
            "HOME": str(folder),
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(Path(notifier.__path__[0]).parent),
            "NOTIFIER_API__PORT": str(api),
            "NOTIFIER_WORKER__METRICS_PORT": str(metrics),
            "NOTIFIER_SANDBOX__HTTP_PORT": str(http),
            "NOTIFIER_SANDBOX__SMTP_PORT": str(smtp),
            **_short_retries(),
        },
        folder=folder,
        log=log,
    )
    return Node(
        broker=broker,
        api=f"http://127.0.0.1:{api}",
        sandbox=f"http://127.0.0.1:{http}",
        log=log,
        process=process,
    )


def _short_retries() -> Mapping[str, str]:
    keys = {"RETRY_BASE_S": "0.5", "RETRY_FACTOR": "2", "RETRY_CAP_S": "4", "TRIES": str(TRIES)}
    return {
        f"NOTIFIER_PRIORITIES__{priority}__{key}": value
        for priority in ("HIGH", "MEDIUM", "LOW")
        for key, value in keys.items()
    }
