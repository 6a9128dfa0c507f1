"""`notifier webhooks` against a real API over a memory store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from notifier.api.http.server import open_server
from notifier.domain.webhooks import shown_secret
from tests.integration.test_cli_api import Cli
from tests.memory_webhooks import MemoryWebhooks
from tests.unit.fakes_api import MemoryStore, make_api

if TYPE_CHECKING:
    from notifier.domain.webhooks import Webhook

URL = "https://shop.example.com/hooks"


@pytest.fixture
def webhooks() -> MemoryWebhooks:
    return MemoryWebhooks()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def cli(store: MemoryStore, webhooks: MemoryWebhooks, tmp_path: Path) -> AsyncIterator[Cli]:
    app = make_api(store, webhooks=webhooks)
    async with open_server(app, host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


def only(webhooks: MemoryWebhooks) -> Webhook:
    (stored,) = webhooks.stored.values()
    return stored


async def test_a_webhook_is_made_shown_changed_rotated_and_deleted(
    cli: Cli, webhooks: MemoryWebhooks
) -> None:
    names = ("--event", "notification.failed", "--event", "notification.expired")
    done = await cli.run("webhooks", "create", URL, *names, "--note", "the shop")
    assert (done.code, done.err) == (0, "")
    stored = only(webhooks)
    secret = shown_secret(webhooks.secrets[stored.id][0])
    assert done.out.splitlines() == [
        f"{stored.id} enabled notification.expired notification.failed",
        f"secret {secret}   shown once",
    ]
    assert (stored.url, stored.note) == (URL, "the shop")
    listed = await cli.run("webhooks", "list")
    assert (listed.code, str(stored.id) in listed.out, secret in listed.out) == (0, True, False)
    page = json.loads((await cli.run("webhooks", "list", "--json")).out)
    assert [item["id"] for item in page["items"]] == [str(stored.id)]
    off = await cli.run(
        "webhooks", "update", str(stored.id), "--status", "disabled", "--target", f"{URL}/2"
    )
    assert (off.code, "disabled (request)" in off.out) == (0, True)
    assert (only(webhooks).url, only(webhooks).events) == (f"{URL}/2", stored.events)
    nothing = await cli.run("webhooks", "update", str(stored.id))
    assert (nothing.code, "--status" in nothing.err) == (2, True)
    rotated = await cli.run("webhooks", "rotate", str(stored.id), "--overlap", "1h", "--json")
    assert json.loads(rotated.out)["secret"] == shown_secret(webhooks.secrets[stored.id][0])
    assert len(webhooks.secrets[stored.id]) == 2
    deleted = await cli.run("webhooks", "delete", str(stored.id))
    assert (deleted.code, deleted.out) == (0, f"{stored.id} deleted\n")
    assert webhooks.stored == {}


async def test_a_test_call_says_which_notification_shows_it(
    cli: Cli, store: MemoryStore, webhooks: MemoryWebhooks
) -> None:
    await cli.run("webhooks", "create", URL)
    done = await cli.run("webhooks", "test", str(only(webhooks).id))
    (call,) = store.new.values()
    assert (done.code, done.out.startswith(f"{call.id} queued")) == (0, True)
