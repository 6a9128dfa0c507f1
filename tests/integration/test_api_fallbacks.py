"""The field `fallback` of a submit over HTTP: what is checked, what is stored, what is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import aiohttp
import msgspec
import pytest

from notifier.api.submission.stored_fields import KNOWN_FIELDS
from notifier.domain.blobs import blob_id
from notifier.domain.credentials import Mode
from notifier.domain.fallbacks import MIN_AFTER_S
from notifier.domain.keys import KeyScope
from notifier.domain.notification import (
    FallbackView,
    NewNotification,
    NotificationId,
    Status,
    Unless,
)
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.store import KeyOwner
from tests.fallback_processes import SMS, fallback_body
from tests.memory_access import memory_auth
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client, submit_body

PATH: Final = "/v1/notifications"
RULES: Final = make_rules(test_channel="test", max_attachment_bytes=1000)
TEXTS: Final = {
    "default_locale": "en",
    "locales": {"en": {"sms": {"body": "Code {{ code }}"}, "email": {"subject": "S", "body": "B"}}},
}
ABSENT: Final = ...

Document = dict[str, Any]


def body(fallback: object = None, **changes: object) -> Document:
    return submit_body(fallback=fallback_body() if fallback is None else fallback, **changes)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store, RULES)) as opened:
        yield opened


async def ask(
    client: aiohttp.ClientSession, json: object, path: str = PATH, **more: Any
) -> tuple[int, Any]:
    async with client.post(path, json=json, **more) as response:
        return response.status, await response.json()


def fields(problem: Document) -> list[str]:
    return [error["field"] for error in problem["errors"]]


def stored_of(store: MemoryStore, accepted: Document) -> NewNotification:
    return store.new[NotificationId(UUID(accepted["id"]))]


def document_of(new: NewNotification) -> Document:
    assert new.fallback is not None
    document: Document = msgspec.json.decode(new.fallback.submit)
    return document


async def save_template(client: aiohttp.ClientSession, document: Document = TEXTS) -> None:
    status, saved = await ask(client, document, "/v1/templates/login/versions")
    assert status == 201, saved


async def test_the_second_submit_has_what_the_fallback_says_and_the_rest_of_the_first(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    more = {"tag": "login", "metadata": {"order": 17.0}, "ttl_s": 600, "max_tries": 3}
    status, accepted = await ask(
        client, body(collapse_key="k", idempotency_key="i", locale=None, **more)
    )
    assert status == 202
    new = stored_of(store, accepted)
    assert new.fallback is not None
    assert (new.fallback.after, new.fallback.channel) == (timedelta(minutes=10), "sms")
    assert document_of(new) == {
        "channel": "sms",
        "recipient": SMS,
        "content": {"body": "Your code is 123456"},
        "priority": "high",
        "tag": "login",
        "metadata": {"order": 17},
        "ttl_s": 600,
        "max_tries": 3,
    }
    assert "content.body" in new.fallback.needs
    assert set(new.fallback.needs) <= KNOWN_FIELDS


async def test_a_submit_without_fallback_stores_none(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    for request in (submit_body(), submit_body(fallback=None)):
        _, accepted = await ask(client, request)
        assert stored_of(store, accepted).fallback is None


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        (body(5), ["fallback"]),
        (body({}), ["fallback.after_s", "fallback.channel", "fallback.recipient"]),
        (body(fallback_body(after_s=MIN_AFTER_S - 1)), ["fallback.after_s"]),
        (body(fallback_body(after_s="60")), ["fallback.after_s"]),
        (body(fallback_body(after_s=29 * 86_400 + 1)), ["fallback.after_s"]),
        (body(fallback_body(channel="fax")), ["fallback.channel"]),
        (body(fallback_body(recipient="ada")), ["fallback.recipient"]),
        (body(fallback_body(recipient="")), ["fallback.recipient"]),
        (body(fallback_body(content=ABSENT)), ["fallback.content"]),
        (body(fallback_body(content={"subject": "s"})), ["fallback.content.body"]),
        (body(fallback_body(content={"text": "s"})), ["fallback.content.text"]),
        (body(fallback_body(template="login")), ["fallback.content.body"]),
        (body(fallback_body(content=ABSENT, template="Login!")), ["fallback.template"]),
        (body(fallback_body(content=ABSENT, template="nothing")), ["fallback.template"]),
        (body(fallback_body(variables={"a": 1})), ["fallback.variables"]),
        (body(fallback_body(locale="de")), ["fallback.locale"]),
        (body(fallback_body(priority="high")), ["fallback.priority"]),
        (body(fallback_body(unless="read")), ["fallback.unless"]),
        (body(fallback_body(unless="delivered")), ["fallback.unless"]),
        (body(fallback_body(unless="delivered"), channel="fax"), ["channel"]),
        (body(fallback_body(fallback=fallback_body())), ["fallback.fallback"]),
        (
            body(fallback_body(channel="email", recipient="a@example.com", content={"body": "b"})),
            ["fallback.content.subject"],
        ),
        (
            body(
                fallback_body(
                    channel="email",
                    recipient="a@example.com",
                    content={
                        "subject": "s",
                        "body": "b",
                        "attachments": [
                            {"filename": "a", "content_type": "text/plain", "data": "YQ=="}
                        ],
                    },
                )
            ),
            ["fallback.content.attachments.0.data"],
        ),
        (
            body(fallback_body(channel="fax", recipient="ada"), recipient="ada", tag="a b"),
            ["recipient", "tag"],
        ),
        (
            body(fallback_body(channel="sms", recipient="ada"), recipient="ada"),
            ["recipient", "fallback.recipient"],
        ),
    ],
)
async def test_wrong_fields_of_a_fallback_are_named(
    client: aiohttp.ClientSession, store: MemoryStore, request_body: Document, expected: list[str]
) -> None:
    status, problem = await ask(client, request_body)
    assert (status, fields(problem)) == (400, expected), problem
    assert store.new == {}
    status, _ = await ask(client, request_body, f"{PATH}/preview")
    assert status == 400


async def test_the_longest_wait_ends_with_the_retention_and_counts_from_send_at(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    longest = fallback_body(after_s=29 * 86_400)
    assert (await ask(client, body(longest)))[0] == 202
    send_at = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    status, problem = await ask(client, body(longest, send_at=send_at))
    assert (status, fields(problem)) == (400, ["fallback.after_s"])
    shorter = fallback_body(after_s=26 * 86_400)
    assert (await ask(client, body(shorter, send_at=send_at)))[0] == 202


async def test_an_unknown_field_of_a_fallback_is_explained_by_its_own_fields(
    client: aiohttp.ClientSession,
) -> None:
    _, problem = await ask(client, body(fallback_body(to=SMS)))
    assert [error["expected"] for error in problem["errors"]] == ["fallback.recipient"]
    _, problem = await ask(client, submit_body(to="ada@example.com"))
    assert [error["expected"] for error in problem["errors"]] == ["recipient"]


async def test_an_instant_of_expiry_becomes_a_time_to_live_of_the_second(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    expires_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    _, accepted = await ask(client, body(expires_at=expires_at))
    document = document_of(stored_of(store, accepted))
    assert "expires_at" not in document
    assert 3590 < document["ttl_s"] <= 3600


async def test_a_template_is_rendered_and_its_version_fixed_at_the_submit(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    await save_template(client)
    templated = fallback_body(content=ABSENT, template="login", variables={"code": "17"})
    _, accepted = await ask(client, body(templated))
    await save_template(client, {**TEXTS, "locales": {"en": {"sms": {"body": "{{ code }}!"}}}})
    document = document_of(stored_of(store, accepted))
    assert (document["template"], document["variables"]) == ("login@1", {"code": "17"})
    status, problem = await ask(client, body(templated | {"variables": {}}))
    assert (status, fields(problem)) == (400, ["fallback.variables"])
    push = templated | {"channel": "push", "recipient": "token"}
    status, problem = await ask(client, body(push))
    assert (status, fields(problem)) == (400, ["fallback.channel"])


async def test_a_fallback_with_a_template_takes_over_variables_and_locale(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    await save_template(client)
    templated = fallback_body(content=ABSENT, template="login@1")
    first = {"content": None, "template": "login", "variables": {"code": "17"}, "locale": "de"}
    _, accepted = await ask(client, body(templated, **first))
    document = document_of(stored_of(store, accepted))
    assert (document["variables"], document["locale"]) == ({"code": "17"}, "de")
    _, accepted = await ask(client, body(**first))
    assert not {"variables", "locale"} & set(document_of(stored_of(store, accepted)))


async def test_the_files_of_a_fallback_are_kept_and_must_exist(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    known, unknown = blob_id(b"known"), blob_id(b"unknown")
    store.blobs[DEFAULT_TENANT, known] = (b"known", False)

    def with_file(blob: str) -> Document:
        file = {"filename": "a.txt", "content_type": "text/plain", "blob": blob}
        content = {"subject": "s", "body": "b", "attachments": [file]}
        return body(fallback_body(channel="email", recipient="a@example.com", content=content))

    status, accepted = await ask(client, with_file(known))
    assert status == 202, accepted
    status, problem = await ask(client, with_file(unknown))
    assert (status, fields(problem)) == (400, ["fallback.content.attachments.0.blob"])


async def test_each_item_of_a_batch_may_have_a_fallback_and_a_wrong_one_stops_no_others(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    await save_template(client)
    right = fallback_body(content=ABSENT, template="login", variables={"code": "1"})
    items = [
        body(right),
        submit_body(),
        body(fallback_body(recipient="ada")),
        body(right | {"variables": {}}),
        body(),
    ]
    status, answer = await ask(client, {"notifications": items}, f"{PATH}/batch")
    assert status == 202
    results = answer["results"]
    assert [fields(each["problem"]) if "problem" in each else [] for each in results] == [
        [],
        [],
        ["fallback.recipient"],
        ["fallback.variables"],
        [],
    ]
    kept = [stored_of(store, results[number]).fallback is not None for number in (0, 1, 4)]
    assert kept == [True, False, True]
    assert document_of(stored_of(store, results[0]))["template"] == "login@1"


async def test_a_repeat_is_answered_as_before_although_the_template_asks_for_more_now(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    await save_template(client)
    templated = fallback_body(content=ABSENT, template="login", variables={"code": "17"})
    request = body(templated, idempotency_key="k")
    _, first = await ask(client, request)
    new = stored_of(store, first)
    assert new.key is not None
    store.owners[new.key.digest] = KeyOwner(new.id, new.key.body, Status.QUEUED)
    more: Document = {**TEXTS, "locales": {"en": {"sms": {"body": "{{ code }} {{ name }}"}}}}
    await save_template(client, more)
    assert await ask(client, request) == (202, first)
    status, answer = await ask(client, {"notifications": [request]}, f"{PATH}/batch")
    assert (status, [each["id"] for each in answer["results"]]) == (202, [first["id"]])
    other = body(templated | {"recipient": "+15005550007"}, idempotency_key="k")
    assert (await ask(client, other))[0] == 422


async def test_a_test_key_has_fallbacks_of_its_mode(store: MemoryStore) -> None:
    auth, key = memory_auth(KeyScope.SUBMIT, mode=Mode.TEST)
    async with open_client(make_api(store, RULES, auth=auth)) as client:
        headers = {"Authorization": f"Bearer {key.text}"}
        status, accepted = await ask(client, body(), headers=headers)
    assert status == 202, accepted
    new = stored_of(store, accepted)
    assert new.fallback is not None
    assert (new.test_channel, new.fallback.channel) == ("email", "sms")


async def test_both_notifications_show_the_fallback(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    _, one = await ask(client, body())
    _, two = await ask(client, submit_body())
    first, second = (stored_of(store, each).id for each in (one, two))
    at = datetime(2026, 12, 1, 9, tzinfo=UTC)
    fallback = FallbackView(
        after_s=600.0, channel="sms", at=at, unless=Unless.DELIVERED, notification=second
    )
    store.views[first] = replace(store.views[first], fallback=fallback)
    store.views[second] = replace(store.views[second], fallback_of=first)
    async with client.get(f"{PATH}/{first}") as response:
        shown = await response.json()
    assert shown["fallback"] == {
        "after_s": 600,
        "channel": "sms",
        "at": "2026-12-01T09:00:00Z",
        "unless": "delivered",
        "notification": str(second),
    }
    assert shown["fallback_of"] is None
    async with client.get(f"{PATH}/{second}") as response:
        shown = await response.json()
    assert (shown["fallback"], shown["fallback_of"]) == (None, str(first))
