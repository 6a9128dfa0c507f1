"""The limits of a worker, on real processes: a pause, a reduced rate, connections."""

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
    rows = await client.items("queues")
    return next(str(row["limited_by"]) for row in rows if row["queue"] == queue)


async def wait_until_applied(system: System) -> None:
    """Wait until API and worker have applied the pause, which may take up to a second."""

    async def logs() -> list[str]:
        return [child.log.read_text() for child in system.children[1:]]

    await until(logs, lambda texts: all('"permissions_changed"' in text for text in texts))


async def rate_of(system: System, provider: str) -> float:
    url = f"{system.children[-1].url}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
    name = f'notifier_provider_rate_per_second{{provider="{provider}"}} '
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return float(line.removeprefix(name))


@pytest.mark.parametrize(
    ("kind", "name"), [("queue", "push.high"), ("channel", "push"), ("provider", "fcm")]
)
async def test_a_notification_of_a_paused_scope_is_sent_after_the_resume(
    system: System, client: Client, kind: str, name: str
) -> None:
    await client.hold("pause", kind, name)
    await wait_until_applied(system)
    paused = await client.submit_one(submit_body("push.high"))
    other = await client.submit_one(submit_body("sms.high"))
    assert (await client.final(other))["status"] == "sent"
    assert await limit_of(client, "push.high") == "pause"
    assert not await client.calls(paused)
    await client.hold("resume", kind, name)
    assert (await client.final(paused))["status"] == "sent"


async def test_throttling_reduces_the_rate_and_all_are_sent(system: System, client: Client) -> None:
    throttled = [submit_body("email.high", "throttle-2") for _ in range(20)]
    ids = await client.submit(throttled)
    await until(lambda: rate_of(system, "smtp"), lambda rate: 0 < rate < 0.8 * RATE)
    assert await client.all_final(ids) == {"sent": 20}
    more = await client.submit([submit_body("email.high") for _ in range(20)])
    assert await client.all_final(more) == {"sent": 20}
    assert "rate_cut" in system.children[-1].log.read_text()


async def test_a_channel_makes_no_more_concurrent_calls_than_its_provider_has_connections(
    system: System, client: Client
) -> None:
    await client.set_behaviour(channel="sms", latency_ms=300)
    ids = await client.submit([submit_body("sms.low") for _ in range(120)])
    await until(lambda: limit_of(client, "sms.low"), lambda limit: limit == "connections")
    assert await client.all_final(ids) == {"sent": 120}
    called_at = [call["at"].timestamp() for call in await client.log(channel="sms")]
    concurrent = [sum(at - 0.3 < other <= at for other in called_at) for at in called_at]
    assert max(concurrent) <= CONNECTIONS
