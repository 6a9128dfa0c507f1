"""`notifier dev`: one process with a private Postgres, on a folder that outlives it."""

from __future__ import annotations

import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
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


@pytest.mark.parametrize("setting", PORTS)
def test_a_port_in_use_is_said_in_one_line(system_folder: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        with running_system(system_folder, {setting: busy}) as system:
            done = system.run(*system.dev())
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
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
