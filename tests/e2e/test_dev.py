"""`notifier dev`: one process with a private Postgres, on a folder that outlives it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.client import Client, open_client, orders, submit_body
from harness.system import System, running_system
from notifier.embedded.folder import processes_in
from notifier.embedded.process import run_steps
from notifier.embedded.process import until as pauses_until

NUMBER = 600
PORTS = ("api.port", "sandbox.http_port", "sandbox.smtp_port")


@pytest.fixture
def system(system_folder: Path) -> Iterator[System]:
    with running_system(system_folder, {}) as system:
        yield system


def postgres_of(system: System) -> list[int]:
    return processes_in(system.folder / "data/postgres/data")


class TestWithAProviderOfItsOwn:
    """A separate sandbox, whose log of calls outlives the `dev` process."""

    @pytest.fixture
    def system(self, system_folder: Path, provider: System) -> Iterator[System]:
        with running_system(system_folder, provider.providers) as system:
            yield system

    @pytest.fixture
    def provider(self, e2e_folder: Path) -> Iterator[System]:
        with running_system(e2e_folder / "provider", {}) as provider:
            provider.start_sandbox()
            yield provider

    @pytest.fixture
    async def client(self, system: System, provider: System) -> AsyncIterator[Client]:
        async with open_client(system.api_url, provider.sandbox_url) as client:
            yield client

    async def test_what_ctrl_c_leaves_unfinished_the_next_start_finishes_exactly_once(
        self, system: System, client: Client
    ) -> None:
        await client.set_behaviour(latency_ms=500)
        first = system.start_dev("--providers", "settings")
        ids = await client.submit(orders(NUMBER))
        await client.wait_for_calls(NUMBER // 10)
        first.stop(signal.SIGINT)
        assert '"drain_finished"' in first.log_tail()
        assert (await client.summary())["calls"] < NUMBER, "nothing was left for the next start"
        assert postgres_of(system) == []

        system.start_dev("--providers", "settings")
        assert await client.all_final(ids) == {"sent": NUMBER}
        assert await client.accepted() == Counter(ids)


async def test_killed_it_leaves_no_postgres_and_the_next_start_goes_on(
    system: System, client: Client
) -> None:
    first = system.start_dev()
    sent = await client.submit_one(submit_body())
    assert (await client.final(sent))["status"] == "sent"
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    later = await client.submit_one(submit_body("sms.low", send_at=tomorrow))
    assert postgres_of(system) != []

    first.kill()
    run_steps(pauses_until(lambda: not postgres_of(system), timeout_s=30))
    assert postgres_of(system) == []
    system.start_dev()
    assert (await client.notification(sent))["status"] == "sent"
    assert (await client.notification(later))["status"] == "scheduled"
    again = await client.submit_one(submit_body("push.high"))
    assert (await client.final(again))["status"] == "sent"


def test_doctor_examines_a_running_dev_and_finds_nothing_wrong(system: System) -> None:
    dev = system.start_dev()
    data = str(system.folder / "data")
    done = system.run("doctor", "--data", data, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    findings = {row["check"]: row for row in json.loads(done.stdout)}
    assert {name for name, row in findings.items() if row["status"] != "ok"} <= {"leases"}
    assert findings["processes"]["finding"] == "alive: 1 dev"
    assert "in the memory" in findings["rabbitmq"]["finding"]
    assert {"provider smtp", "provider twilio", "provider fcm"} <= findings.keys()
    dev.stop(signal.SIGINT)
    assert system.run("doctor", "--data", data).returncode == 2


@pytest.mark.parametrize("setting", PORTS)
def test_a_port_in_use_is_said_in_one_line(system_folder: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        with running_system(system_folder, {setting: busy}) as system:
            done = system.run(*system.dev())
    assert done.returncode == 2, done.stderr
    # On a busy machine a warning may be logged before it.
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith('{"timestamp"')]
    assert str(busy) in line


def test_a_second_dev_on_the_same_folder_is_told_so_in_one_line(
    system: System, e2e_folder: Path
) -> None:
    first = system.start_dev()
    with running_system(e2e_folder / "second", {}) as second:
        done = second.run(*system.dev())
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"in use by process {first.pid}" in line
    assert first.is_running


def test_a_wrong_setting_ends_it_with_2_before_anything_is_made(system: System) -> None:
    done = system.run(*system.dev(), NOTIFIER_WORKER__CONSUMRS="64")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'did you mean "consumers"?' in line
    assert not (system.folder / "data").exists()


class TestForeignFiles:
    def test_a_folder_with_files_of_somebody_else_is_refused_and_left_alone(
        self, system: System
    ) -> None:
        for name in ("notes.txt", "postgres/init.sql", "rabbitmq/enabled_plugins"):
            folder = system.folder / f"with-{Path(name).name}"
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text("mine")
            for options in ((), ("--reset",), ("--broker", "rabbitmq")):
                if name.startswith("rabbitmq") and options != ("--broker", "rabbitmq"):
                    continue
                done = system.run("dev", "--data", str(folder), *options)
                assert done.returncode == 1
                (line,) = done.stderr.splitlines()
                assert "files that Notifier did not create" in line
            assert (folder / name).read_text() == "mine"

    def test_a_reset_removes_what_notifier_made_alone(self, system: System) -> None:
        system.start_dev().stop(signal.SIGINT)
        data = system.folder / "data"
        mine = (data / "backup.sql", data / "postgres/backup.sql")
        for path in mine:
            path.write_text("mine")
        before = (data / "postgres/data/PG_VERSION").stat().st_mtime_ns
        system.start_dev("--reset").stop(signal.SIGINT)
        assert (data / "postgres/data/PG_VERSION").stat().st_mtime_ns != before
        assert [path.read_text() for path in mine] == ["mine", "mine"]


@pytest.mark.parametrize("streams", [">/dev/full 2>&1", "<&- >&- 2>&-", "2>&1 | true"])
def test_it_stops_whatever_its_output_is(system: System, streams: str) -> None:
    run = shlex.join([sys.executable, "-m", "notifier", *system.dev()])
    before, pipe, reader = streams.partition("|")
    code = system.folder / "code"
    line = f"({run} {before} & echo $! >pid; wait $!; echo $? >code) {pipe}{reader}"
    with subprocess.Popen(
        ["sh", "-c", line], cwd=system.folder, env=system.environment(), start_new_session=True
    ) as shell:
        run_steps(pauses_until(lambda: is_ready(system.api_url), timeout_s=60))
        os.kill(int((system.folder / "pid").read_text()), signal.SIGTERM)
        run_steps(pauses_until(code.exists, timeout_s=60))
        os.killpg(shell.pid, signal.SIGKILL)
    assert code.read_text() == "0\n"
    assert postgres_of(system) == []


def test_make_run_without_a_terminal_stops_with_make(system: System) -> None:
    arguments = [f"PY={sys.executable}", f"ARGS=--data {system.folder / 'data'}"]
    with subprocess.Popen(
        ["make", "--old-file=run-tools", "run", *arguments],
        cwd=Path(__file__).resolve().parents[2],
        env=system.environment(),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as make:
        try:
            run_steps(pauses_until(lambda: is_ready(system.api_url), timeout_s=60))
            make.send_signal(signal.SIGTERM)
            make.wait(timeout=60)
            assert not is_ready(system.api_url)
            assert postgres_of(system) == []
        finally:
            with suppress(ProcessLookupError):
                os.killpg(make.pid, signal.SIGKILL)


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready"):  # noqa: S310 our own port
            return True
    except OSError:
        return False


async def test_with_the_providers_of_the_settings_it_names_them_and_shows_no_submit(
    system: System,
) -> None:
    real = system.start_dev("--providers", "settings")
    text = real.log.read_text()
    assert "WHAT YOU SUBMIT IS REALLY SENT" in text
    assert f"smtp at 127.0.0.1:{system.smtp_port}" in text
    assert "it delivers nothing" not in text
    assert "-d '{" not in text
