"""Webhooks on real processes and real HTTP endpoints."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
from standardwebhooks import Webhook

from harness.client import Client, Document, open_client, submit_body, until
from harness.system import running_system, urls
from harness.webhook_receiver import HANG, open_receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from harness.system import System
    from harness.webhook_receiver import Receiver
    from tests.live_rows import Connection

SETTINGS: Final[dict[str, object]] = {
    "webhooks.allow_http": True,
    "webhooks.allow_private": '["127.0.0.0/8"]',
    "webhooks.retry_s": "[0.2, 0.4, 0.8, 1.6]",
    "webhooks.timeout_s": 2,
}


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    settings = urls(database_url, vhost_url) | SETTINGS
    with running_system(system_folder, settings) as system:
        yield system


@pytest.fixture
async def client(system: System) -> AsyncIterator[Client]:
    async with open_client(system.api_url, system.sandbox_url) as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as receiver:
        yield receiver


async def made(client: Client, receiver: Receiver, name: str, **more: Any) -> Document:
    body = {"url": f"{receiver.url}/{name}", **more}
    document: Document = await client.call("POST", "webhooks", json=body)
    return document


async def test_events_are_signed_and_delivered_once_and_a_secret_rotates(
    system: System, client: Client, receiver: Receiver
) -> None:
    system.start_all()
    webhook = await made(client, receiver, "shop")
    ids = await client.submit([submit_body(), submit_body(fate="refuse")])
    await until(lambda: _count(receiver, "shop"), lambda count: count == 2)
    found = {}
    for each in receiver.received["shop"]:
        event = Webhook(webhook["secret"]).verify(each.body.decode(), dict(each.headers))
        assert each.headers["webhook-id"] == event["id"] == each.event["id"]
        found[event["data"]["notification"]["id"]] = event["type"]
    assert found == dict(zip(ids, ("notification.sent", "notification.failed"), strict=True))
    rotated = await client.call("POST", f"webhooks/{webhook['id']}/rotate", json={})
    assert rotated["secret"] != webhook["secret"]
    await asyncio.sleep(1.1)  # a worker keeps a secret for a second
    accepted = await client.call("POST", f"webhooks/{webhook['id']}/test")
    assert accepted["queue"] == "webhook.medium"
    await until(lambda: _count(receiver, "shop"), lambda count: count == 3)
    last = receiver.received["shop"][-1]
    assert last.event["type"] == "webhook.test"
    for secret in (rotated["secret"], webhook["secret"]):
        Webhook(secret).verify(last.body.decode(), dict(last.headers))
    assert (await client.final(accepted["id"]))["status"] == "sent"
    listed = await client.call("GET", "notifications")
    assert {item["channel"] for item in listed["items"]} == {"email"}
    calls = await client.call("GET", f"notifications?webhook={webhook['id']}")
    assert [item["recipient"] for item in calls["items"]] == [webhook["id"]] * 3
    await until(
        lambda: client.call("GET", f"webhooks/{webhook['id']}"),
        lambda document: document["last_success_at"] is not None,
    )


async def test_failures_are_retried_410_disables_and_what_was_missed_is_sent_again(
    system: System, client: Client, receiver: Receiver
) -> None:
    system.start_all()
    receiver.answers.update(fails=500, gone=410)
    fails, gone = [await made(client, receiver, name) for name in ("fails", "gone")]
    own = await made(client, receiver, "own", events=["webhook.disabled"])
    await client.submit([submit_body()])
    path = f"notifications?webhook={fails['id']}"
    (call,) = await until(
        lambda: client.items(path), lambda items: [i["status"] for i in items] == ["failed"]
    )
    assert call["result"]["reason"] == "exhausted"
    assert call["result"]["code"] == "500"
    assert "secret of the answer" not in str(await client.notification(call["id"]))
    assert len(receiver.received["fails"]) == 5
    assert len(set(receiver.ids("fails"))) == 1
    assert len(receiver.received["gone"]) == 1
    found = await client.call("GET", f"webhooks/{gone['id']}")
    assert (found["status"], found["reason"]) == ("disabled", "gone")
    await until(lambda: _count(receiver, "own"), lambda count: count == 1)
    data = receiver.received["own"][0].event["data"]["webhook"]
    assert (data["id"], data["reason"]) == (gone["id"], "gone")
    receiver.answers.clear()
    await client.submit([submit_body()])  # an event of the time in which it is disabled
    await until(lambda: _count(receiver, "fails"), lambda count: count == 6)
    enabled = await client.call("PATCH", f"webhooks/{gone['id']}", json={"status": "enabled"})
    assert (enabled["status"], enabled["reason"]) == ("enabled", None)
    for webhook in (fails, gone):
        done = await asyncio.to_thread(
            system.run, "webhooks", "test", webhook["id"], "--retry-missed"
        )
        assert done.returncode == 0, done.stderr
    await until(lambda: client.items(path), lambda items: {i["status"] for i in items} == {"sent"})
    await until(lambda: _count(receiver, "gone"), lambda count: count == 2)
    assert len(set(receiver.ids("gone"))) == 1
    assert own["events"] == ["webhook.disabled"]


async def test_endpoints_that_hang_or_fail_hold_up_no_others(
    system: System, client: Client, receiver: Receiver, connection: Connection
) -> None:
    system.start_all()
    answers: dict[str, int | str] = {"hang": HANG, "fail": 500, "good": 204}
    names = [f"{kind}{number}" for kind in answers for number in range(3)]
    for name in names:
        await made(client, receiver, name)
        receiver.answers[name] = answers[name[:4]]
    ids = await client.submit([submit_body(fate="ok") for _ in range(100)])
    await client.all_final(ids)
    for name in ("good0", "good1", "good2"):
        await until(partial(_count, receiver, name), lambda count: count == 100)
        assert len(set(receiver.ids(name))) == 100
    assert {receiver.most_running[name] for name in names if "good" in name} <= {1, 2, 3, 4}
    assert {receiver.most_running[name] for name in names if "hang" in name} == {1}
    rows = await connection.fetch(
        "SELECT n.recipient FROM notifications n WHERE queue = 'webhook.medium'"
    )
    assert set(Counter(row["recipient"] for row in rows).values()) == {100}
    providers = await client.items("providers")
    assert {each["provider"]: each["breaker"] for each in providers}["webhook"] == "closed"


async def _count(receiver: Receiver, name: str) -> int:
    return len(receiver.received[name])
