"""Who publishes what is due: the worker that holds the queue's lease, whatever ends before it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from harness.client import QUEUES, Client, submit_body, until
from harness.system import Child, System
from notifier.domain.webhooks import WEBHOOK_QUEUE
from notifier.embedded.process import run_steps_async

ROOT: Final = Path(__file__).parents[2]
HOLDERS: Final = """SELECT l.queue, w.pid FROM leases l JOIN workers w ON w.id = l.holder"""


async def holders(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, int]:
    """Return the pid of the holder of each queue that has one."""
    return {row["queue"]: row["pid"] for row in await connection.fetch(HOLDERS)}


async def all_held_by(
    children: Collection[Child], connection: asyncpg.Connection[asyncpg.Record]
) -> dict[str, int]:
    """Wait until each queue has a holder, and it is one of these."""
    pids = {child.pid for child in children}

    def are_held(found: dict[str, int]) -> bool:
        return set(found) == {*QUEUES, str(WEBHOOK_QUEUE)} and set(found.values()) <= pids

    found: dict[str, int] = await until(lambda: holders(connection), are_held)
    return found


def due_soon(queue: str) -> dict[str, object]:
    """Return the body of a submit that no API publishes directly."""
    due_at = datetime.now(UTC) + timedelta(seconds=1)
    return submit_body(queue, send_at=due_at.isoformat())


async def test_a_worker_publishes_what_a_killed_api_had_stored_and_not_published(
    system: System, client: Client
) -> None:
    system.start_sandbox()
    system.start_worker()
    environ = {"CHAOS_STOP_AT": "insert:after", "CHAOS_HOW": "kill", "CHAOS_ITEMS": "1"}
    api = system.spawn_api("tests.chaos.entry", PYTHONPATH=str(ROOT), **environ)
    await run_steps_async(api.starting())
    with suppress(aiohttp.ClientError):
        await client.post(submit_body())

    async def is_running() -> bool:
        return api.is_running

    await until(is_running, lambda runs: not runs)
    summary = await until(client.summary, lambda summary: summary["accepted"] > 0)
    assert summary["accepted"] == 1


async def test_another_worker_publishes_when_the_holder_of_a_lease_is_killed(
    system: System, client: Client, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    system.start_all()
    other = system.start_another_worker()
    workers = {child.pid: child for child in (system.children[-2], other)}
    held = await all_held_by(workers.values(), connection)
    doomed = workers.pop(held["email.high"])
    doomed.kill()
    doomed.has_started = False
    which = await client.submit_one(due_soon("email.high"))
    assert (await client.final(which))["status"] == "sent"
    assert len(await client.calls(which)) == 1
    await all_held_by(workers.values(), connection)


async def test_a_worker_that_stops_hands_its_leases_over(
    system: System, client: Client, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    system.start_all()
    first, other = system.children[-1], system.start_another_worker()
    await all_held_by([first, other], connection)
    await run_steps_async(first.stopping())
    assert set((await holders(connection)).values()) <= {other.pid}
    await all_held_by([other], connection)
    ids = await client.submit([due_soon(queue) for queue in QUEUES])
    assert await client.all_final(ids) == {"sent": len(QUEUES)}


async def test_what_is_accepted_while_no_worker_runs_is_sent_by_the_first(
    system: System, client: Client, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    system.start_sandbox()
    system.start_api()
    ids = await client.submit([due_soon(queue) for queue in QUEUES])
    ids += await client.submit([submit_body(queue) for queue in QUEUES])
    assert await holders(connection) == {}
    system.start_worker()
    assert await client.all_final(ids) == {"sent": len(ids)}
    assert set((await client.accepted()).values()) == {1}
