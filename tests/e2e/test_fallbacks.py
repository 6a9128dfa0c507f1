"""Fallbacks on real processes: another channel takes over exactly once, whoever is killed."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import eq
from typing import TYPE_CHECKING, Final

import pytest

from harness.client import Client, Document, submit_body, until
from notifier.delivery.fallback_runner import MAX_TAKEN
from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import run_steps_async
from tests.dates import let_tests_choose_the_date, set_date

if TYPE_CHECKING:
    from harness.system import Child, System
    from tests.live_rows import Connection

ROUNDS: Final = 3
EVERY: Final = timedelta(minutes=10)
"""Longer than a round takes: the time of Postgres runs on."""
A_ROUND: Final = 250
"""More than two processes take."""
SLOW_INSERTS: Final = """
    CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END';
    CREATE TRIGGER sleep BEFORE INSERT ON notifications FOR EACH ROW EXECUTE FUNCTION sleep();
"""
"""A process that is killed during its submit leaves it to Postgres, which ends and commits it."""
HELD: Final = "SELECT count(*) FROM fallbacks WHERE begun_at IS NOT NULL AND look_at > now()"
DONE: Final = "SELECT count(*) FROM fallbacks WHERE notification IS NOT NULL"
REPLAYED: Final = re.compile(
    r'^notifier_fallbacks_total\{outcome="replayed"\} (\S+)$', re.MULTILINE
)


def text_message(fate: str, after_s: float = 600, **more: object) -> Document:
    """A text message of this fate that falls back to an email."""
    email = submit_body("email.high")
    fallback = {name: email[name] for name in ("channel", "recipient", "content")}
    return submit_body("sms.high", fate, fallback={"after_s": after_s, **fallback}, **more)


async def second_of(client: Client, first: str) -> str | None:
    fallback = (await client.notification(first))["fallback"]
    second: str | None = fallback["notification"]
    return second


async def test_an_email_goes_out_once_if_the_text_message_is_refused_or_gets_no_answer(
    system: System, client: Client
) -> None:
    system.start_all()
    refused, silent, sent = await client.submit(
        [text_message("refuse"), text_message("hang", after_s=5), text_message("ok")]
    )
    for first in (refused, silent):
        second = await until(partial(second_of, client, first), bool)
        assert second is not None
        found = await client.final(second)
        assert (found["status"], found["channel"], found["fallback_of"]) == ("sent", "email", first)
    assert (await client.final(refused))["status"] == "failed"
    assert (await client.final(silent))["result"]["reason"] == "ambiguous"
    assert (await client.final(sent))["status"] == "sent"
    assert await second_of(client, sent) is None
    emails = await client.log(channel="email")
    assert Counter(call["accepted"] for call in emails) == {True: 2}
    assert len(await client.statuses()) == 5
    shown = system.run("status", refused)
    assert "email at" in shown.stdout


@pytest.fixture
async def clock(connection: Connection) -> Connection:
    """A connection that sets the time of the processes that start after it."""
    await let_tests_choose_the_date(connection)
    return connection


async def another_api(system: System) -> Child:
    (port,) = free_ports(1)
    child = system.spawn_api_at(port)
    await run_steps_async(child.starting())
    return child


async def test_processes_that_are_killed_again_and_again_submit_each_fallback_once(
    system: System, client: Client, clock: Connection
) -> None:
    start = datetime.now(UTC)
    await set_date(clock, start)
    system.start_api()
    for number in range(ROUNDS):
        after_s = (number + 1) * EVERY.total_seconds()
        await client.submit(
            [
                text_message("ok", after_s, tag=f"n{number}-{item}", ttl_s=86_400)
                for item in range(A_ROUND)
            ]
        )
    await clock.execute(SLOW_INSERTS)
    others = [await another_api(system) for _ in range(2)]
    for number in range(ROUNDS):
        at = start + (number + 1) * EVERY + EVERY / 2
        await set_date(clock, at)
        # Two of the three processes hold some, so one of the others does.
        await until(lambda: clock.fetchval(HELD), lambda held: held > MAX_TAKEN)
        for doomed in others:
            doomed.kill()
            doomed.has_started = False
        # What they held is free now: the first one submits it, or finds that it was submitted.
        await set_date(clock, at + timedelta(minutes=1))
        await until(lambda: clock.fetchval(DONE), partial(eq, (number + 1) * A_ROUND))
        others = [await another_api(system) for _ in range(2)]
    replays = await replayed(client, system.api_url)
    tags = await clock.fetch("SELECT tag, count(*) AS count FROM notifications GROUP BY tag")
    assert Counter(row["count"] for row in tags) == {2: ROUNDS * A_ROUND}
    seconds = await clock.fetchval("SELECT count(DISTINCT notification) FROM fallbacks")
    assert seconds == ROUNDS * A_ROUND
    assert replays > 0, "no process was killed between its submit and the end of a fallback"


async def replayed(client: Client, url: str) -> float:
    """How many fallbacks a process has ended as replays."""
    found = REPLAYED.search(await client.text(f"{url}/metrics"))
    return float(found[1]) if found else 0.0
