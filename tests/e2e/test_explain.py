"""Why a notification waits, on real processes: it waits for each main reason, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from harness.client import Client, Document, submit_body, until
from harness.system import System, running_system, urls

RATE_PER_S: Final = 10
MAILS: Final = 100
FAILING: Final = 60
SHOP: Final = {"tenant": "shop"}


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    limits = {"providers.smtp.rate": RATE_PER_S}
    with running_system(system_folder, urls(database_url, vhost_url) | limits) as system:
        yield system


async def explain(client: Client, which: str) -> Document:
    found: Document = await client.call("GET", f"notifications/{which}/explain")
    return found


async def explained(client: Client, which: str, kind: str) -> Document:
    """Wait until a blocker of this kind is named first; return the explanation."""
    found: Document = await until(
        lambda: explain(client, which), lambda found: first_of(found)["kind"] == kind
    )
    return found


def first_of(explanation: Document) -> Document:
    """The most decisive blocker."""
    blockers: list[Document] = explanation["blockers"]
    return blockers[0] if blockers else {"kind": None}


async def test_a_notification_names_what_it_waits_for(
    system: System, client: Client, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    now = datetime.now(UTC)
    start, end = ((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (-3, 3))
    await connection.execute("INSERT INTO quiet_hours VALUES ('shop', $1, $2, 'UTC')", start, end)
    system.start_all()
    await scheduled(client)
    await quiet(client, f"{start} to {end}, UTC")
    await paused(client)
    await limited_by_the_rate(client)
    await stopped_by_a_breaker(client)
    await without_a_worker(system, client)


async def scheduled(client: Client) -> None:
    send_at = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    which = await client.submit_one(submit_body("push.low", send_at=send_at.isoformat()))
    found = await explained(client, which, "scheduled")
    until_at = datetime.fromisoformat(first_of(found)["until_at"])
    assert abs(until_at - send_at) < timedelta(minutes=1)
    assert datetime.fromisoformat(found["expected"]["earliest_at"]) <= until_at
    assert until_at < datetime.fromisoformat(found["expected"]["latest_at"])


async def quiet(client: Client, hours: str) -> None:
    which = await client.submit_one(submit_body("push.low", **SHOP))
    await until(
        lambda: client.notification(which), lambda found: found["status"] == "scheduled"
    )  # a worker has put it off
    found = await explained(client, which, "quiet_hours")
    assert (first_of(found)["name"], first_of(found)["detail"]) == ("shop", hours)
    assert found["expected"] is not None


async def paused(client: Client) -> None:
    await client.call("PUT", "pauses/queue/push.low", json={"note": "wrong newsletter"})

    async def submit() -> Document:
        which = await client.submit_one(submit_body("push.low"))
        return await explain(client, which)

    # Within a second after the pause one may still be sent.
    found = await until(submit, lambda found: first_of(found)["kind"] == "pause")
    assert first_of(found) == {
        "kind": "pause",
        "name": "queue:push.low",
        "until_at": None,
        "detail": "by anonymous: wrong newsletter",
    }
    assert found["expected"] is None
    await client.hold("resume", "queue", "push.low")
    assert (await client.final(found["id"]))["status"] == "sent"


async def limited_by_the_rate(client: Client) -> None:
    which = (await client.submit([submit_body("email.high") for _ in range(MAILS)]))[-1]
    found = await explained(client, which, "rate")
    rate, behind = found["blockers"]
    assert (rate["name"], rate["detail"]) == ("smtp", f"{RATE_PER_S} calls per second")
    assert behind["kind"] == "behind"
    assert 0 < found["ahead"]["count"] < MAILS
    assert found["ahead"]["is_exact"]
    sent = await client.final(which)
    assert sent["status"] == "sent"
    earliest_at, sent_at = map(
        datetime.fromisoformat, (found["expected"]["earliest_at"], sent["sent_at"])
    )
    assert earliest_at <= sent_at


async def stopped_by_a_breaker(client: Client) -> None:
    await client.set_behaviour(channel="sms", error_share=1)
    ids = await client.submit([submit_body("sms.high") for _ in range(FAILING)])
    await until(
        lambda: client.items("providers"),
        lambda rows: "open" in {row["breaker"] for row in rows if row["provider"] == "twilio"},
    )
    which = await client.submit_one(submit_body("sms.high"))
    found = await explained(client, which, "breaker")
    assert (first_of(found)["name"], found["expected"]) == ("twilio", None)
    assert "503" in first_of(found)["detail"]
    await client.set_behaviour(channel="sms")
    assert await client.all_final([*ids, which]) == {"sent": FAILING + 1}


async def without_a_worker(system: System, client: Client) -> None:
    system.children[-1].stop()
    which = await client.submit_one(submit_body("push.high"))
    found = await explained(client, which, "no_worker")
    assert found["expected"] is None
    shown = system.run("explain", which)
    assert shown.returncode == 0
    assert "no_worker  no worker is running" in shown.stdout
    system.start_another_worker()
    assert (await client.final(which))["status"] == "sent"
