"""A failing provider, with real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.client import Client, open_client, submit_body, until
from harness.system import System, running_system, urls
from notifier.embedded.process import run_steps_async
from tests.e2e.scripted import HttpScript, Reply, open_http_script


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    quick = {"priorities.high.retry_base_s": 0.2, "priorities.high.retry_cap_s": 2}
    with running_system(system_folder, urls(database_url, vhost_url) | quick) as system:
        yield system


async def limit_of(client: Client, queue: str) -> str:
    rows = await client.items("queues")
    return next(str(row["limited_by"]) for row in rows if row["queue"] == queue)


async def test_a_worker_that_is_stopped_during_its_probe_closes_the_breaker(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    replies: list[Reply | None] = [(503, {})]
    script = HttpScript(lambda _: replies[-1])
    async with open_http_script(script):
        at = urls(database_url, vhost_url) | {"providers.twilio.url": script.url}
        with running_system(system_folder, at) as system:
            system.start_api()
            worker = system.start_worker()
            async with open_client(system.api_url, system.sandbox_url) as client:
                ids = await client.submit([submit_body("sms.high") for _ in range(60)])
                await until(lambda: limit_of(client, "sms.high"), lambda limit: limit == "breaker")
                replies.append(None)
                script.calls.clear()
                await until(lambda: calls_of(script), lambda calls: calls > 0)
                replies.append((201, {"sid": "SM1"}))
                asyncio.get_running_loop().call_later(0.5, script.answered.set)
                await run_steps_async(worker.stopping())  # a second signal would end it at once
                rows = await client.items("providers")
                assert {row["breaker"] for row in rows} == {"closed"}
                system.start_worker()
                assert await client.all_final(ids) == {"sent": 60}


async def test_a_person_has_a_provider_probed_that_asked_for_a_long_rest(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    replies: list[Reply | None] = [(429, {})]
    script = HttpScript(lambda _: replies[-1], headers={"Retry-After": "600"})
    async with open_http_script(script):
        at = urls(database_url, vhost_url) | {"providers.twilio.url": script.url}
        with running_system(system_folder, at) as system:
            system.start_api()
            system.start_worker()
            async with open_client(system.api_url, system.sandbox_url) as client:
                await client.submit([submit_body("sms.high") for _ in range(20)])
                await until(lambda: limit_of(client, "sms.high"), lambda limit: limit == "breaker")
                later = await client.submit([submit_body("sms.high") for _ in range(20)])
                replies.append((201, {"sid": "SM1"}))
                done = await asyncio.to_thread(system.run, "providers", "probe", "twilio")
                assert (done.returncode, done.stderr) == (0, "")
                assert "is the probe" in done.stdout
                assert await client.all_final(later) == {"sent": 20}
                again = await asyncio.to_thread(system.run, "providers", "probe", "twilio")
                assert "its breaker is closed" in again.stdout
                other = await asyncio.to_thread(system.run, "providers", "probe", "nobody")
                assert (other.returncode, "There are: " in other.stderr) == (1, True)


async def calls_of(script: HttpScript) -> int:
    return len(script.calls)


@pytest.mark.parametrize("workers", [1, 2])
async def test_rows_of_a_failing_provider_wait_without_spending_tries_and_are_sent_when_it_recovers(
    system: System, client: Client, workers: int
) -> None:
    system.start_all()
    for _ in range(workers - 1):
        system.start_another_worker()
    await client.set_behaviour(channel="sms", error_share=1)
    ids = await client.submit([submit_body("sms.high") for _ in range(300)])
    await until(lambda: limit_of(client, "sms.high"), lambda limit: limit == "breaker")
    assert (await client.final(await client.submit_one(submit_body())))["status"] == "sent"
    await client.set_behaviour(channel="sms")
    assert await client.all_final(ids) == {"sent": 300}
    log = "".join(child.log.read_text() for child in system.children[-workers:])
    assert '"breaker_opened"' in log
    assert '"breaker_closed"' in log
    notifications = [await client.notification(id_) for id_ in ids[:20]]
    for notification in notifications:
        assert len(await client.calls(notification["id"])) == notification["tries"]
