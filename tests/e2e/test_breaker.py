"""A failing provider, with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.client import Client, Document, submit_body, until
from harness.system import System, running_system, urls


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    quick = {"priorities.high.retry_base_s": 0.2, "priorities.high.retry_cap_s": 2}
    with running_system(system_folder, urls(database_url, vhost_url) | quick) as system:
        yield system


async def limit_of(client: Client, queue: str) -> str:
    rows: list[Document] = await client.read(f"{client.api}/v1/queues")
    return next(str(row["limited_by"]) for row in rows if row["queue"] == queue)


@pytest.mark.parametrize("workers", [1, 2])
async def test_rows_of_a_failing_provider_wait_without_spending_tries_and_are_sent_when_it_recovers(
    system: System, client: Client, workers: int
) -> None:
    system.start_all()
    for _ in range(workers - 1):
        system.start_worker()
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
