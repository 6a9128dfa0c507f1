"""A preview names the suppression and the quiet hours that stand in the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from notifier.domain.blobs import blob_id
from notifier.domain.credentials import Mode
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.suppressions import NewSuppression, SuppressionScope
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.keys import Author
from tests.memory_suppressions import MemorySuppressions
from tests.unit.fakes_api import MemoryStore, make_api, open_client, submit_body

SCOPE = SuppressionScope(DEFAULT_TENANT, Mode.LIVE)
ADA = "ada@example.com"
HOUR = timedelta(hours=1)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def suppressions() -> MemorySuppressions:
    return MemorySuppressions()


@pytest.fixture
async def client(
    store: MemoryStore, suppressions: MemorySuppressions
) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store, suppressions=suppressions)) as client:
        yield client


async def preview(client: aiohttp.ClientSession, **changes: object) -> dict[str, Any]:
    body = submit_body(**changes)
    async with client.post("/v1/notifications/preview", json=body) as response:
        assert response.status == 200, await response.text()
        shown: dict[str, Any] = await response.json()
    return shown


@pytest.mark.parametrize(
    ("topic", "asked", "is_found"),
    [
        (None, None, True),
        (None, "news", True),
        ("news", "news", True),
        ("news", "offers", False),
        ("news", None, False),
    ],
)
async def test_a_preview_names_the_suppression_of_its_recipient_and_topic(
    client: aiohttp.ClientSession,
    suppressions: MemorySuppressions,
    topic: str | None,
    asked: str | None,
    is_found: bool,
) -> None:
    new = NewSuppression(channel="push", recipient="token", topic=topic)
    (added,) = await suppressions.add(SCOPE, [new], Author(actor="cli:ada@host"))
    push = {"channel": "push", "content": {"body": "b"}, "topic": asked}
    shown = await preview(client, recipient="token", **push)
    assert shown["suppressed_by"] == (str(added.suppression.id) if is_found else None)
    assert (await preview(client, recipient="other", **push))["suppressed_by"] is None


async def test_a_suppression_that_has_expired_or_is_of_another_scope_is_not_named(
    client: aiohttp.ClientSession, suppressions: MemorySuppressions
) -> None:
    author, at = Author(actor="cli:ada@host"), datetime.now(UTC)
    expired = NewSuppression(channel="email", recipient=ADA, expires_at=at - HOUR)
    endless = NewSuppression(channel="email", recipient=ADA)
    await suppressions.add(SCOPE, [expired], author)
    await suppressions.add(SuppressionScope(TenantId("shop"), Mode.LIVE), [endless], author)
    assert (await preview(client, recipient="ADA@example.com"))["suppressed_by"] is None
    valid = NewSuppression(channel="sms", recipient="+15005550006", expires_at=at + HOUR)
    (added,) = await suppressions.add(SCOPE, [valid], author)
    sms = await preview(client, channel="sms", recipient="+15005550006", content={"body": "b"})
    assert sms["suppressed_by"] == str(added.suppression.id)


async def test_a_preview_names_the_end_of_the_quiet_hours_in_which_it_would_be_due(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    now = datetime.now(UTC)
    start, end = (now - HOUR).replace(second=0, microsecond=0), (now + 2 * HOUR).time()
    store.quiet[DEFAULT_TENANT] = QuietHours(
        start=start.time(), end=end.replace(second=0, microsecond=0), time_zone="UTC"
    )
    until_at = (start + 3 * HOUR).isoformat().replace("+00:00", "Z")
    later = (now + 4 * HOUR).isoformat()
    for changes, expected in (
        ({"priority": "medium"}, until_at),
        ({"priority": "high"}, None),
        ({"priority": "low", "send_at": later}, None),
        ({"priority": "low", "time_zone": "Pacific/Honolulu"}, None),
    ):
        assert (await preview(client, **changes))["quiet_until_at"] == expected, changes
    store.quiet = {TenantId("shop"): store.quiet[DEFAULT_TENANT]}
    assert (await preview(client, priority="low"))["quiet_until_at"] is None


async def test_a_preview_refuses_a_file_that_a_submit_would_refuse(
    client: aiohttp.ClientSession,
) -> None:
    file = {"filename": "a.pdf", "content_type": "application/pdf", "blob": blob_id(b"")}
    body = submit_body(content={"subject": "x", "attachments": [file]})
    async with client.post("/v1/notifications/preview", json=body) as response:
        assert response.status == 400
        (error,) = (await response.json())["errors"]
    assert error["field"] == "content.attachments.0.blob"


async def test_a_preview_shows_the_sender(client: aiohttp.ClientSession) -> None:
    content = {"subject": "x", "from": "Ada <ada@example.com>"}
    assert (await preview(client, content=content))["from"] == "Ada <ada@example.com>"
    assert (await preview(client))["from"] is None
