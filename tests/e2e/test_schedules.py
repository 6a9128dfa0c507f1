"""Schedules on real processes: some are killed, and each instant is submitted exactly once.

The time of Postgres, by which schedules run, is moved: no test waits for a minute.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from harness.client import Client, Document, submit_body, until
from notifier.delivery.schedule_runner import MAX_RUNS
from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import run_steps_async
from tests.dates import let_tests_choose_the_date, set_date

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.system import Child, System
    from tests.live_rows import Connection

SCHEDULES: Final = 200
INSTANTS: Final = 4
EVERY: Final = timedelta(minutes=10)
"""Longer than any test takes: the time of Postgres runs on."""
CRON: Final = "*/10 * * * *"
SLOW_INSERTS: Final = """
    CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.04); RETURN NEW; END';
    CREATE TRIGGER sleep BEFORE INSERT ON notifications FOR EACH ROW EXECUTE FUNCTION sleep();
"""
"""A process that is killed during its submit leaves it to Postgres, which ends and commits it."""
REPLAYED: Final = re.compile(
    r'^notifier_schedule_runs_total\{outcome="replayed"\} (\S+)$', re.MULTILINE
)
HELD: Final = "SELECT count(*) FROM schedules WHERE held_until > now()"


@pytest.fixture
async def clock(connection: Connection) -> Connection:
    """A connection that sets the time of the processes that start after it."""
    await let_tests_choose_the_date(connection)
    return connection


def the_next_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


async def schedule(client: Client, cron: str, tag: str) -> Document:
    body = {
        "cron": cron,
        "time_zone": "Asia/Kolkata",
        "notification": submit_body("email.low", ttl_s=86_400, tag=tag),
    }
    made: Document = await client.call("POST", "schedules", json=body)
    return made


async def another_api(system: System) -> Child:
    (port,) = free_ports(1)
    child = system.spawn_api_at(port)
    await run_steps_async(child.starting())
    return child


async def all_stand_at(client: Client, next_at: datetime) -> None:
    """Wait until every schedule has moved on to this instant."""

    async def instants() -> set[str]:
        items: list[Document] = []
        cursor = ""
        while True:
            page = await client.call("GET", f"schedules?limit=200{cursor}")
            items += page["items"]
            if page["next_cursor"] is None:
                return {item["next_at"] for item in items}
            cursor = f"&cursor={page['next_cursor']}"

    expected = {f"{next_at:%Y-%m-%dT%H:%M:%SZ}"}
    await until(instants, lambda found: found == expected)


async def test_processes_that_are_killed_again_and_again_submit_each_instant_once(
    system: System, client: Client, clock: Connection
) -> None:
    hour = the_next_hour()
    await set_date(clock, hour - timedelta(seconds=30))
    system.start_api()
    for number in range(SCHEDULES):
        await schedule(client, CRON, tag=f"n{number}")
    await clock.execute(SLOW_INSERTS)
    others = [await another_api(system) for _ in range(2)]
    replays = 0.0
    for number in range(INSTANTS):
        at = hour + number * EVERY
        await set_date(clock, at + timedelta(seconds=1))
        await until(lambda: clock.fetchval(HELD), lambda held: held > 2 * MAX_RUNS)
        doomed = others.pop(0)
        doomed.kill()
        doomed.has_started = False
        # What it held is free now: the others submit it, or find that it was submitted.
        await set_date(clock, at + timedelta(minutes=1))
        await all_stand_at(client, at + EVERY)
        replays += await replayed(client, [system.api_url, *(api.url for api in others)])
        others.append(await another_api(system))
    assert await tags(clock) == {f"n{number}": INSTANTS for number in range(SCHEDULES)}
    assert replays > 0, "no process was killed between its submit and the move of a schedule"
    page = await client.call("GET", "schedules?limit=1")
    assert page["items"][0]["last_problem"] is None


async def test_a_schedule_is_sent_and_what_an_outage_left_is_sent_once(
    system: System, client: Client, clock: Connection
) -> None:
    hour = the_next_hour()
    await set_date(clock, hour - timedelta(seconds=30))
    system.start_sandbox()
    system.start_worker()
    api = system.start_api()
    made = await schedule(client, CRON, tag="sent")
    await schedule(client, "0 0 1 1 *", tag="never")
    await set_date(clock, hour + timedelta(seconds=1))
    await all_sent(client, 1)
    api.stop()
    newest = hour + 30 * EVERY
    await set_date(clock, newest + timedelta(seconds=1))
    system.start_api()
    await all_sent(client, 2)
    found = await client.call("GET", f"schedules/{made['id']}?tenant=default")
    assert found["last_at"] == f"{newest:%Y-%m-%dT%H:%M:%SZ}"
    assert (await client.notification(found["last_notification"]))["status"] == "sent"
    assert await tags(clock) == {"sent": 2}
    metrics = await client.text(f"{system.api_url}/metrics")
    assert "notifier_schedule_instants_skipped_total 29.0" in metrics


async def all_sent(client: Client, number: int) -> None:
    await until(
        client.statuses,
        lambda found: len(found) == number and set(found.values()) == {"sent"},
    )


async def replayed(client: Client, apis: Sequence[str]) -> float:
    """How many runs these processes have ended as replays."""
    found = [REPLAYED.search(await client.text(f"{url}/metrics")) for url in apis]
    return sum(float(match[1]) for match in found if match)


async def tags(connection: Connection) -> Counter[str]:
    rows = await connection.fetch("SELECT tag FROM notifications")
    return Counter(row["tag"] for row in rows)
