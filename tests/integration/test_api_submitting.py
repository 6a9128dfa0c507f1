from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from notifier.domain.errors import FeatureUnavailable, Overloaded, StoreUnavailable
from notifier.domain.notification import Status
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client, submit_body

SUBMIT = "/v1/notifications"
BATCH = "/v1/notifications/batch"
JSON = {"Content-Type": "application/json"}
SMALL_LIMITS = make_rules(
    max_in_flight=1,
    max_batch=3,
    max_content_bytes=1000,
    max_batch_bytes=4000,
    max_attachment_bytes=0,
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store)) as client:
        yield client


@pytest.fixture
async def small_client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store, SMALL_LIMITS)) as client:
        yield client


async def problem_in(response: aiohttp.ClientResponse, status: int, slug: str) -> dict[str, Any]:
    assert (response.status, response.content_type) == (status, "application/problem+json")
    problem: dict[str, Any] = await response.json(content_type=None)
    assert problem["type"] == f"urn:notifier:problem:{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


async def test_a_submit_is_stored_and_its_location_is_returned(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    async with client.post(SUBMIT, json=submit_body(ttl_s=60, metadata={"order": 7})) as response:
        body = await response.json()
        assert response.status == 202
        assert response.headers["Location"] == f"{SUBMIT}/{body['id']}"
    assert (body["status"], body["queue"]) == (Status.QUEUED, "email.high")
    (new,) = store.new.values()
    assert str(new.id) == body["id"]
    assert json.loads(new.metadata) == {"order": 7}


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"channel": "fax"}, "channel"), ({"ttl_s": -1}, "ttl_s"), ({"colour": "red"}, "colour")],
)
async def test_the_problem_names_a_wrong_field_and_nothing_is_stored(
    client: aiohttp.ClientSession, store: MemoryStore, changes: dict[str, object], field: str
) -> None:
    async with client.post(SUBMIT, json=submit_body(**changes)) as response:
        problem = await problem_in(response, 400, "invalid-field")
    (error,) = problem["errors"]
    assert error["field"] == field
    assert error["expected"]
    assert error["detail"]
    assert not store.new


@pytest.mark.parametrize("body", [b"", b"{", b"not json"])
async def test_a_body_that_is_not_json_is_malformed(
    client: aiohttp.ClientSession, body: bytes
) -> None:
    async with client.post(SUBMIT, data=body, headers=JSON) as response:
        await problem_in(response, 400, "malformed-json")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_another_content_type_is_answered_415(
    client: aiohttp.ClientSession, media_type: str
) -> None:
    body = json.dumps(submit_body()).encode()
    async with client.post(SUBMIT, data=body, headers={"Content-Type": media_type}) as response:
        problem = await problem_in(response, 415, "unsupported-media-type")
    assert problem["errors"][0]["expected"] == "application/json"


@pytest.mark.parametrize("path", [SUBMIT, BATCH])
@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity"])
async def test_an_encoded_body_is_answered_415(
    client: aiohttp.ClientSession, path: str, encoding: str
) -> None:
    body = json.dumps(submit_body()).encode()
    async with client.post(
        path, data=body, headers={**JSON, "Content-Encoding": encoding}
    ) as response:
        problem = await problem_in(response, 415, "unsupported-media-type")
    (error,) = problem["errors"]
    assert (error["field"], error["expected"]) == ("Content-Encoding", "identity, or none")


async def test_the_identity_encoding_is_accepted() -> None:
    body = json.dumps(submit_body()).encode()
    async with open_client(make_api(MemoryStore())) as client:
        path, headers = SUBMIT, {**JSON, "Content-Encoding": "Identity"}
        async with client.post(path, data=body, headers=headers) as response:
            assert response.status == 202


async def test_parameters_of_the_content_type_are_ignored(client: aiohttp.ClientSession) -> None:
    body = json.dumps(submit_body()).encode()
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    async with client.post(SUBMIT, data=body, headers=headers) as response:
        assert response.status == 202


@pytest.mark.parametrize("path", [SUBMIT, BATCH])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_over_the_limit_is_answered_413_and_the_connection_is_reused(
    small_client: aiohttp.ClientSession, store: MemoryStore, path: str, is_chunked: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    data = chunks() if is_chunked else b" " * 5000
    async with small_client.post(path, data=data, headers=JSON) as response:
        problem = await problem_in(response, 413, "body-too-large")
    (error,) = problem["errors"]
    assert error["expected"] == f"at most {2000 if path == SUBMIT else 4000:,} bytes"
    assert problem["detail"] == SMALL_LIMITS.size_limits_text
    async with small_client.post(SUBMIT, json=submit_body()) as response:
        assert response.status == 202
    assert len(store.new) == 1


async def test_a_stalled_body_is_answered_408(store: MemoryStore) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with (
        open_client(make_api(store, make_rules(body_timeout_s=0.2))) as client,
        client.post(SUBMIT, data=stalled(), headers=JSON) as response,
    ):
        await problem_in(response, 408, "body-timeout")


async def test_a_request_above_the_limit_is_refused_and_the_others_finish(
    small_client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.released.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(small_client.post(SUBMIT, json=submit_body()), name="first")
        await store.entered.wait()
        async with small_client.post(SUBMIT, json=submit_body()) as response:
            await problem_in(response, 503, "overloaded")
            assert response.headers["Retry-After"] == "1"
        store.released.set()
    async with first.result() as response:
        assert response.status == 202
    async with small_client.post(SUBMIT, json=submit_body()) as response:
        assert response.status == 202


async def test_a_client_that_disconnects_frees_its_place(
    small_client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.released.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(small_client.post(SUBMIT, json=submit_body()), name="first")
        await store.entered.wait()
        first.cancel()
    store.released.set()
    while len(store.new) < 1:
        await asyncio.sleep(0)
    async with small_client.post(SUBMIT, json=submit_body()) as response:
        assert response.status == 202
    assert len(store.new) == 2


@pytest.mark.parametrize(
    ("error", "slug", "retry_after"),
    [
        (StoreUnavailable("host db-7 said: secret"), "store-unavailable", "1"),
        (Overloaded("secret", retry_after_s=29.5), "overloaded", "30"),
    ],
)
@pytest.mark.parametrize("path", [SUBMIT, BATCH])
async def test_an_outage_is_answered_503_with_retry_after(
    client: aiohttp.ClientSession,
    store: MemoryStore,
    error: Exception,
    slug: str,
    retry_after: str,
    path: str,
) -> None:
    store.error = error
    body = submit_body() if path == SUBMIT else {"notifications": [submit_body()]}
    async with client.post(path, json=body) as response:
        await problem_in(response, 503, slug)
        assert response.headers["Retry-After"] == retry_after
        assert "secret" not in await response.text()


async def test_an_unexpected_exception_is_answered_500_and_logged_once_without_its_text(
    client: aiohttp.ClientSession, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.error = RuntimeError("ada@example.com could not be stored")
    async with client.post(SUBMIT, json=submit_body()) as response:
        await problem_in(response, 500, "internal-error")
        assert "could not be stored" not in await response.text()
    logged = "".join(capsys.readouterr())
    assert logged.count("request_failed") == 1
    assert "ada@example.com" not in logged


async def test_a_row_that_postgres_rejects_is_answered_400(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.rejected_recipient = "ada@example.com"
    async with client.post(SUBMIT, json=submit_body()) as response:
        await problem_in(response, 400, "unstorable")
        assert "secret" not in await response.text()


async def test_an_invalid_item_affects_no_other(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.rejected_recipient = "eve@example.com"
    items = [
        submit_body(),
        submit_body(ttl_s=0),
        submit_body(recipient="eve@example.com"),
        7,
        submit_body(priority="low"),
    ]
    async with client.post(BATCH, json={"notifications": items}) as response:
        assert response.status == 202
        results = (await response.json())["results"]
    assert [result.get("queue") for result in results] == [
        "email.high",
        None,
        None,
        None,
        "email.low",
    ]
    assert [results[i]["problem"]["errors"][0]["field"] for i in (1, 2, 3)] == ["ttl_s", "$", "$"]
    assert {str(new.id) for new in store.new.values()} == {results[0]["id"], results[4]["id"]}


@pytest.mark.parametrize(
    "text", ["\ud800", "\udc00x", float("nan"), float("inf"), 10**400, "\0"], ids=repr
)
async def test_an_item_that_the_parser_rejects_affects_no_other(
    client: aiohttp.ClientSession, store: MemoryStore, text: object
) -> None:
    bad = submit_body(content={"subject": "x", "data": {"a": [text]}})
    large = 2**70
    good = submit_body(content={"subject": "x", "data": {"a": large}})
    body = json.dumps({"notifications": [good, bad, good]}).encode()
    async with client.post(BATCH, data=body, headers=JSON) as response:
        assert response.status == 202
        results = (await response.json())["results"]
    assert results[1]["problem"]["errors"][0]["field"].endswith("content.data.a.0")
    assert [json.loads(new.content)["data"]["a"] for new in store.new.values()] == [large] * 2


async def test_an_item_that_is_too_large_affects_no_other(
    small_client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    items = [submit_body(), submit_body(metadata={"a": "x" * 2000})]
    async with small_client.post(BATCH, json={"notifications": items}) as response:
        assert response.status == 202
        results = (await response.json())["results"]
    assert results[1]["problem"]["type"] == "urn:notifier:problem:body-too-large"
    assert len(store.new) == 1


async def test_an_item_that_is_not_utf_8_affects_no_other(
    client: aiohttp.ClientSession,
) -> None:
    good = json.dumps(submit_body()).encode()
    bad = good.replace(b"123456", b"\xff")
    body = b'{"notifications":[%s,%s]}' % (good, bad)
    async with client.post(BATCH, data=body, headers=JSON) as response:
        results = (await response.json())["results"]
    assert results[0]["status"] == Status.QUEUED
    assert results[1]["problem"]["status"] == 400


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        ({"notifications": []}, "invalid-field"),
        ({"notifications": [1, 2, 3, 4]}, "invalid-field"),
        ({"notifications": {}}, "invalid-field"),
        ({}, "invalid-field"),
        ([], "invalid-field"),
        ({"notifications": [submit_body()], "more": 1}, "invalid-field"),
    ],
)
async def test_a_malformed_batch_is_refused_as_a_whole(
    small_client: aiohttp.ClientSession, store: MemoryStore, body: object, slug: str
) -> None:
    async with small_client.post(BATCH, json=body) as response:
        problem = await problem_in(response, 400, slug)
    assert problem["errors"][0]["field"]
    assert not store.new


async def test_a_batch_without_a_valid_item_is_a_problem_with_all_results(
    client: aiohttp.ClientSession,
) -> None:
    items = {"notifications": [1, submit_body(ttl_s=0)]}
    async with client.post(BATCH, json=items) as response:
        problem = await problem_in(response, 400, "nothing-accepted")
    assert [result["problem"]["errors"][0]["field"] for result in problem["results"]] == [
        "$",
        "ttl_s",
    ]


WITH_COPY = submit_body(content={"subject": "s", "body": "b", "cc": "eve@example.com"})


async def test_what_a_worker_does_not_understand_is_refused_until_later(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.lacking = FeatureUnavailable("copies", "the worker on host node-1 does not understand it")
    async with client.post(SUBMIT, json=WITH_COPY) as response:
        problem = await problem_in(response, 503, "feature-unavailable")
        assert int(response.headers["Retry-After"]) > 0
    assert "copies" in problem["detail"]
    assert "node-1" in problem["detail"]
    async with client.post(SUBMIT, json=submit_body()) as response:
        assert response.status == 202


async def test_in_a_batch_it_concerns_its_item_only(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.lacking = FeatureUnavailable("copies", "why")
    async with client.post(BATCH, json={"notifications": [WITH_COPY, submit_body()]}) as response:
        results = (await response.json())["results"]
        assert response.status == 202
    assert results[0]["problem"]["type"] == "urn:notifier:problem:feature-unavailable"
    assert results[0]["problem"]["status"] == 503
    assert results[1]["status"] == Status.QUEUED


async def test_a_batch_of_which_every_item_must_wait_is_to_be_repeated(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.lacking = FeatureUnavailable("copies", "why")
    async with client.post(BATCH, json={"notifications": [WITH_COPY] * 2}) as response:
        problem = await problem_in(response, 503, "feature-unavailable")
        assert int(response.headers["Retry-After"]) > 0
    assert len(problem["results"]) == 2
    async with client.post(BATCH, json={"notifications": [WITH_COPY, 1]}) as response:
        await problem_in(response, 400, "nothing-accepted")


async def test_a_batch_of_a_thousand_is_accepted(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    async with client.post(BATCH, json={"notifications": [submit_body()] * 1000}) as response:
        results = (await response.json())["results"]
    assert len({result["id"] for result in results}) == len(store.new) == 1000
