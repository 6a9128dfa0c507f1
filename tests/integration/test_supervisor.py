"""`--processes N`: a parent that keeps real child processes running until a signal."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import aiohttp
import pytest

from notifier.api.http.server import bind, open_server
from notifier.domain.errors import ConfigError
from tests.unit.fakes_api import MemoryStore, make_api

TIMEOUT_S = 60
HOST = "127.0.0.1"

PARENT = """
import json, sys
from notifier.adapters.telemetry.logs import configure_logging
from notifier.cli.supervisor import run_children
configure_logging("json", "info")
sys.exit(run_children([[sys.executable, "-c", *script] for script in json.loads(sys.argv[1])]))
"""

# Prints that it is up, then its first signal; ends with the given exit code.
# Each line is one write, since several children write to one pipe.
CHILD = """
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
print(f"up {sys.argv[1]} {os.getpid()}\\n", end="", flush=True)
number = signal.sigwait([signal.SIGTERM, signal.SIGINT])
print(f"signalled {sys.argv[1]} {signal.Signals(number).name}\\n", end="", flush=True)
time.sleep(0.3)
again = signal.sigpending()
print(f"ends {sys.argv[1]} {len(again)}\\n", end="", flush=True)
sys.exit(int(sys.argv[2]))
"""

IGNORING = """
import os, signal, sys
line = f"signalled {sys.argv[1]} SIGTERM\\n"
signal.signal(signal.SIGTERM, lambda *_: print(line, end="", flush=True))
print(f"up {sys.argv[1]} {os.getpid()}\\n", end="", flush=True)
while True:
    signal.pause()
"""

# A process as the commands run it: drains for a while, then prints a line.
DRAINING = """
import asyncio, os, sys
from notifier.cli.running import run_until_signal
async def main(stop):
    print(f"up {sys.argv[1]} {os.getpid()}\\n", end="", flush=True)
    await stop.wait()
    await asyncio.sleep(0.5)
    print(f"drained {sys.argv[1]} {os.getpid()}\\n", end="", flush=True)
run_until_signal(main, has_parent=True)
"""

MISCONFIGURED = "import sys; print('a setting is wrong', file=sys.stderr); sys.exit(2)"


def child(name: str, code: int = 0) -> list[str]:
    return [CHILD, name, str(code)]


class Parent:
    """A supervisor in its own session, as a terminal starts it."""

    def __init__(self, process: subprocess.Popen[str], stderr: Path) -> None:
        self.process = process
        self._stderr = stderr

    @property
    def stderr(self) -> str:
        """The stderr of the parent and its children."""
        return self._stderr.read_text()

    def logged(self, event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def read(self, event: str, count: int) -> dict[str, str]:
        """Read `count` lines `event child value`, in any order. Returns the values by child."""
        lines = [self._line() for _ in range(count)]
        assert {line[0] for line in lines} == {event}, lines
        assert len({line[1] for line in lines}) == count, lines
        return {line[1]: line[2] for line in lines}

    def rest(self) -> list[str]:
        """Read stdout until the parent and all children have closed it."""
        assert self.process.stdout is not None
        return self.process.stdout.read().splitlines()

    def exit_code(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def _line(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    """Start a supervisor of scripts."""
    started: list[subprocess.Popen[str]] = []

    def start(*scripts: list[str]) -> Parent:
        return Parent(popen(["-c", PARENT, json.dumps(scripts)]), tmp_path / "stderr")

    def popen(arguments: list[str]) -> subprocess.Popen[str]:
        with (tmp_path / "stderr").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # its children end, too
        process.communicate(timeout=TIMEOUT_S)


Run = Callable[..., Parent]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_forwarded_once_and_the_parent_waits_for_all(
    run: Run, number: signal.Signals
) -> None:
    parent = run(child("a"), child("b"), child("c"))
    parent.read("up", 3)
    os.killpg(parent.process.pid, number)  # a terminal signals the whole group
    assert set(parent.read("signalled", 3).values()) == {"SIGTERM"}
    assert set(parent.read("ends", 3).values()) == {"0"}, "signalled twice"
    assert parent.exit_code() == 0
    assert parent.stderr.startswith(f"notifier: {number.name}: stopping 3 processes")


def test_a_child_that_fails_during_the_stop_makes_the_exit_code_1(run: Run) -> None:
    parent = run(child("a"), child("b", 3))
    parent.read("up", 2)
    parent.process.terminate()
    assert parent.exit_code() == 1


def test_a_child_that_dies_is_restarted_and_the_others_keep_running(run: Run) -> None:
    parent = run(child("a"), child("b"))
    pids = parent.read("up", 2)
    os.kill(int(pids["b"]), signal.SIGKILL)
    assert parent.read("up", 1)["b"] != pids["b"]
    [ended] = parent.logged("process_exited")
    assert (ended["process"], ended["code"], ended["restart_in_s"]) == (1, -9, 1.0)
    parent.process.terminate()
    parent.read("signalled", 2)
    assert parent.exit_code() == 0


def test_a_stop_does_not_wait_for_a_restart_delay(run: Run) -> None:
    parent = run(child("a"), ["import sys; sys.exit(7)"])
    parent.read("up", 1)
    until(lambda: len(parent.logged("process_exited")) == 2)  # the next delay is 2 s
    parent.process.terminate()
    assert parent.exit_code() == 0
    assert {line["restart_in_s"] for line in parent.logged("process_exited")} == {1.0, 2.0}


def test_a_wrong_setting_ends_all_with_2_and_a_message(run: Run) -> None:
    parent = run(child("a"), [MISCONFIGURED])
    assert parent.exit_code() == 2
    assert "a setting is wrong" in parent.stderr
    assert not parent.logged("process_exited")


def test_a_child_that_cannot_restart_leaves_the_others_running(run: Run, tmp_path: Path) -> None:
    once = "import os, sys; sys.exit(2) if os.path.exists(sys.argv[1]) else open(sys.argv[1], 'w')"
    parent = run([once, str(tmp_path / "started")], child("b"))
    parent.read("up", 1)
    while len(parent.logged("process_exited")) < 2:
        time.sleep(0.05)
    assert [line["code"] for line in parent.logged("process_exited")] == [0, 2]
    parent.process.send_signal(signal.SIGTERM)
    assert parent.read("signalled", 1) == {"b": "SIGTERM"}
    parent.rest()
    assert parent.exit_code() == 0


def test_a_second_signal_is_forwarded_and_ends_the_wait(run: Run) -> None:
    parent = run([IGNORING, "a"], [IGNORING, "b"])
    parent.read("up", 2)
    parent.process.terminate()
    parent.read("signalled", 2)
    parent.process.terminate()
    parent.read("signalled", 2)
    assert parent.exit_code() == 1
    assert "SIGTERM again: ending at once" in parent.stderr


def test_children_drain_when_a_service_manager_signals_them_and_their_parent(run: Run) -> None:
    patient = f"from notifier.cli import running\nrunning.DUPLICATE_SIGNAL_S = 60\n{DRAINING}"
    parent = run([patient, "a"], [patient, "b"])
    children = parent.read("up", 2)
    for pid in children.values():
        os.kill(int(pid), signal.SIGTERM)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.read("drained", 2) == children
    assert parent.exit_code() == 0


def test_a_second_signal_to_the_parent_ends_children_that_drain(run: Run) -> None:
    parent = run([DRAINING.replace("sleep(0.5)", "sleep(60)"), "a"])
    parent.read("up", 1)
    parent.process.send_signal(signal.SIGTERM)
    while "stopping after the work in flight" not in parent.stderr:
        time.sleep(0.01)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.exit_code() == 1
    assert parent.rest() == []


def test_children_get_sigterm_when_their_parent_is_killed(run: Run) -> None:
    parent = run(child("a"), child("b"))
    parent.read("up", 2)
    parent.process.kill()
    assert sorted(line.rsplit(" ", 1)[0] for line in parent.rest()) == [
        "ends a",
        "ends b",
        "signalled a",
        "signalled b",
    ]


@contextmanager
def notifier(
    folder: Path, *arguments: str, urls: Mapping[str, str] = {}, stderr: IO[str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m notifier` in the block, and kill it at the end."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("NOTIFIER_")}
    with subprocess.Popen(
        [sys.executable, "-m", "notifier", *arguments],
        cwd=folder,
        env=environ | dict(urls),
        stdout=subprocess.PIPE,
        stderr=stderr or subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def process_id(port: int) -> str:
    """The start time of the process that answers on this port, which identifies it."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    matches = re.compile(r"[a-z_]*process_start_time_seconds ").match
    return next(line for line in text.splitlines() if matches(line))


def two_free_ports() -> int:
    """The first of two consecutive free ports."""
    while True:
        with socket.create_server((HOST, 0)) as first:
            port: int = first.getsockname()[1]
            try:
                socket.create_server((HOST, port + 1)).close()
            except OSError:
                continue
        return port


def test_two_workers_have_their_own_metrics_ports_and_a_dead_one_is_restarted(
    tmp_path: Path, database_url: str, vhost_url: str
) -> None:
    urls = {"NOTIFIER_DATABASE_URL": database_url, "NOTIFIER_BROKER_URL": vhost_url}
    first = two_free_ports()
    log = tmp_path / "log"
    with (
        log.open("w") as stderr,
        notifier(
            tmp_path,
            *("worker", "--processes", "2", "--metrics-port", str(first)),
            stderr=stderr,
            urls=urls,
        ) as parent,
    ):
        until(lambda: is_ready(first) and is_ready(first + 1))
        before = process_id(first), process_id(first + 1)
        os.kill(children_of(parent.pid)[1], signal.SIGKILL)
        until(lambda: not is_ready(first + 1))
        until(lambda: is_ready(first + 1))
        assert process_id(first) == before[0]
        assert process_id(first + 1) != before[1]
        parent.terminate()
        out, _ = parent.communicate(timeout=TIMEOUT_S)
    assert parent.returncode == 0
    prefix = f"health and metrics on http://{HOST}"
    assert set(out.splitlines()) == {f"{prefix}:{first}", f"{prefix}:{first + 1}"}
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert {0, 1} <= {line.get("process") for line in lines}


def test_two_apis_share_a_port_and_have_their_own_metrics_ports(
    tmp_path: Path, database_url: str, vhost_url: str
) -> None:
    urls = {"NOTIFIER_DATABASE_URL": database_url, "NOTIFIER_BROKER_URL": vhost_url}
    first, port = two_free_ports(), two_free_ports()
    arguments = ("api", "--processes", "2", "--port", str(port), "--metrics-port", str(first))
    with (
        (tmp_path / "log").open("w") as stderr,
        notifier(tmp_path, *arguments, stderr=stderr, urls=urls) as parent,
    ):
        until(lambda: is_ready(first) and is_ready(first + 1))
        until(lambda: answering_processes(port) == {process_id(first), process_id(first + 1)})
        os.kill(children_of(parent.pid)[0], signal.SIGKILL)
        until(lambda: not is_ready(first))
        assert answering_processes(port) == {process_id(first + 1)}
        until(lambda: is_ready(first))
        parent.terminate()
        out, _ = parent.communicate(timeout=TIMEOUT_S)
    assert parent.returncode == 0
    assert set(out.splitlines()) == {
        f"API on http://{HOST}:{port} (docs at /docs)",
        f"health and metrics on http://{HOST}:{first}",
        f"health and metrics on http://{HOST}:{first + 1}",
    }


def answering_processes(port: int) -> set[str]:
    """The processes that answer forty requests; empty if a connection fails."""
    try:
        return {process_id(port) for _ in range(40)}
    except OSError:
        return set()


def children_of(pid: int) -> list[int]:
    """The process ids of the children, oldest first."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_an_api_port_in_use_is_one_line_before_any_process_starts(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as busy:
        port = busy.getsockname()[1]
        urls = {
            "NOTIFIER_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
            "NOTIFIER_BROKER_URL": "amqp://u:p@127.0.0.1:1/v",
        }
        arguments = ("api", "--processes", "2", "--port", str(port))
        with notifier(tmp_path, *arguments, urls=urls) as parent:
            out, err = parent.communicate(timeout=TIMEOUT_S)
    assert (parent.returncode, out) == (2, "")
    reason = "another process listens there; choose another with --port"
    assert err == f"notifier: {HOST}:{port} is in use: {reason}\n"


@pytest.mark.parametrize("number", ["0", "65", "x"])
def test_an_invalid_number_of_processes_is_one_line(tmp_path: Path, number: str) -> None:
    with notifier(tmp_path, "worker", "--processes", number) as process:
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2
    assert "--processes" in err
    assert len(err.splitlines()) == 1


async def test_servers_that_share_a_port_both_answer() -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    async with (
        open_server(make_api(MemoryStore()), host=HOST, port=port, grace_s=1, share_port=True),
        open_server(make_api(MemoryStore()), host=HOST, port=port, grace_s=1, share_port=True),
    ):
        assert await statuses_of(port) == {200}
        with pytest.raises(ConfigError, match="is in use"):
            bind(HOST, port)


async def statuses_of(port: int) -> set[int]:
    """The HTTP statuses of requests on twenty connections."""
    statuses = set()
    for _ in range(20):
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{HOST}:{port}/health/live") as response,
        ):
            statuses.add(response.status)
    return statuses
