"""`/v1/schedules` over HTTP."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any, Final
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from notifier.api.schedules.documents import RunProblem
from notifier.api.submission.stored_fields import KNOWN_FIELDS, fields_of
from notifier.domain.blobs import blob_id
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.keys import KeyScope
from notifier.domain.notification import NotificationId
from notifier.domain.schedules import ScheduleScope
from notifier.domain.tenants import DEFAULT_TENANT, Tenant, TenantId
from tests.memory_access import memory_auth
from tests.memory_schedules import MemorySchedules
from tests.stored_templates import email_template
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client, submit_body

PATH: Final = "/v1/schedules"
LIVE: Final = ScheduleScope(DEFAULT_TENANT, Mode.LIVE)
SHOP: Final = TenantId("shop")
NOW: Final = datetime.now(UTC)

Document = dict[str, Any]


def body(**changes: object) -> Document:
    return {
        "cron": "30 9 * * MON-FRI",
        "time_zone": "Europe/Berlin",
        "notification": submit_body(),
        **changes,
    }


def of(**notification: object) -> Document:
    return body(notification=submit_body(**notification))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def schedules() -> MemorySchedules:
    return MemorySchedules()


@pytest.fixture
async def client(
    store: MemoryStore, schedules: MemorySchedules
) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store, schedules=schedules)) as opened:
        yield opened


async def ask(
    client: aiohttp.ClientSession, method: str, path: str, json: object = None, **more: Any
) -> tuple[int, Any]:
    async with client.request(method, path, json=json, **more) as response:
        return response.status, await response.json(content_type=None)


async def made(client: aiohttp.ClientSession, **changes: object) -> Document:
    status, document = await ask(client, "POST", PATH, body(**changes))
    assert status == 201, document
    schedule: Document = document
    return schedule


def fields(problem: Document) -> list[str]:
    return [error["field"] for error in problem["errors"]]


async def test_a_schedule_is_made_once_listed_and_deleted(
    client: aiohttp.ClientSession, schedules: MemorySchedules
) -> None:
    async with client.post(PATH, json=body(note="the stand-up")) as response:
        schedule = await response.json()
        assert response.status == 201
        assert response.headers["Location"] == f"{PATH}/{schedule['id']}?tenant=default"
    assert (schedule["cron"], schedule["time_zone"]) == ("30 9 * * MON-FRI", "Europe/Berlin")
    assert (schedule["tenant"], schedule["mode"]) == ("default", "live")
    assert (schedule["note"], schedule["paused"]) == ("the stand-up", False)
    assert datetime.fromisoformat(schedule["next_at"]) > NOW
    nothing = ("last_at", "last_notification", "last_problem")
    assert [schedule[name] for name in nothing] == [None] * 3
    assert "notification" not in schedule
    assert await ask(client, "POST", PATH, body(cron="30  9 * * MON-FRI")) == (200, schedule)
    assert await ask(client, "GET", response.headers["Location"]) == (200, schedule)
    assert await ask(client, "GET", PATH) == (200, {"items": [schedule], "next_cursor": None})
    assert (await ask(client, "DELETE", f"{PATH}/{schedule['id']}"))[0] == 204
    assert (await ask(client, "DELETE", f"{PATH}/{schedule['id']}"))[0] == 404
    assert schedules.stored == {}


async def test_a_schedule_submits_fallbacks_whose_files_are_kept(
    client: aiohttp.ClientSession, store: MemoryStore, schedules: MemorySchedules
) -> None:
    file, own = blob_id(b"a"), blob_id(b"b")
    for blob, data in ((file, b"a"), (own, b"b")):
        store.blobs[DEFAULT_TENANT, blob] = (data, False)

    def content(blob: str) -> Document:
        attachment = {"filename": "a", "content_type": "text/plain", "blob": blob}
        return {"subject": "s", "body": "b", "attachments": [attachment]}

    fallback = {
        "after_s": 60,
        "channel": "email",
        "recipient": "eve@example.com",
        "content": content(file),
    }
    await made(client, notification=submit_body(content=content(own), fallback=fallback))
    (new,) = schedules.new.values()
    assert set(new.blobs) == {file, own}
    assert set(new.needs) <= KNOWN_FIELDS
    assert "fallback.content.attachments.blob" in new.needs
    wrong = of(fallback=fallback | {"recipient": "eve"})
    status, problem = await ask(client, "POST", PATH, wrong)
    assert (status, fields(problem)) == (400, ["notification.fallback.recipient"])


async def test_the_notification_is_shown_where_it_is_asked_for(
    client: aiohttp.ClientSession,
) -> None:
    notification = submit_body(metadata={"order": 17.0}, tag="a")
    schedule = await made(client, notification=notification | {"tenant": "default"})
    path = f"{PATH}/{schedule['id']}"
    assert "notification" not in (await ask(client, "GET", path))[1]
    _, shown = await ask(client, "GET", f"{path}?include=notification")
    assert shown["notification"] == notification
    status, problem = await ask(client, "GET", f"{path}?include=content")
    assert (status, fields(problem)) == (400, ["?include"])


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        (body(cron="30 9 * *"), ["cron"]),
        (body(cron="61 9 * * *"), ["cron"]),
        (body(cron="0 0 29 2 1#6"), ["cron"]),
        (body(cron="0 0 LW * */7"), ["cron"]),
        (body(cron=5), ["cron"]),
        (body(cron="1," * 100 + "1 * * * *"), ["cron"]),
        (body(time_zone="Berlin"), ["time_zone"]),
        (body(time_zone="x" * 65), ["time_zone"]),
        (body(note="a\nb"), ["note"]),
        (body(note="x" * 301), ["note"]),
        (body(paused="yes"), ["paused"]),
        (body(next_at="2027-01-01T00:00:00Z"), ["next_at"]),
        (body(notification=5), ["notification"]),
        (body(notification=None), ["notification"]),
        (body(notification=[]), ["notification"]),
        (of(channel="fax"), ["notification.channel"]),
        (of(recipient="ada"), ["notification.recipient"]),
        (of(content=None), ["notification.content"]),
        (of(content={"subject": "s", "text": "b"}), ["notification.content.text"]),
        (of(nothing=1), ["notification.nothing"]),
        (of(ttl_s=59), ["notification.ttl_s"]),
        (of(send_at="2027-01-01T00:00:00Z"), ["notification.send_at"]),
        (of(expires_at="2027-01-01T00:00:00Z"), ["notification.expires_at"]),
        (of(idempotency_key="k"), ["notification.idempotency_key"]),
        (of(tenant="No"), ["notification.tenant"]),
        (of(tenant=5), ["notification.tenant"]),
        (of(template="order", content=None), ["notification.template"]),
        (of(metadata={"a": "b\0"}), ["notification.metadata.a"]),
        (
            of(
                content={
                    "subject": "s",
                    "attachments": [
                        {"filename": "a", "content_type": "text/plain", "data": "YQ=="}
                    ],
                }
            ),
            ["notification.content.attachments.0.data"],
        ),
        (
            of(content={"subject": "s", "mime": blob_id(b"")}),
            ["notification.content.subject"],
        ),
        (of(content={"mime": blob_id(b"")}), ["notification.content.mime"]),
        ({}, ["cron", "time_zone", "notification"]),
        (
            body(
                cron="*",
                time_zone="Mars",
                note="a\tb",
                notification={"channel": "email", "recipient": "a", "tag": "a b", "send_at": "x"},
            ),
            [
                *("cron", "time_zone", "note", "notification.send_at", "notification.recipient"),
                *("notification.content", "notification.tag"),
            ],
        ),
    ],
    ids=str,
)
async def test_everything_that_is_wrong_is_named(
    client: aiohttp.ClientSession,
    schedules: MemorySchedules,
    request_body: Document,
    expected: list[str],
) -> None:
    status, problem = await ask(client, "POST", PATH, request_body)
    assert (status, fields(problem)) == (400, expected)
    assert schedules.stored == {}


async def test_a_body_that_is_no_json_is_refused(client: aiohttp.ClientSession) -> None:
    for text, slug in (
        (b"", "malformed-json"),
        (b"{", "malformed-json"),
        (b"[]", "invalid-field"),
        (b'{"cron": "\\ud800"}', "invalid-field"),
        (json.dumps(body()).replace("Your code", "\\ud800").encode(), "invalid-field"),
        (json.dumps(body()).encode().replace(b"recipient", b"recipi\xff"), "malformed-json"),
        (json.dumps(of(metadata=0)).replace(": 0", ": " + "[" * 5000).encode(), "invalid-field"),
        (
            json.dumps(of(metadata=0)).replace(": 0", ": " + "[" * 99 + "]" * 99).encode(),
            "invalid-field",
        ),
    ):
        headers = {"Content-Type": "application/json"}
        async with client.post(PATH, data=text, headers=headers) as response:
            problem = await response.json(content_type=None)
            assert (response.status, problem["type"].rpartition(":")[2]) == (400, slug), text


async def test_a_template_is_checked_as_at_a_submit(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    document = email_template(body="Hello {{ name }}")
    path = "/v1/templates/daily/versions"
    assert (await ask(client, "POST", path, document))[0] == 201
    wrong = of(content=None, template="daily", variables={"nam": "Ada"})
    status, problem = await ask(client, "POST", PATH, wrong)
    assert (status, fields(problem)) == (400, ["notification.variables"])
    right = of(content=None, template="daily", variables={"name": "Ada"})
    assert (await ask(client, "POST", PATH, right))[0] == 201
    assert store.new == {}, "nothing is submitted"


async def test_a_file_must_be_a_blob_that_exists(
    client: aiohttp.ClientSession, schedules: MemorySchedules
) -> None:
    async with client.post(
        "/v1/blobs", data=b"file", headers={"Content-Type": "text/plain"}
    ) as uploaded:
        id_ = (await uploaded.json())["id"]
    file = {"filename": "a", "content_type": "text/plain", "blob": id_}
    content = {"subject": "s", "body": "b", "attachments": [file]}
    await made(client, notification=submit_body(content=content))
    (new,) = schedules.new.values()
    assert list(new.blobs) == [id_]
    assert {"content.attachments.blob", "content.subject", "recipient"} <= set(new.needs)
    assert set(new.needs) <= KNOWN_FIELDS


def test_the_fields_of_a_notification_of_any_shape_are_found() -> None:
    document = {
        "content": {"subject": "", "attachments": [{"filename": "a"}, {"blob": "b", "later": 1}]},
        "metadata": {"anything": 1},
        "later": {"after_s": 5},
    }
    assert fields_of(document) - KNOWN_FIELDS == {"later", "content.attachments.later"}
    assert fields_of({"content": None}) == {"content"}


async def test_it_is_replaced_as_a_whole_and_keeps_its_instants_if_they_stay(
    client: aiohttp.ClientSession,
) -> None:
    schedule = await made(client, note="why")
    path = f"{PATH}/{schedule['id']}"
    status, replaced = await ask(client, "PUT", path, of(tag="a"))
    assert (status, replaced) == (200, schedule | {"note": None})
    _, paused = await ask(client, "PUT", path, of(tag="a") | {"paused": True})
    assert (paused["paused"], paused["next_at"]) == (True, None)
    _, resumed = await ask(client, "PUT", path, of(tag="a") | {"cron": "0 0 1 1 *"})
    assert (resumed["paused"], resumed["cron"]) == (False, "0 0 1 1 *")
    assert resumed["next_at"].endswith("-12-31T23:00:00Z")
    status, problem = await ask(client, "PUT", path, of(recipient="ada"))
    assert (status, fields(problem)) == (400, ["notification.recipient"])
    status, problem = await ask(client, "PUT", path, of(tenant="shop"))
    assert (status, fields(problem)) == (400, ["notification.tenant"])


async def test_a_schedule_whose_channel_or_template_is_gone_can_be_paused(
    schedules: MemorySchedules,
) -> None:
    rules = make_rules()
    async with open_client(make_api(MemoryStore(), rules, schedules=schedules)) as client:
        schedule = await made(client, notification=submit_body(metadata={"b": 1, "a": 2}))
    only_sms = replace(rules, channels={"sms": rules.channels["sms"]})
    async with open_client(make_api(MemoryStore(), only_sms, schedules=schedules)) as client:
        path = f"{PATH}/{schedule['id']}"
        # The order of members and the spelling of numbers do not matter.
        same = submit_body(metadata={"a": 2.0, "b": 1})
        status, paused = await ask(client, "PUT", path, body(notification=same, paused=True))
        assert (status, paused["paused"]) == (200, True)
        status, problem = await ask(client, "PUT", path, of(tag="b"))
        assert (status, fields(problem)) == (400, ["notification.channel"])


async def test_two_schedules_are_not_the_same_and_a_tenant_has_a_maximum(
    client: aiohttp.ClientSession, schedules: MemorySchedules
) -> None:
    await made(client)
    other = await made(client, cron="0 9 * * *")
    status, problem = await ask(client, "PUT", f"{PATH}/{other['id']}", body())
    assert (status, problem["type"]) == (409, "urn:notifier:problem:in-use")
    schedules.most = 2
    status, problem = await ask(client, "POST", PATH, body(cron="1 9 * * *"))
    assert (status, problem["type"]) == (409, "urn:notifier:problem:in-use")
    assert (await ask(client, "POST", PATH, body()))[0] == 200


async def test_the_last_run_is_shown_also_one_that_was_refused(
    client: aiohttp.ClientSession, schedules: MemorySchedules
) -> None:
    schedule = await made(client)
    (id_,) = schedules.stored
    problem = {
        "type": "urn:notifier:problem:invalid-field",
        "title": "A field is wrong",
        "status": 400,
        "detail": "notification.channel: expected one of sms",
        "errors": [{"field": "notification.channel", "expected": "one of sms", "detail": "..."}],
    }
    run = {"at": "2026-12-01T09:30:00Z", "problem": problem, "later": 1}
    schedules.stored[id_] = replace(
        schedules.stored[id_],
        last_at=datetime(2026, 11, 30, 9, 30, tzinfo=UTC),
        last_notification=NotificationId(uuid4()),
        problem=msgspec.json.encode(run),
    )
    _, shown = await ask(client, "GET", f"{PATH}/{schedule['id']}")
    assert shown["last_at"] == "2026-11-30T09:30:00Z"
    assert shown["last_problem"] == {"at": run["at"], "problem": problem}
    msgspec.convert(shown["last_problem"], RunProblem)
    schedules.stored[id_] = replace(schedules.stored[id_], problem=b'{"of": "a later version"}')
    assert (await ask(client, "GET", PATH))[1]["items"][0]["last_problem"] is None
    async with client.get(PATH, headers={"Accept": "text/csv"}) as response:
        (row,) = csv.DictReader(StringIO(await response.text()))
    assert (row["id"], row["paused"], row["last_problem.problem.type"]) == (
        schedule["id"],
        "false",
        "",
    )


async def test_lists_have_pages(client: aiohttp.ClientSession) -> None:
    ids = [(await made(client, cron=f"{minute} 9 * * *"))["id"] for minute in range(3)]
    _, first = await ask(client, "GET", f"{PATH}?limit=2")
    _, last = await ask(client, "GET", f"{PATH}?limit=2&cursor={first['next_cursor']}")
    assert [item["id"] for page in (first, last) for item in page["items"]] == ids
    assert last["next_cursor"] is None


async def test_without_the_database_the_answer_is_503(
    client: aiohttp.ClientSession, schedules: MemorySchedules
) -> None:
    schedules.error = StoreUnavailable("gone")
    path = f"{PATH}/{uuid4()}"
    for method, address, sent in (
        ("GET", PATH, None),
        ("POST", PATH, body()),
        ("GET", path, None),
        ("PUT", path, body()),
        ("DELETE", path, None),
    ):
        assert (await ask(client, method, address, sent))[0] == 503


async def test_a_deployment_key_names_the_tenant_and_reading_the_notification_needs_operate(
    store: MemoryStore, schedules: MemorySchedules
) -> None:
    tenants = [Tenant(id=SHOP, note="", created_at=NOW)]
    auth, key = memory_auth(KeyScope.OPERATE, tenants=tenants)
    headers = {"Authorization": f"Bearer {key.text}"}
    async with open_client(make_api(store, auth=auth, schedules=schedules)) as client:
        for sent in (body(), of(tenant="nobody"), of(tenant="No")):
            status, problem = await ask(client, "POST", PATH, sent, headers=headers)
            assert (status, fields(problem)) == (400, ["notification.tenant"])
        status, problem = await ask(
            client, "POST", f"{PATH}?tenant=default", of(tenant="shop"), headers=headers
        )
        assert (status, fields(problem)) == (400, ["notification.tenant"])
        status, schedule = await ask(client, "POST", PATH, of(tenant="shop"), headers=headers)
        assert (status, schedule["tenant"]) == (201, "shop")
        again = await ask(client, "POST", f"{PATH}?tenant=shop", body(), headers=headers)
        assert again == (200, schedule)
        path = f"{PATH}/{schedule['id']}"
        for address, found in ((f"{path}?tenant=shop", 200), (f"{path}?tenant=default", 404)):
            assert (await ask(client, "GET", address, headers=headers))[0] == found
            assert (await ask(client, "PUT", address, body(), headers=headers))[0] == found
        assert (await ask(client, "PUT", path, body(), headers=headers))[0] == 400
        # Its tenant has no senders, so that it may give no `from`.
        content = {"subject": "s", "from": "ada@example.com"}
        sent = of(tenant="shop", content=content)
        status, problem = await ask(client, "POST", PATH, sent, headers=headers)
        assert (status, fields(problem)) == (400, ["notification.content.from"])
    auth, key = memory_auth(KeyScope.READ, tenants=tenants)
    headers = {"Authorization": f"Bearer {key.text}"}
    async with open_client(make_api(store, auth=auth, schedules=schedules)) as client:
        address = f"{path}?tenant=shop"
        assert (await ask(client, "GET", address, headers=headers))[0] == 200
        status, problem = await ask(
            client, "GET", f"{address}&include=notification", headers=headers
        )
        assert (status, problem["type"]) == (403, "urn:notifier:problem:scope-missing")
