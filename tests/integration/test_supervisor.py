"""`--processes N`: a parent that keeps real children running, and ends when they have ended."""

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

LONG_S = 60
HOST = "127.0.0.1"

PARENT = """
import json, sys
from notifier.adapters.telemetry.logs import configure_logging
from notifier.cli.supervisor import run_children
configure_logging("json", "info")
sys.exit(run_children([[sys.executable, "-c", *words] for words in json.loads(sys.argv[1])]))
"""

# Says that it is up, then each signal it gets; ends after the first with the code it was given.
# Each line in one piece: several write at once.
CHILD = """
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
print(f"up {sys.argv[1]} {os.getpid()}\\n", end="", flush=True)
number = signal.sigwait([signal.SIGTERM, signal.SIGINT])
print(f"told {sys.argv[1]} {signal.Signals(number).name}\\n", end="", flush=True)
time.sleep(0.3)
again = signal.sigpending()
print(f"ends {sys.argv[1]} {len(again)}\\n", end="", flush=True)
sys.exit(int(sys.argv[2]))
"""

STUBBORN = """
import os, signal, sys
told = f"told {sys.argv[1]} SIGTERM\\n"
signal.signal(signal.SIGTERM, lambda *_: print(told, end="", flush=True))
print(f"up {sys.argv[1]} {os.getpid()}\\n", end="", flush=True)
while True:
    signal.pause()
"""

# A process as the commands run it: drains for a while, and says so at its end.
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
    """A supervisor in a session of its own, as a terminal has it."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self.process = process
        self._said = said

    @property
    def said(self) -> str:
        """Everything on its stderr, and its children's."""
        return self._said.read_text()

    def logged(self, event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def hear(self, word: str, count: int) -> dict[str, str]:
        """So many next lines, in any order, that must begin with the word: the last by name."""
        on_outcome = [self._line() for _ in range(count)]
        assert {words[0] for words in on_outcome} == {word}, on_outcome
        assert len({words[1] for words in on_outcome}) == count, on_outcome
        return {words[1]: words[2] for words in on_outcome}

    def rest(self) -> list[str]:
        """What is said until everybody who could has gone."""
        assert self.process.stdout is not None
        return self.process.stdout.read().splitlines()

    def ends(self) -> int:
        return self.process.wait(LONG_S)

    def _line(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    """Starts a supervisor of scripts."""
    started: list[subprocess.Popen[str]] = []

    def start(*scripts: list[str]) -> Parent:
        return Parent(popen(["-c", PARENT, json.dumps(scripts)]), tmp_path / "said")

    def popen(words: list[str]) -> subprocess.Popen[str]:
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen(
                [sys.executable, *words],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # its children end with it
        process.communicate(timeout=LONG_S)


Run = Callable[..., Parent]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_once_and_all_are_waited_for(
    run: Run, number: signal.Signals
) -> None:
    parent = run(child("a"), child("b"), child("c"))
    parent.hear("up", 3)
    os.killpg(parent.process.pid, number)  # as a terminal does: the whole group at once
    assert set(parent.hear("told", 3).values()) == {"SIGTERM"}
    assert set(parent.hear("ends", 3).values()) == {"0"}, "told twice"
    assert parent.ends() == 0
    assert parent.said.startswith(f"notifier: {number.name}: stopping 3 processes")


def test_one_that_does_not_end_in_order_makes_the_exit_code_1(run: Run) -> None:
    parent = run(child("a"), child("b", 3))
    parent.hear("up", 2)
    parent.process.terminate()
    assert parent.ends() == 1


def test_one_that_dies_is_started_again_and_the_others_are_left_alone(run: Run) -> None:
    parent = run(child("a"), child("b"))
    pids = parent.hear("up", 2)
    os.kill(int(pids["b"]), signal.SIGKILL)
    assert parent.hear("up", 1)["b"] != pids["b"]
    [ended] = parent.logged("process_exited")
    assert (ended["process"], ended["code"], ended["restart_in_s"]) == (1, -9, 1.0)
    parent.process.terminate()
    parent.hear("told", 2)
    assert parent.ends() == 0


def test_a_stop_does_not_wait_for_the_pause_of_one_that_died(run: Run) -> None:
    parent = run(child("a"), ["import sys; sys.exit(7)"])
    parent.hear("up", 1)
    until(lambda: len(parent.logged("process_exited")) == 2)  # the next pause is 2 s
    parent.process.terminate()
    assert parent.ends() == 0
    assert {line["restart_in_s"] for line in parent.logged("process_exited")} == {1.0, 2.0}


def test_a_wrong_setting_ends_all_with_2_and_is_said(run: Run) -> None:
    parent = run(child("a"), [MISCONFIGURED])
    assert parent.ends() == 2
    assert "a setting is wrong" in parent.said
    assert not parent.logged("process_exited")


def test_one_that_cannot_start_again_leaves_the_others_alone(run: Run, tmp_path: Path) -> None:
    once = "import os, sys; sys.exit(2) if os.path.exists(sys.argv[1]) else open(sys.argv[1], 'w')"
    parent = run([once, str(tmp_path / "lived")], child("b"))
    parent.hear("up", 1)
    while len(parent.logged("process_exited")) < 2:
        time.sleep(0.05)
    assert [each["code"] for each in parent.logged("process_exited")] == [0, 2]
    parent.process.send_signal(signal.SIGTERM)
    assert parent.hear("told", 1) == {"b": "SIGTERM"}
    parent.rest()
    assert parent.ends() == 0


def test_a_second_signal_is_handed_on_and_then_nobody_is_waited_for(run: Run) -> None:
    parent = run([STUBBORN, "a"], [STUBBORN, "b"])
    parent.hear("up", 2)
    parent.process.terminate()
    parent.hear("told", 2)
    parent.process.terminate()
    parent.hear("told", 2)
    assert parent.ends() == 1
    assert "SIGTERM again: ending at once" in parent.said


def test_a_service_manager_that_tells_parent_and_children_at_once_lets_them_drain(run: Run) -> None:
    parent = run([DRAINING, "a"], [DRAINING, "b"])
    children = parent.hear("up", 2)
    for pid in children.values():
        os.kill(int(pid), signal.SIGTERM)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.hear("drained", 2) == children
    assert parent.ends() == 0


def test_a_second_signal_to_the_parent_ends_children_that_drain(run: Run) -> None:
    parent = run([DRAINING.replace("sleep(0.5)", "sleep(60)"), "a"])
    parent.hear("up", 1)
    parent.process.send_signal(signal.SIGTERM)
    while "stopping, what is under way" not in parent.said:
        time.sleep(0.01)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.ends() == 1
    assert parent.rest() == []


def test_children_are_told_when_their_parent_is_killed(run: Run) -> None:
    parent = run(child("a"), child("b"))
    parent.hear("up", 2)
    parent.process.kill()
    assert sorted(line.rsplit(" ", 1)[0] for line in parent.rest()) == [
        "ends a",
        "ends b",
        "told a",
        "told b",
    ]


# ---- workers and APIs ---------------------------------------------------------------------------


@contextmanager
def notifier(
    folder: Path, *words: str, urls: Mapping[str, str] = {}, said: IO[str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`python -m notifier`, killed at the end if it still runs."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("NOTIFIER_")}
    with subprocess.Popen(
        [sys.executable, "-m", "notifier", *words],
        cwd=folder,
        env=ours | dict(urls),
        stdout=subprocess.PIPE,
        stderr=said or subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(is_so: Callable[[], bool], within: float = LONG_S) -> None:
    deadline = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def process_id(port: int) -> str:
    """Which process answers there: the instant at which it started."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    is_it = re.compile(r"[a-z_]*process_start_time_seconds ").match
    return next(line for line in text.splitlines() if is_it(line))


def neighbours() -> int:
    """The first of two ports in a row that nobody listens on."""
    while True:
        with socket.create_server((HOST, 0)) as first:
            port: int = first.getsockname()[1]
            try:
                socket.create_server((HOST, port + 1)).close()
            except OSError:
                continue
        return port


def test_two_workers_have_a_metrics_port_each_and_the_one_that_dies_comes_back(
    tmp_path: Path, database_url: str, vhost_url: str
) -> None:
    urls = {"NOTIFIER_DATABASE_URL": database_url, "NOTIFIER_BROKER_URL": vhost_url}
    first = neighbours()
    log = tmp_path / "log"
    with (
        log.open("w") as said,
        notifier(
            tmp_path,
            *("worker", "--processes", "2", "--metrics-port", str(first)),
            said=said,
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
        out, _ = parent.communicate(timeout=LONG_S)
    assert parent.returncode == 0
    told = f"health and metrics on http://{HOST}"
    assert set(out.splitlines()) == {f"{told}:{first}", f"{told}:{first + 1}"}
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert {0, 1} <= {line.get("process") for line in lines}


def test_two_apis_serve_one_port_and_tell_their_metrics_at_ports_of_their_own(
    tmp_path: Path, database_url: str, vhost_url: str
) -> None:
    urls = {"NOTIFIER_DATABASE_URL": database_url, "NOTIFIER_BROKER_URL": vhost_url}
    first, port = neighbours(), neighbours()
    words = ("api", "--processes", "2", "--port", str(port), "--metrics-port", str(first))
    with (
        (tmp_path / "log").open("w") as said,
        notifier(tmp_path, *words, said=said, urls=urls) as parent,
    ):
        until(lambda: is_ready(first) and is_ready(first + 1))
        until(lambda: answering(port) == {process_id(first), process_id(first + 1)})
        os.kill(children_of(parent.pid)[0], signal.SIGKILL)
        until(lambda: not is_ready(first))
        assert answering(port) == {process_id(first + 1)}
        until(lambda: is_ready(first))
        parent.terminate()
        out, _ = parent.communicate(timeout=LONG_S)
    assert parent.returncode == 0
    assert set(out.splitlines()) == {
        f"API on http://{HOST}:{port} (docs at /docs)",
        f"health and metrics on http://{HOST}:{first}",
        f"health and metrics on http://{HOST}:{first + 1}",
    }


def answering(port: int) -> set[str]:
    """The processes that forty callers got to; fewer where one is not up yet."""
    try:
        return {process_id(port) for _ in range(40)}
    except OSError:
        return set()


def children_of(pid: int) -> list[int]:
    """By age."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_an_api_port_in_use_is_one_line_before_any_process_starts(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as busy:
        port = busy.getsockname()[1]
        urls = {
            "NOTIFIER_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
            "NOTIFIER_BROKER_URL": "amqp://u:p@127.0.0.1:1/v",
        }
        words = ("api", "--processes", "2", "--port", str(port))
        with notifier(tmp_path, *words, urls=urls) as parent:
            out, said = parent.communicate(timeout=LONG_S)
    assert (parent.returncode, out) == (2, "")
    why = "another process listens there; choose another with --port"
    assert said == f"notifier: {HOST}:{port} is in use: {why}\n"


@pytest.mark.parametrize("number", ["0", "65", "x"])
def test_a_number_of_processes_that_cannot_be_is_one_line(tmp_path: Path, number: str) -> None:
    with notifier(tmp_path, "worker", "--processes", number) as process:
        _, said = process.communicate(timeout=LONG_S)
    assert process.returncode == 2
    assert "--processes" in said
    assert len(said.splitlines()) == 1


# ---- one port, many listeners -------------------------------------------------------------------


async def test_servers_that_share_a_port_answer_side_by_side() -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    async with (
        open_server(make_api(MemoryStore()), host=HOST, port=port, grace_s=1, share_port=True),
        open_server(make_api(MemoryStore()), host=HOST, port=port, grace_s=1, share_port=True),
    ):
        assert await answers(port) == {200}
        with pytest.raises(ConfigError, match="is in use"):
            bind(HOST, port)


async def answers(port: int) -> set[int]:
    """On twenty connections."""
    statuses = set()
    for _ in range(20):
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{HOST}:{port}/health/live") as answer,
        ):
            statuses.add(answer.status)
    return statuses
