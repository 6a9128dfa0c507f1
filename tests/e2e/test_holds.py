"""A tenant is paused while workers are killed; quiet hours; the sandbox's log is the judge."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from benchmarks.prove.metrics import total
from harness.client import Client, orders, submit_body, until
from harness.system import Child, System

ROWS: Final = 3000
KILLS: Final = 2
PARKED: Final = "notifier_parked"
TWELVE_HOURS_AWAY: Final = "Etc/GMT+12"
QUIET_S: Final = 3.0
"""For this long nothing may happen to parked rows."""


async def kill_while_it_parks(worker: Child) -> None:
    await until(lambda: total([worker], PARKED), bool)
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
        await kill_while_it_parks(doomed)
        doomed = system.start_another_worker()

    async def statuses() -> Counter[str]:
        return Counter((await client.statuses()).values())

    assert await until(statuses, lambda found: found["scheduled"] == ROWS)
    assert (await client.summary())["calls"] == 0
    before = await total([doomed], PARKED)
    await asyncio.sleep(QUIET_S)
    assert await total([doomed], PARKED) == before, "parked rows are claimed again and again"

    await client.hold("resume", "tenant", "default")
    assert await client.all_final(ids) == {"sent": ROWS}
    assert set(await client.accepted()) == set(ids)
    assert await client.unexplained_duplicates() == []


async def test_in_quiet_hours_a_login_code_is_sent_and_a_newsletter_waits_for_their_end(
    system: System, client: Client, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    now = datetime.now(UTC)
    start, end = ((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (-3, 3))
    await connection.execute("INSERT INTO quiet_hours VALUES ('', $1, $2, 'UTC')", start, end)
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
