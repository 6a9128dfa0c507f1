"""Standard streams that are closed, full or never read, and the signals of a closed terminal."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

TIMEOUT_S = 60
ID = "0192f0c1-0000-7000-8000-000000000000"
NOWHERE = "http://127.0.0.1:1"
COMMANDS = (
    "--version",
    "--help",
    "dev --broker nonsense",
    "api",
    "worker --processes 2",
    "migrate",
    f"send -c email -t a@example.com -b x --wait --url {NOWHERE}",
    f"status {ID} --url {NOWHERE}",
    f"queues --url {NOWHERE}",
    f"providers --url {NOWHERE}",
    f"pause email --url {NOWHERE}",
    f"resume email --url {NOWHERE}",
    f"load -n 3 --url {NOWHERE}",
    "check-config",
    "doctor",
)
CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full")

# Prints that it is up, then that it stops, and takes a moment for it. Each line is one write, since
# several processes write to one pipe.
SLOW = """
import asyncio
from notifier.cli.running import run_until_signal
async def main(stop):
    print("up\\n", end="", flush=True)
    await stop.wait()
    print("stopping\\n", end="", flush=True)
    await asyncio.sleep(0.5)
    print("stopped\\n", end="", flush=True)
run_until_signal(main)
"""

# Writes to a stderr that nobody reads until the write is refused, then stops.
BLOCKED = """
import sys
from notifier.cli.running import run_until_signal
from notifier.cli.streams import write_line
async def main(stop):
    print("up", flush=True)
    write_line(sys.stderr, "x" * 1_000_000)
    await stop.wait()
    print("stopped", flush=True)
run_until_signal(main)
"""

# Blocks its event loop for good.
STUCK = """
import time
from notifier.cli.running import run_until_signal
async def main(stop):
    print("up", flush=True)
    time.sleep(10_000)
run_until_signal(main)
"""


# A parent of two such processes.
PARENT = """
import json, sys
from notifier.cli.supervisor import run_children
sys.exit(run_children([[sys.executable, "-c", script] for script in json.loads(sys.argv[1])]))
"""


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python with these arguments."""
    started: list[subprocess.Popen[str]] = []

    def popen(*words: str, stderr: int = subprocess.PIPE, **more: object) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, *words],
            cwd=tmp_path,
            env=environ(),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            **more,
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


Start = Callable[..., subprocess.Popen[str]]


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def unread_pipe() -> tuple[int, int]:
    """Both ends of a pipe that takes nothing more."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 65_536)
    os.set_blocking(write, True)
    return read, write


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class TestClosedStreams:
    @pytest.mark.parametrize("closed", CLOSED)
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_works_or_says_a_line(
        self, tmp_path: Path, command: str, closed: str
    ) -> None:
        line = f"exec {shlex.quote(sys.executable)} -m notifier {command} {closed}"
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=tmp_path,
            env=environ(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode in {0, 1, 2}
        assert len(done.stderr.splitlines()) <= 2, done.stderr

    def test_output_that_cannot_be_written_is_a_failure(self, tmp_path: Path) -> None:
        line = f"exec {shlex.quote(sys.executable)} -m notifier check-config >&-"
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=tmp_path,
            env=environ(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr == "notifier: cannot write the output: Bad file descriptor\n"


class TestStopOfAProcess:
    @pytest.fixture
    def ports(self) -> tuple[int, int]:
        return free_port(), free_port()

    @pytest.mark.parametrize(
        "streams",
        [
            "2>/dev/full",
            ">/dev/full 2>/dev/full",
            "<&- >&- 2>&-",
            "2>&-",
            "2>&1 | true",
            "2>&1 | sleep 1000",
        ],
    )
    def test_a_signal_stops_it_whatever_its_streams_are(
        self, tmp_path: Path, ports: tuple[int, int], streams: str
    ) -> None:
        http, smtp = ports
        command = f"{shlex.quote(sys.executable)} -m notifier sandbox"
        options = f"--http-port {http} --smtp-port {smtp}"
        run = f"{command} {options} {streams.partition('|')[0]}"
        # The exit code goes to a file, because a pipeline has that of its last command.
        line = (
            f"({run} & echo $! >pid; wait $!; echo $? >code) {''.join(streams.partition('|')[1:])}"
        )
        with subprocess.Popen(
            ["sh", "-c", line], cwd=tmp_path, env=environ(), start_new_session=True
        ) as shell:
            wait_until_served(http)
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
            deadline = time.monotonic() + TIMEOUT_S
            while not (tmp_path / "code").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            os.killpg(shell.pid, signal.SIGKILL)
        assert (tmp_path / "code").read_text() == "0\n"

    def test_it_stops_while_nobody_reads_its_stderr(self, start: Start) -> None:
        read, write = unread_pipe()
        process = start("-c", SLOW, stderr=write)
        assert line_of(process) == "up"
        process.send_signal(signal.SIGINT)
        assert (line_of(process), line_of(process)) == ("stopping", "stopped")
        assert process.wait(TIMEOUT_S) == 0
        os.close(read)
        os.close(write)

    def test_a_write_that_waits_for_a_reader_does_not_delay_the_stop(self, start: Start) -> None:
        read, write = unread_pipe()
        process = start("-c", BLOCKED, stderr=write)
        assert line_of(process) == "up"
        wait_until_blocked(process.pid)
        process.send_signal(signal.SIGTERM)
        assert line_of(process) == "stopped"
        assert process.wait(TIMEOUT_S) == 0
        os.close(read)
        os.close(write)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_parent_stops_its_children_although_its_stderr_is_full(
        self, start: Start, number: signal.Signals
    ) -> None:
        with Path("/dev/full").open("w") as full:
            process = start("-c", PARENT, json.dumps([SLOW, SLOW]), stderr=full.fileno())
        assert [line_of(process) for _ in range(2)] == ["up"] * 2
        process.send_signal(number)
        assert sorted(line_of(process) for _ in range(4)) == ["stopped"] * 2 + ["stopping"] * 2
        assert process.wait(TIMEOUT_S) == 0

    def test_a_further_signal_ends_a_process_whose_event_loop_is_stuck(self, start: Start) -> None:
        process = start("-c", STUCK)
        assert line_of(process) == "up"
        deadline = time.monotonic() + TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        assert process.returncode == 1
        assert process.stderr is not None
        assert "SIGTERM again: ending at once" in process.stderr.read()


class TestClosedTerminal:
    def test_sighup_stops_a_process_after_the_work_in_flight(self, start: Start) -> None:
        process = start("-c", SLOW)
        assert line_of(process) == "up"
        process.send_signal(signal.SIGHUP)
        assert (line_of(process), line_of(process)) == ("stopping", "stopped")
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read().startswith("notifier: SIGHUP: stopping")

    def test_the_copy_of_sighup_that_the_kernel_sends_ends_nothing(self, start: Start) -> None:
        patient = f"from notifier.cli import running\nrunning.DUPLICATE_SIGNAL_S = 60\n{SLOW}"
        process = start("-c", patient)
        assert line_of(process) == "up"
        process.send_signal(signal.SIGHUP)
        assert line_of(process) == "stopping"
        process.send_signal(signal.SIGHUP)
        assert line_of(process) == "stopped"
        assert process.wait(TIMEOUT_S) == 0

    def test_with_nohup_it_keeps_running(self, start: Start) -> None:
        ignoring = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{SLOW}"
        process = start("-c", ignoring)
        assert line_of(process) == "up"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert (line_of(process), line_of(process)) == ("stopping", "stopped")
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read().startswith("notifier: SIGTERM: stopping")


def wait_until_blocked(pid: int) -> None:
    """Wait until the process waits in a write to a pipe."""
    deadline = time.monotonic() + TIMEOUT_S
    while "pipe_write" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < deadline, "it does not write"
        time.sleep(0.01)


def wait_until_served(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/calls"):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing is served at {port}")
