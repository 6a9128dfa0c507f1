"""A tenant is paused while workers are killed; quiet hours; the sandbox's log is the judge."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.client import Client, orders, submit_body, until
from harness.system import Child, System, running_system, urls

ROWS: Final = 3000
KILLS: Final = 2
TWELVE_HOURS_AWAY: Final = "Etc/GMT+12"
QUIET_S: Final = 3.0
"""For this long nothing may happen to parked rows."""


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    with running_system(system_folder, urls(database_url, vhost_url)) as system:
        yield system


async def parked(client: Client, worker: Child) -> float:
    """How often this worker has parked a notification."""
    families = text_string_to_metric_families(await client.text(f"{worker.url}/metrics"))
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "notifier_parked_total"
    )


async def kill_while_it_parks(client: Client, worker: Child) -> None:
    await until(lambda: parked(client, worker), bool)
    worker.kill()
    worker.has_started = False


async def test_rows_parked_by_workers_that_are_killed_are_sent_when_the_tenant_is_resumed(
    system: System, client: Client
) -> None:
    system.start_all()
    await client.hold("pause", "tenant", "default")
    ids, doomed = list[str](), system.start_another_worker()
    for _ in range(KILLS):
        ids += await client.submit(orders(ROWS // KILLS))
        await kill_while_it_parks(client, doomed)
        doomed = system.start_another_worker()

    async def statuses() -> Counter[str]:
        return Counter((await client.statuses()).values())

    assert await until(statuses, lambda found: found["scheduled"] == ROWS)
    assert (await client.summary())["calls"] == 0
    before = await parked(client, doomed)
    await asyncio.sleep(QUIET_S)
    assert await parked(client, doomed) == before, "parked rows are claimed again and again"

    await client.hold("resume", "tenant", "default")
    assert await client.all_final(ids) == {"sent": ROWS}
    assert set(await client.accepted()) == set(ids)
    assert await client.unexplained_duplicates() == []


async def test_in_quiet_hours_a_login_code_is_sent_and_a_newsletter_waits_for_their_end(
    system: System, client: Client, database_url: str
) -> None:
    now = datetime.now(UTC)
    start, end = ((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (-3, 3))
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO quiet_hours VALUES ('', $1, $2, 'UTC')", start, end)
    await connection.close()
    system.start_all()
    code = await client.submit_one(submit_body("email.high"))
    news = await client.submit_one(submit_body("email.low"))
    awake = await client.submit_one(submit_body("email.low", time_zone=TWELVE_HOURS_AWAY))
    assert (await client.final(code))["status"] == "sent"
    assert (await client.final(awake))["status"] == "sent"
    waiting = await until(
        lambda: client.notification(news), lambda found: found["status"] == "scheduled"
    )
    due_at = datetime.fromisoformat(waiting["due_at"])
    expected = (now + timedelta(hours=3)).replace(second=0, microsecond=0)
    assert expected <= due_at <= expected + timedelta(seconds=70)
