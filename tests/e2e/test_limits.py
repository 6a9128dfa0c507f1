"""What holds a worker back, on real processes: a pause, a rate that is cut, connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from harness.client import Client, submit_body, until
from harness.system import System, running_system, urls

RATE = 40.0
CONNECTIONS = 6
LIMITS = {
    "providers.smtp.rate": RATE,
    "providers.twilio.max_connections": CONNECTIONS,
}


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    with running_system(system_folder, urls(database_url, vhost_url) | LIMITS) as system:
        system.start_all()
        yield system


async def limit_of(client: Client, queue: str) -> str:
    rows = await client.read(f"{client.api}/v1/queues")
    return next(str(row["limited_by"]) for row in rows if row["queue"] == queue)


async def rate_of(system: System, provider: str) -> float:
    url = f"{system.children[-1].url}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        text = await answer.text()
    name = f'notifier_provider_rate_per_second{{provider="{provider}"}} '
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return float(line.removeprefix(name))


@pytest.mark.parametrize(
    ("kind", "name"), [("queue", "push.high"), ("channel", "push"), ("provider", "fcm")]
)
async def test_what_is_paused_through_the_api_waits_and_is_sent_when_it_is_resumed(
    system: System, client: Client, kind: str, name: str
) -> None:
    await client.hold("pause", kind, name)
    paused = await client.submit_one(submit_body("push.high"))
    other = await client.submit_one(submit_body("sms.high"))
    assert (await client.final(other))["status"] == "sent"
    assert await limit_of(client, "push.high") == "pause"
    assert not await client.calls(paused)
    await client.hold("resume", kind, name)
    assert (await client.final(paused))["status"] == "sent"


async def test_too_fast_cuts_the_rate_and_all_is_sent(system: System, client: Client) -> None:
    throttled = [submit_body("email.high", "throttle-2") for _ in range(20)]
    ids = await client.submit(throttled)
    await until(lambda: rate_of(system, "smtp"), lambda rate: 0 < rate < 0.8 * RATE)
    assert await client.all_final(ids) == {"sent": 20}
    more = await client.submit([submit_body("email.high") for _ in range(20)])
    assert await client.all_final(more) == {"sent": 20}
    assert "rate_cut" in system.children[-1].log.read_text()


async def test_a_channel_calls_no_more_at_once_than_its_provider_takes(
    system: System, client: Client
) -> None:
    await client.set_behaviour(channel="sms", latency_ms=300)
    ids = await client.submit([submit_body("sms.low") for _ in range(120)])
    await until(lambda: limit_of(client, "sms.low"), lambda limit: limit == "connections")
    assert await client.all_final(ids) == {"sent": 120}
    at = [call["at"].timestamp() for call in await client.log(channel="sms")]
    running = [sum(one - 0.3 < other <= one for other in at) for one in at]
    assert max(running) <= CONNECTIONS
