"""`/v1/webhooks` over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from notifier.domain.credentials import Mode
from notifier.domain.errors import FeatureUnavailable
from notifier.domain.keys import KeyScope
from notifier.domain.notification import Status
from notifier.domain.tenants import DEFAULT_TENANT, Tenant, TenantId
from notifier.domain.webhooks import MAX_WEBHOOKS, WEBHOOK_QUEUE, WebhookScope, shown_secret
from tests.memory_access import memory_auth
from tests.memory_webhooks import MemoryWebhooks
from tests.unit.fakes_api import MemoryStore, make_api, open_client

PATH: Final = "/v1/webhooks"
NOW: Final = datetime.now(UTC)
URL: Final = "https://shop.example.com/hooks"
SHOP: Final = TenantId("shop")

Document = dict[str, Any]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def webhooks() -> MemoryWebhooks:
    return MemoryWebhooks()


@pytest.fixture
async def client(
    store: MemoryStore, webhooks: MemoryWebhooks
) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store, webhooks=webhooks)) as opened:
        yield opened


async def ask(
    client: aiohttp.ClientSession, method: str, path: str, json: object = None, **more: Any
) -> tuple[int, Any]:
    async with client.request(method, path, json=json, **more) as response:
        return response.status, await response.json(content_type=None)


def fields(problem: Document) -> list[str]:
    return [error["field"] for error in problem["errors"]]


async def test_a_webhook_is_made_shown_changed_and_deleted(
    client: aiohttp.ClientSession, webhooks: MemoryWebhooks
) -> None:
    async with client.post(PATH, json={"url": URL, "note": "the shop"}) as response:
        made = await response.json()
        assert response.status == 201
        assert response.headers["Location"] == f"{PATH}/{made['id']}?tenant=default"
        assert response.headers["Cache-Control"] == "no-store"
    secret = made.pop("secret")
    (stored,) = webhooks.stored.values()
    assert secret == shown_secret(webhooks.secrets[stored.id][0])
    assert stored.scope == WebhookScope(DEFAULT_TENANT, Mode.LIVE)
    assert made["events"] == ["notification.*"]
    assert (made["status"], made["reason"], made["tenant"]) == ("enabled", None, "default")
    path = f"{PATH}/{made['id']}"
    assert await ask(client, "GET", path) == (200, made)
    assert await ask(client, "GET", PATH) == (200, {"items": [made], "next_cursor": None})
    status, changed = await ask(
        client, "PATCH", path, {"status": "disabled", "events": ["notification.failed"]}
    )
    assert (status, changed["reason"], changed["url"]) == (200, "request", URL)
    assert changed["events"] == ["notification.failed"]
    status, rotated = await ask(client, "POST", f"{path}/rotate")
    assert status == 200
    assert rotated["secret"] not in {None, secret}
    assert len(webhooks.secrets[stored.id]) == 2
    assert (await ask(client, "POST", f"{path}/rotate", {"overlap_s": 0}))[0] == 200
    assert len(webhooks.secrets[stored.id]) == 1
    assert (await ask(client, "DELETE", path))[0] == 204
    for method, suffix, body in (
        ("GET", "", None),
        ("PATCH", "", {"note": "x"}),
        ("DELETE", "", None),
        ("POST", "/rotate", None),
        ("POST", "/test", None),
    ):
        assert (await ask(client, method, path + suffix, body))[0] == 404
    assert (await ask(client, "GET", f"{PATH}/none"))[0] == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "http://shop.example.com/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["notification.sent", "breaker.opened"]}, "events.1"),
        ({"url": URL, "note": "a\nb"}, "note"),
        ({"url": URL, "secret": "whsec_x"}, "secret"),
    ],
)
async def test_a_wrong_webhook_is_refused_with_the_field(
    client: aiohttp.ClientSession, webhooks: MemoryWebhooks, body: Document, field: str
) -> None:
    status, problem = await ask(client, "POST", PATH, body)
    assert (status, fields(problem)) == (400, [field])
    assert webhooks.stored == {}


async def test_a_tenant_has_at_most_so_many_webhooks(client: aiohttp.ClientSession) -> None:
    for _ in range(MAX_WEBHOOKS):
        assert (await ask(client, "POST", PATH, {"url": URL}))[0] == 201
    status, problem = await ask(client, "POST", PATH, {"url": URL})
    assert (status, problem["type"]) == (409, "urn:notifier:problem:in-use")


async def test_a_test_call_is_submitted_as_a_notification_of_the_channel(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    _, made = await ask(client, "POST", PATH, {"url": URL})
    status, accepted = await ask(client, "POST", f"{PATH}/{made['id']}/test")
    assert (status, accepted["status"], accepted["queue"]) == (202, "queued", "webhook.medium")
    (call,) = store.new.values()
    assert (str(call.id), call.queue, call.recipient) == (accepted["id"], WEBHOOK_QUEUE, made["id"])
    assert call.status is Status.QUEUED
    event = msgspec.json.decode(call.content)["event"]
    assert (event["type"], event["tenant"]) == ("webhook.test", "default")
    assert event["data"] == {"webhook": {"id": made["id"]}}


async def test_nobody_submits_on_the_channel_of_webhooks(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    body = {"channel": "webhook", "recipient": str(uuid4()), "content": {"body": "x"}}
    status, problem = await ask(client, "POST", "/v1/notifications", body)
    assert (status, fields(problem)) == (400, ["channel"])
    assert not store.new


async def test_a_deployment_key_has_the_webhooks_of_the_deployment_or_of_a_named_tenant(
    store: MemoryStore, webhooks: MemoryWebhooks
) -> None:
    auth, key = memory_auth(KeyScope.OPERATE, tenants=[Tenant(id=SHOP, note="", created_at=NOW)])
    headers = {"Authorization": f"Bearer {key.text}"}
    async with open_client(make_api(store, webhooks=webhooks, auth=auth)) as client:
        body = {"url": URL, "events": ["worker.lost"]}
        status, own = await ask(client, "POST", PATH, body, headers=headers)
        assert (status, own["tenant"]) == (201, None)
        status, problem = await ask(client, "POST", PATH, {"url": URL}, headers=headers)
        assert (status, fields(problem)) == (400, ["events.0"])
        shop = f"{PATH}?tenant=shop"
        status, problem = await ask(client, "POST", shop, body, headers=headers)
        assert (status, fields(problem)) == (400, ["events.0"])
        status, theirs = await ask(client, "POST", shop, {"url": URL}, headers=headers)
        assert (status, theirs["tenant"]) == (201, "shop")
        for path, webhook in ((PATH, own), (shop, theirs)):
            _, page = await ask(client, "GET", path, headers=headers)
            assert [item["id"] for item in page["items"]] == [webhook["id"]]
        assert (await ask(client, "GET", f"{PATH}/{theirs['id']}", headers=headers))[0] == 404
        status, problem = await ask(client, "GET", f"{PATH}?tenant=nobody", headers=headers)
        assert (status, fields(problem)) == (400, ["?tenant"])
        assert (await ask(client, "POST", f"{PATH}/{own['id']}/test", headers=headers))[0] == 202
        assert {item.tenant for item in store.new.values()} == {"*"}
    auth, key = memory_auth(KeyScope.READ)
    headers = {"Authorization": f"Bearer {key.text}"}
    async with open_client(make_api(store, webhooks=webhooks, auth=auth)) as client:
        assert (await ask(client, "GET", PATH, headers=headers))[0] == 200
        assert (await ask(client, "POST", PATH, body, headers=headers))[0] == 403


async def test_no_webhook_is_made_while_a_worker_does_not_know_them(
    client: aiohttp.ClientSession, store: MemoryStore, webhooks: MemoryWebhooks
) -> None:
    store.lacking = FeatureUnavailable("webhooks", "a worker does not understand it")
    status, problem = await ask(client, "POST", PATH, {"url": URL})
    assert (status, problem["type"]) == (503, "urn:notifier:problem:feature-unavailable")
    assert webhooks.stored == {}
