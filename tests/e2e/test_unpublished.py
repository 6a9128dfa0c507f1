"""The rows that an API process had taken when it was killed, with real processes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import aiohttp
import asyncpg

from harness.client import Client, submit_body, until
from harness.system import System
from notifier.embedded.process import run_steps_async

NUMBER = 20
ROOT = Path(__file__).parents[2]
TAKEN = "SELECT count(*) FROM notifications WHERE published_by IS NOT NULL"
DIED = 'notifier_rescues_total{queue="email.high",reason="process_died"} 1.0'


async def test_a_worker_that_starts_after_an_api_died_publishes_the_rows_it_had_taken(
    system: System, client: Client, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    system.start_sandbox()
    environ = {"CHAOS_STOP_AT": "take_due:after", "CHAOS_HOW": "kill", "CHAOS_ITEMS": "1"}
    api = system.spawn_api("tests.chaos.entry", PYTHONPATH=str(ROOT), **environ)
    await run_steps_async(api.starting())
    with suppress(aiohttp.ClientError):
        await client.post(submit_body())

    async def is_dead() -> bool:
        return not api.is_running

    await until(is_dead, bool)
    assert await connection.fetchval(TAKEN) == 1
    worker = system.start_worker()
    await until(client.summary, lambda summary: summary["accepted"] == 1)
    assert DIED in await client.text(f"{worker.url}/metrics")


async def test_a_relay_takes_nothing_before_its_process_has_a_heartbeat_row(
    system: System, client: Client, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with connection.transaction():
        await connection.execute("LOCK TABLE workers IN EXCLUSIVE MODE")
        api = system.spawn_api()

        async def has_missed() -> bool:
            return "heartbeat_failed" in api.log_tail()

        await until(has_missed, bool)
        for _ in range(NUMBER):  # one after another: each wakes the relay
            await client.submit_one(submit_body())
        assert await connection.fetchval(TAKEN) == 0
    await until(lambda: connection.fetchval(TAKEN), lambda taken: taken == NUMBER)
    await run_steps_async(api.starting())
