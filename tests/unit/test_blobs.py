"""Blobs over HTTP: uploaded once, named by notifications, unknown to other tenants."""

from __future__ import annotations

import asyncio
import io
import json
from base64 import b64encode
from typing import Any

import aiohttp
import pytest

from notifier.api.http.held_bytes import HeldBytes
from notifier.api.http.problems import RequestRefused
from notifier.domain.blobs import blob_id, blobs_of, digest_of, id_of_digest
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client, submit_body

PDF = b"%PDF-1.7" + bytes(range(256)) * 40
MAIL = b"From: Shop <shop@example.com>\nSubject: Hi\n\nHello\n"
MIB = 1024 * 1024


def file(**changes: object) -> dict[str, object]:
    return {"filename": "a.pdf", "content_type": "application/pdf", **changes}


def a_mail(*files: dict[str, object], **content: object) -> dict[str, object]:
    return submit_body(content={"subject": "s", "attachments": list(files), **content})


async def post(client: aiohttp.ClientSession, body: object, **headers: str) -> tuple[int, Any]:
    data = io.BytesIO(json.dumps(body).encode())  # aiohttp warns of large bytes
    headers = {"Content-Type": "application/json", **headers}
    async with client.post("/v1/notifications", data=data, headers=headers) as response:
        return response.status, await response.json()


async def upload(
    client: aiohttp.ClientSession, data: bytes, content_type: str = "application/pdf"
) -> tuple[int, Any]:
    headers = {"Content-Type": content_type}
    async with client.post("/v1/blobs", data=io.BytesIO(data), headers=headers) as response:
        return response.status, await response.json()


def test_an_id_holds_the_digest() -> None:
    assert id_of_digest(digest_of(blob_id(PDF))) == blob_id(PDF)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"attachments": None},
        {"attachments": "x"},
        {"attachments": [None, 1, {}, {"blob": 7}]},
        {"mime": 7, "attachments": {"blob": "sha256:"}},
    ],
)
def test_a_content_of_any_form_can_be_asked_for_its_blobs(content: dict[str, object]) -> None:
    assert blobs_of(content) == frozenset()


async def test_a_file_is_stored_once_whichever_way_it_comes() -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        status, blob = await upload(client, PDF)
        assert (status, blob["size_bytes"], blob["content_type"]) == (
            201,
            len(PDF),
            "application/pdf",
        )
        assert blob["id"] == blob_id(PDF)
        assert (await upload(client, PDF))[0] == 200
        for each in (file(blob=blob["id"]), file(data=b64encode(PDF).decode())):
            assert (await post(client, a_mail(each)))[0] == 202
        assert list(store.blobs) == [(DEFAULT_TENANT, blob["id"])]
        contents = [json.loads(new.content) for new in store.new.values()]
        assert contents[0] == contents[1]
        assert contents[0]["attachments"] == [file(blob=blob["id"], content_id=None)]
        assert all(new.blobs == () for new in store.new.values())


async def test_many_submits_with_one_file_ask_for_it_once() -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        blob = (await upload(client, PDF))[1]["id"]
        asked = store.blob_questions
        for _ in range(5):
            assert (await post(client, a_mail(file(blob=blob))))[0] == 202
        assert store.blob_questions == asked


async def test_a_submit_without_files_asks_the_store_for_nothing() -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        assert (await post(client, submit_body()))[0] == 202
        async with client.post(
            "/v1/notifications/batch", json={"notifications": [submit_body()]}
        ) as response:
            assert response.status == 202
        assert store.blob_questions == 0


@pytest.mark.parametrize(
    ("each", "field"),
    [
        (file(blob=blob_id(b"other")), "content.attachments.1.blob"),
        (file(blob="sha256:0"), "content.attachments.1.blob"),
        (file(blob=blob_id(PDF).upper()), "content.attachments.1.blob"),
        (file(blob=blob_id(PDF), data=""), "content.attachments.1.blob"),
        (file(), "content.attachments.1.data"),
        (file(data=None, blob=None), "content.attachments.1.data"),
    ],
)
async def test_a_wrong_blob_is_refused_with_its_field(each: dict[str, object], field: str) -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        blob = (await upload(client, PDF))[1]["id"]
        status, problem = await post(client, a_mail(file(blob=blob), each))
        assert (status, [error["field"] for error in problem["errors"]]) == (400, [field])
        assert store.new == {}


async def test_a_blob_of_another_tenant_is_unknown() -> None:
    store = MemoryStore()
    await store.put(TenantId("other"), blob_id(PDF), PDF, is_mail=False)
    async with open_client(make_api(store)) as client:
        status, problem = await post(client, a_mail(file(blob=blob_id(PDF))))
        assert (status, problem["errors"][0]["field"]) == (400, "content.attachments.0.blob")


async def test_the_items_of_a_batch_with_wrong_files_are_refused_alone() -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        blob = (await upload(client, PDF))[1]["id"]
        files = [file(blob=blob), file(blob=blob_id(b"")), file(data="")]
        body = {"notifications": [submit_body(), *map(a_mail, files)]}
        async with client.post("/v1/notifications/batch", json=body) as response:
            results = (await response.json())["results"]
        fields = [
            result["problem"]["errors"][0]["field"] if "problem" in result else None
            for result in results
        ]
        assert fields == [
            None,
            None,
            "content.attachments.0.blob",
            "content.attachments.0.data",
        ]
        assert len(store.new) == 2


async def test_files_of_ten_mebibytes_together_are_accepted_and_one_byte_more_is_not() -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        half = file(data=b64encode(b"x" * (5 * MIB)).decode())
        other = file(data=b64encode(b"y" * (5 * MIB)).decode())
        assert (await post(client, a_mail(half, other)))[0] == 202
        assert len(next(iter(store.new.values())).content) < 400
        for third in (file(data="eA=="), file(blob=blob_id(b"x"))):
            await store.put(DEFAULT_TENANT, blob_id(b"x"), b"x", is_mail=False)
            status, problem = await post(client, a_mail(half, other, third))
            assert (status, problem["errors"][0]["field"]) == (400, "content.attachments")
        assert (await upload(client, b"x" * (10 * MIB)))[0] == 201
        assert (await upload(client, b"x" * (10 * MIB + 1)))[0] == 413


async def test_a_large_body_without_files_is_too_large() -> None:
    async with open_client(make_api(MemoryStore())) as client:
        status, problem = await post(client, submit_body(colour="x" * (2 * MIB)))
        assert (status, problem["errors"][0]["field"]) == (400, "colour")
        spaces = b" " * (2 * MIB) + json.dumps(submit_body()).encode()
        headers = {"Content-Type": "application/json"}
        data = io.BytesIO(spaces)
        async with client.post("/v1/notifications", data=data, headers=headers) as response:
            assert response.status == 413
        status, _ = await post(client, submit_body(metadata={"a": "x" * (15 * MIB)}))
        assert status == 413


async def test_without_memory_for_a_large_body_the_answer_comes_before_the_body() -> None:
    rules = make_rules(max_held_bytes=MIB)
    store = MemoryStore()
    store.released.clear()
    large = a_mail(file(data=b64encode(b"x" * (3 * MIB)).decode()))
    async with (
        open_client(make_api(store, rules)) as client,
        asyncio.TaskGroup() as group,
    ):
        first = group.create_task(post(client, large))
        await store.entered.wait()
        async with client.post(
            "/v1/blobs", data=b"x" * MIB, headers={"Content-Type": "a/b"}
        ) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert (await response.json())["type"].endswith(":overloaded")
        store.released.set()
        assert (await first)[0] == 202
        assert (await post(client, large))[0] == 202


async def test_a_chunked_body_counts_once_it_is_large() -> None:
    rules = make_rules(max_held_bytes=MIB)
    store = MemoryStore()
    store.released.clear()

    async def chunks(body: object) -> Any:
        yield json.dumps(body).encode()

    headers = {"Content-Type": "application/json"}
    large = a_mail(file(data=b64encode(b"x" * (3 * MIB)).decode()))

    async def post_chunked(body: object) -> int:
        async with client.post("/v1/notifications", data=chunks(body), headers=headers) as answer:
            return answer.status

    async with open_client(make_api(store, rules)) as client, asyncio.TaskGroup() as group:
        first = group.create_task(post_chunked(large))
        await store.entered.wait()
        small = group.create_task(post_chunked(submit_body()))
        assert await post_chunked(large) == 503
        store.released.set()
        assert (await first, await small) == (202, 202)


def test_held_bytes_are_given_back_and_one_large_body_is_always_allowed() -> None:
    held = HeldBytes(100)
    with held.request() as first:
        first.take(500)
        with held.request() as second, pytest.raises(RequestRefused):
            second.take(1)
    with held.request() as first, held.request() as second:
        first.take(60)
        second.take(40)
        with pytest.raises(RequestRefused):
            second.take(1)


async def test_a_repeated_submit_may_name_its_file_by_blob_or_by_data() -> None:
    store = MemoryStore()
    inline, by_id = file(data=b64encode(PDF).decode()), file(blob=blob_id(PDF))
    async with open_client(make_api(store)) as client:
        keys = {"Idempotency-Key": "k"}
        for each in (inline, by_id, file(data=b64encode(b"other").decode())):
            assert (await post(client, a_mail(each), **keys))[0] == 202
    first, second, third = (new.key for new in store.new.values())
    assert first is not None
    assert first == second
    assert third is not None
    assert third.body != first.body


async def test_a_whole_mail_is_uploaded_as_one_and_excludes_other_content() -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        status, blob = await upload(client, MAIL, "message/rfc822")
        assert status == 201
        content = {"mime": blob["id"], "from": "bounces@example.com"}
        status, _ = await post(client, submit_body(content=content))
        assert status == 202
        assert json.loads(next(iter(store.new.values())).content) == content
        for name, value in (
            ("subject", "s"),
            ("body", ""),
            ("html", "x"),
            ("data", {}),
            ("cc", "a@example.com"),
            ("headers", {"X-A": "1"}),
            ("attachments", []),
        ):
            body = submit_body(content={"mime": blob["id"], name: value})
            status, problem = await post(client, body)
            assert (status, problem["errors"][0]["field"]) == (400, f"content.{name}")
        sms = submit_body(channel="sms", recipient="+15005550006", content={"body": "b"} | content)
        status, problem = await post(client, sms)
        assert (status, problem["errors"][0]["field"]) == (400, "content.mime")


async def test_a_file_is_a_whole_mail_only_once_it_was_uploaded_as_one() -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        blob = (await upload(client, MAIL))[1]["id"]
        body = submit_body(content={"mime": blob})
        status, problem = await post(client, body)
        assert (status, problem["errors"][0]["field"]) == (400, "content.mime")
        assert (await upload(client, MAIL, "Message/RFC822; charset=utf-8"))[0] == 200
        assert (await post(client, body))[0] == 202
        status, problem = await upload(client, b"no mail", "message/rfc822")
        assert (status, problem["errors"][0]["field"]) == (400, "$")


@pytest.mark.parametrize(
    ("query", "status", "tenant"),
    [
        ("", 201, DEFAULT_TENANT),
        ("?tenant=default", 201, DEFAULT_TENANT),
        ("?tenant=shop", 201, TenantId("shop")),
        ("?tenant=Shop", 400, None),
        ("?owner=shop", 400, None),
    ],
)
async def test_without_a_key_of_a_tenant_an_upload_may_name_one(
    query: str, status: int, tenant: TenantId | None
) -> None:
    store = MemoryStore()
    async with (
        open_client(make_api(store)) as client,
        client.post(f"/v1/blobs{query}", data=io.BytesIO(PDF)) as response,
    ):
        assert response.status == status
        assert [owner for owner, _ in store.blobs] == ([] if tenant is None else [tenant])
