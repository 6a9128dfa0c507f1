"""A provider refuses our credentials until the file has the right ones, without a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.client import Client, submit_body, until
from harness.system import Child, System, running_system, urls

WAITING = 60
OPEN = 'notifier_breaker{provider="twilio",state="open"} 1.0'
NAMED = 'notifier_breaker_openings_total{provider="twilio",reason="credentials"} '


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "twilio_token"
    path.write_text("wrong")
    return path


@pytest.fixture
def system(
    system_folder: Path, database_url: str, vhost_url: str, password_file: Path
) -> Iterator[System]:
    credentials = {
        "providers.twilio.username": "AC1",
        "providers.twilio.password_file": password_file,
    }
    with running_system(system_folder, urls(database_url, vhost_url) | credentials) as system:
        yield system


async def test_wrong_credentials_spend_no_try_and_new_ones_in_the_file_are_taken_up(
    system: System, client: Client, password_file: Path
) -> None:
    system.start_all()
    workers = [system.children[-1], system.start_another_worker()]
    await client.set_behaviour(channel="sms", password="right")
    ids = await client.submit([submit_body("sms.high")] * WAITING)

    await until(lambda: said(client, workers), lambda text: text.count(OPEN) == len(workers))
    text = await said(client, workers)
    assert text.count(NAMED) > text.count(f"{NAMED}0.0"), "the metric names no opening"
    assert any("breaker_opened" in line and "twilio" in line for line in logged(workers))
    assert {await tries(client, which) for which in ids} == {0}

    password_file.write_text("right")
    assert await client.all_final(ids) == {"sent": WAITING}
    assert await client.accepted() == dict.fromkeys(ids, 1)
    assert all(worker.is_running for worker in workers)


async def test_dev_takes_up_the_credentials_of_the_settings_too(
    system: System, client: Client, password_file: Path
) -> None:
    system.start_dev("--providers", "settings")
    await client.set_behaviour(channel="sms", password="right")
    ids = await client.submit([submit_body("sms.high")] * WAITING)
    await until(lambda: client.text(f"{system.api_url}/metrics"), lambda text: OPEN in text)
    password_file.write_text("right")
    assert await client.all_final(ids) == {"sent": WAITING}


async def said(client: Client, workers: list[Child]) -> str:
    """Return the metrics of all processes."""
    return "".join([await client.text(f"{worker.url}/metrics") for worker in workers])


def logged(workers: list[Child]) -> list[str]:
    return [line for worker in workers for line in worker.log.read_text().splitlines()]


async def tries(client: Client, which: str) -> int:
    found: int = (await client.notification(which))["tries"]
    return found
