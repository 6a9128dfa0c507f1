"""`POST /v1/receipts/{provider}` over real HTTP: who is believed, and what is refused."""

from __future__ import annotations

import asyncio
import io
import json
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from notifier.api.routes.receipts import MAX_BODY_BYTES, MAX_IN_FLIGHT
from notifier.domain.errors import StoreUnavailable
from notifier.domain.receipts import MAX_RECEIPTS, ReceiptEvent
from notifier.domain.webhook_signature import signed_headers
from tests.memory_receipts import SECRET_BYTES, MemoryReceipts
from tests.unit.fakes_api import MemoryStore, make_api, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import aiohttp

    from notifier.domain.receipts import NewReceipt

PATH: Final = "/v1/receipts/sms"
RECEIPT: Final = {"event": "delivered", "reference": "SM1", "at": "2026-11-28T18:39:00Z"}


@pytest.fixture
def receipts() -> MemoryReceipts:
    return MemoryReceipts("sms")


@pytest.fixture
async def client(receipts: MemoryReceipts) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(MemoryStore(), receipts=receipts)) as client:
        yield client


def a_body(count: int = 1) -> bytes:
    return json.dumps({"receipts": [RECEIPT | {"id": str(n)} for n in range(count)]}).encode()


def signed(body: bytes, *, ago_s: int = 0) -> dict[str, str]:
    return dict(signed_headers(SECRET_BYTES, "msg_1", int(time.time()) - ago_s, body))


async def post(
    client: aiohttp.ClientSession,
    body: bytes,
    headers: dict[str, str] | None = None,
    path: str = PATH,
) -> tuple[int, dict[str, Any]]:
    async with client.post(
        path, data=io.BytesIO(body), headers=headers or signed(body)
    ) as response:
        text = await response.text()
        if response.status == 401:
            assert response.headers["WWW-Authenticate"]
        return response.status, json.loads(text) if text else {}


async def test_signed_receipts_are_stored_before_the_answer(
    client: aiohttp.ClientSession, receipts: MemoryReceipts
) -> None:
    body = a_body(3)
    assert await post(client, body) == (204, {})
    assert len(receipts.stored) == 3
    assert receipts.received == {("sms", ReceiptEvent.DELIVERED): 3}
    assert (await post(client, body, path=f"{PATH}?a=1"))[0] == 204
    assert len(receipts.stored) == 3, "a copy is stored once"


async def test_whoever_does_not_sign_is_refused(
    client: aiohttp.ClientSession, receipts: MemoryReceipts
) -> None:
    body = a_body()
    for headers in (
        {"Authorization": "Bearer ntf_live_x"},
        signed(b"other"),
        signed(body, ago_s=301),
        signed(body, ago_s=-305),  # the time of the test is taken off
    ):
        status, problem = await post(client, body, headers)
        assert (status, problem["type"]) == (401, "urn:notifier:problem:signature-invalid")
    assert not receipts.stored
    assert receipts.refused == {"sms": 4}


@pytest.mark.parametrize("provider", ["smtp", "SMS", "sms%00", "..%2Fsms"])
async def test_a_provider_without_a_verifier_is_unknown(
    client: aiohttp.ClientSession, provider: str
) -> None:
    body = a_body()
    assert (await post(client, body, path=f"/v1/receipts/{provider}"))[0] == 404


async def test_a_signed_body_that_is_wrong_is_named(
    client: aiohttp.ClientSession, receipts: MemoryReceipts
) -> None:
    status, problem = await post(client, b"{}")
    assert (status, problem["errors"][0]["field"]) == (400, "$")
    assert not receipts.stored


async def test_bodies_and_numbers_are_bounded(
    client: aiohttp.ClientSession, receipts: MemoryReceipts
) -> None:
    large = b" " * (MAX_BODY_BYTES + 1)
    for body in (large, a_body(MAX_RECEIPTS + 1)):
        status, problem = await post(client, body)
        assert (status, problem["type"]) == (413, "urn:notifier:problem:body-too-large")
    assert not receipts.stored
    assert (await post(client, a_body(MAX_RECEIPTS)))[0] == 204


async def test_while_the_store_is_away_a_provider_is_asked_to_repeat(
    client: aiohttp.ClientSession, receipts: MemoryReceipts
) -> None:
    receipts.error = StoreUnavailable("away")
    status, problem = await post(client, a_body())
    assert (status, problem["type"]) == (503, "urn:notifier:problem:store-unavailable")
    assert not receipts.received


async def test_a_flood_of_receipts_is_answered_503_and_leaves_submits_alone(
    client: aiohttp.ClientSession, receipts: MemoryReceipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, until = asyncio.Event(), asyncio.Event()
    waiting = 0
    add = receipts.add

    async def slow(provider: str, new: Sequence[NewReceipt]) -> int:
        nonlocal waiting
        waiting += 1
        if waiting == MAX_IN_FLIGHT:
            opened.set()
        await until.wait()
        return await add(provider, new)

    monkeypatch.setattr(receipts, "add", slow)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(post(client, a_body())) for _ in range(MAX_IN_FLIGHT)]
        await opened.wait()
        status, problem = await post(client, a_body())
        assert (status, problem["type"]) == (503, "urn:notifier:problem:overloaded")
        submit = {"channel": "email", "recipient": "a@b.example", "content": {"subject": "x"}}
        async with client.post("/v1/notifications", json=submit) as response:
            assert response.status == 202
        until.set()
    assert {task.result()[0] for task in tasks} == {204}
