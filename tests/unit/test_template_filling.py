"""How often submits with a template ask Postgres for its version."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from notifier.api.submission.validation import SubmitValidator
from notifier.api.templating.filling import TemplateFilling, Unfilled
from notifier.domain.templates import TemplateRef
from tests.unit.fakes_api import (
    DEFAULT_RULES,
    InlineRenderer,
    MemoryStore,
    make_api,
    open_client,
)

NOTIFICATIONS = "/v1/notifications"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store)) as client:
        for source in ("one", "two"):
            await save(client, source)
        yield client


async def save(client: aiohttp.ClientSession, source: str) -> None:
    """Save the next version of `order`."""
    parts = {"email": {"subject": "S", "body": source}}
    document = {"default_locale": "en", "locales": {"en": parts}}
    async with client.post("/v1/templates/order/versions", json=document) as response:
        assert response.status == 201


def submit(template: str) -> dict[str, object]:
    return {"channel": "email", "recipient": "ada@example.com", "template": template}


async def accepted(client: aiohttp.ClientSession, *templates: str) -> list[str | None]:
    """Submit a batch; returns the versions that its items got."""
    items = {"notifications": [submit(template) for template in templates]}
    async with client.post(f"{NOTIFICATIONS}/batch", json=items) as response:
        body: Any = await response.json()
    return [result.get("template") for result in body["results"]]


async def test_the_versions_of_a_batch_are_looked_up_at_once(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    got = await accepted(client, "order@1", "order", "order@2", "order@1", "order@3")
    assert got == ["order@1", "order@2", "order@2", "order@1", None]
    refs = {TemplateRef("order", version) for version in (None, 1, 2, 3)}
    assert store.templates.asked == [refs]


async def test_a_version_is_looked_up_once_and_the_newest_one_each_time(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    await accepted(client, "order@1")
    assert await accepted(client, "order@1", "order") == ["order@1", "order@2"]
    for path in (NOTIFICATIONS, f"{NOTIFICATIONS}/preview"):
        async with client.post(path, json=submit("order@1")) as response:
            assert (await response.json())["template"] == "order@1"
    assert store.templates.asked == [{TemplateRef("order", 1)}, {TemplateRef("order", None)}]


async def test_a_version_that_was_missing_is_found_once_it_exists(
    client: aiohttp.ClientSession,
) -> None:
    assert await accepted(client, "order", "order@3") == ["order@2", None]
    await save(client, "three")
    assert await accepted(client, "order@3") == ["order@3"]


@pytest.mark.usefixtures("client")
async def test_the_oldest_of_many_versions_is_forgotten(store: MemoryStore) -> None:
    filling = TemplateFilling(
        reader=store.templates, renderer=InlineRenderer(), max_bytes=1000, max_pinned=1
    )
    for version in (1, 2, 2, 1):
        body = json.dumps(submit(f"order@{version}")).encode()
        unfilled = SubmitValidator(DEFAULT_RULES).validate(body)
        assert isinstance(unfilled, Unfilled)
        assert len(await filling.find([unfilled])) == 1
    assert store.templates.asked == [{TemplateRef("order", version)} for version in (1, 2, 1)]
