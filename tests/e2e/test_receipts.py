"""Whole processes: the sandbox sends receipts to a running API, as the fates of recipients ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest

from harness.client import Client, Document, submit_body, until
from harness.system import System, running_system, urls
from tests.memory_receipts import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROVIDERS: Final = {"email": "smtp", "sms": "twilio", "push": "fcm"}
PERSON: Final = "canary-of-person"


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    settings: dict[str, object] = {"log.level": "debug"}
    settings |= {f"providers.{name}.receipts_secret": SECRET for name in PROVIDERS.values()}
    with running_system(system_folder, urls(database_url, vhost_url) | settings) as system:
        yield system


async def receipts_to(system: System, *, after_s: float = 0.2, secret: str = SECRET) -> None:
    """Let the sandbox send receipts of every channel to the API."""
    async with aiohttp.ClientSession() as session:
        for channel, provider in PROVIDERS.items():
            body = {
                "channel": channel,
                "url": f"{system.api_url}/v1/receipts/{provider}",
                "secret": secret,
                "after_s": after_s,
            }
            async with session.put(f"{system.sandbox_url}/receipts", json=body) as response:
                assert response.status == 204, await response.text()


def wanted(fate: str, channel: str) -> Document:
    recipient = {"email": f"{fate}+{PERSON}@example.com", "push": f"fate-{fate}-{PERSON}"}
    return submit_body(f"{channel}.high") | {"recipient": recipient[channel]}


async def test_receipts_of_the_sandbox_settle_notifications_and_suppress_recipients(
    system: System, client: Client
) -> None:
    system.start_all()
    await receipts_to(system)
    expected = {
        "ok": "sent",
        "delivered": "delivered",
        "bounced": "undelivered",
        "complained": "delivered",
        "unsubscribed": "delivered",
        "doubled": "delivered",
        "shuffled": "delivered",
    }
    kinds = [(fate, channel) for fate in expected for channel in ("email", "push")]
    ids = dict(zip(kinds, await client.submit([wanted(*kind) for kind in kinds]), strict=True))
    ids["delivered", "sms"] = await client.submit_one(
        submit_body("sms.high") | {"recipient": "+15005550008"}
    )
    ids["bounced", "sms"] = await client.submit_one(
        submit_body("sms.high") | {"recipient": "+15005550009"}
    )
    events = {
        "ok": [],
        "delivered": ["delivered"],
        "bounced": ["bounced"],
        "complained": ["delivered", "complained"],
        "unsubscribed": ["delivered", "unsubscribed"],
        "doubled": ["delivered"],
        "shuffled": ["deferred", "bounced", "delivered"],
    }

    async def received() -> dict[tuple[str, str], list[str]]:
        found = {}
        for kind, id_ in ids.items():
            document = await client.notification(f"{id_}?include=receipts")
            found[kind] = [receipt["event"] for receipt in document["receipts"]]
        return found

    wanted_events = {kind: events[kind[0]] for kind in ids}
    await until(received, wanted_events.__eq__)
    for (fate, channel), id_ in ids.items():
        document = await client.notification(id_)
        assert document["status"] == expected[fate], (fate, channel)
        assert document["sent_at"] is not None
        assert (document["delivered_at"] is not None) is (expected[fate] == "delivered")
        reason = "bounced" if fate == "bounced" else None
        assert document["result"]["reason"] == reason
        assert document["result"]["provider"] == PROVIDERS[channel]

    # The next submits to who complained, bounced or unsubscribed are suppressed, once the process
    # knows that there are suppressions.
    await until(
        lambda: client.post(wanted("bounced", "email")),
        lambda reply: reply[2]["status"] == "suppressed",
    )
    for fate, reason in (
        ("bounced", "bounce"),
        ("complained", "complaint"),
        ("unsubscribed", "unsubscribe"),
    ):
        status, _, accepted = await client.post(wanted(fate, "email"))
        assert (status, accepted["status"], accepted["reason"]) == (202, "suppressed", reason)

    delivered = await client.items("notifications?status=delivered&limit=200")
    assert {each["id"] for each in delivered} == {
        id_ for (fate, _), id_ in ids.items() if expected[fate] == "delivered"
    }
    # What bounced may be sent again.
    bounced = ids["bounced", "push"]
    suppression = await _suppression_of(client, bounced)
    removed = await asyncio.to_thread(system.run, "suppressions", "remove", suppression)
    assert removed.returncode == 0, removed.stderr
    again = await client.call("POST", f"notifications/{bounced}/retry", json={})
    assert again["status"] in {"queued", "sending", "sent"}
    await until(
        lambda: client.notification(bounced),
        lambda document: document["status"] == "undelivered" and len(document["attempts"]) == 2,
    )

    logs = "\n".join(child.log.read_text() for child in system.children)
    assert "receipts_stored" in logs
    for secret in (SECRET, SECRET.removeprefix("whsec_"), PERSON):
        assert secret not in logs


async def _suppression_of(client: Client, notification: str) -> str:
    [found] = [
        each
        for each in await client.items("suppressions?limit=200")
        if each["notification"] == notification
    ]
    return str(found["id"])


async def test_receipts_with_another_secret_change_nothing(system: System, client: Client) -> None:
    system.start_all()
    await receipts_to(system, secret="whsec_" + "A" * 40, after_s=0)
    id_ = await client.submit_one(wanted("bounced", "email"))
    refused = 'notifier_receipt_requests_refused_total{provider="smtp"} 1.0'

    async def metrics() -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{system.api_url}/metrics") as response,
        ):
            return await response.text()

    await until(metrics, lambda text: refused in text)
    await client.final(id_)
    document = await client.notification(f"{id_}?include=receipts")
    assert (document["status"], document["receipts"]) == ("sent", [])
