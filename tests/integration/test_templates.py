"""Templates from the push to the mail, on a real Postgres, with a real renderer and worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
import pytest

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.templates import open_templates
from notifier.adapters.templating.renderer import open_renderer
from notifier.delivery.templates import TemplateCache, TemplateContents, encode_templated
from notifier.domain.credentials import Credential, Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.keys import KeyScope
from notifier.domain.notification import NotificationId, Status
from notifier.domain.templates import TemplateRef
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.templates import NewTemplate, RenderJob, TemplateRenderer
from tests.builders import a_notification
from tests.hostile_templates import BEYOND_FUEL, OUT_OF_FUEL, RAISING, VARIABLES
from tests.integration.test_accept import open_accepting
from tests.integration.test_api_auth import ADA, BANK, SHOP
from tests.integration.test_api_auth import open_api as open_keyed_api
from tests.one_worker import Worker, open_worker
from tests.stored_templates import email_template, store_template
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client

NOTIFICATIONS = "/v1/notifications"
ORDER = {
    "default_locale": "en",
    "locales": {
        "en": {
            "email": {
                "subject": "Order {{ order.id }}",
                "body": "Hello {{ name }}",
                "html": "<p>Hello {{ name }}</p>",
            },
            "sms": {"body": "Order {{ order.id }} is on its way"},
        },
        "de": {"email": {"subject": "Bestellung {{ order.id }}", "body": "Hallo {{ name }}"}},
        "de-AT": {"email": {"subject": "Bstöllung {{ order.id }}", "body": "Servus {{ name }}"}},
    },
}
SUBMIT = {
    "channel": "email",
    "priority": "high",
    "recipient": "Ada <ada@example.com>",
    "template": "order",
    "variables": VARIABLES,
}
Json = Mapping[str, Any]


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Mapping[str, str]


class Api:
    def __init__(self, client: aiohttp.ClientSession, key: Credential | None = None) -> None:
        self._client = client
        self._headers = {} if key is None else {"Authorization": f"Bearer {key.text}"}

    async def ask(
        self, method: str, path: str, body: object = None, *, key: str | None = None
    ) -> Answer:
        headers = self._headers | ({} if key is None else {"Idempotency-Key": key})
        async with self._client.request(method, path, json=body, headers=headers) as response:
            return Answer(response.status, json.loads(await response.read()), response.headers)

    async def save(self, name: str, document: Json, status: int = 201) -> Json:
        answer = await self.ask("POST", f"/v1/templates/{name}/versions", document)
        assert answer.status == status, answer
        body: Json = answer.body
        return body

    async def submit(self, status: int = 202, key: str | None = None, **changes: object) -> Answer:
        answer = await self.ask("POST", NOTIFICATIONS, {**SUBMIT, **changes}, key=key)
        assert answer.status == status, answer
        return answer

    async def refusal(self, **changes: object) -> Json:
        """The first field error of a submit."""
        answer = await self.ask("POST", NOTIFICATIONS, {**SUBMIT, **changes})
        assert answer.status == 400, answer
        error: Json = answer.body["errors"][0]
        return error


class AwayForTemplates:
    """A reader for which Postgres is away when the templates of replays are read."""

    async def templates_of(self, _: object) -> Mapping[NotificationId, str | None]:
        raise StoreUnavailable("away")


@asynccontextmanager
async def open_api(url: str, *, reader: Any = None) -> AsyncIterator[Api]:
    settings = ConnectionSettings(url=url)
    async with (
        open_accepting(url) as accepting,
        open_reader(settings) as postgres_reader,
        open_templates(settings) as templates,
        open_renderer() as renderer,
    ):
        app = make_api(
            MemoryStore(),
            acceptor=accepting.accept,
            reader=reader or postgres_reader,
            templates=templates,
            renderer=renderer,
        )
        async with open_client(app) as client:
            yield Api(client)


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with open_api(database_url) as opened:
        yield opened


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    async with open_worker(database_url) as opened:
        yield opened


async def sent_content(worker: Worker) -> Json:
    """The content of the notifications that are due, as the provider gets it."""
    for pointer in await worker.due():
        await worker.run(pointer)
    content: Json = worker.provider.calls[-1].content
    return content


async def test_a_template_is_rendered_into_the_mail(api: Api, worker: Worker) -> None:
    saved = await api.save("order", ORDER)
    assert (saved["name"], saved["version"], saved["channels"]) == ("order", 1, ["email", "sms"])
    accepted = (await api.submit()).body
    assert (accepted["template"], accepted["status"]) == ("order@1", "queued")
    assert await sent_content(worker) == {
        "recipient_name": "Ada",
        "subject": "Order 17",
        "body": "Hello Ada <ada>",
        "html": "<p>Hello Ada &lt;ada&gt;</p>",
    }
    shown = (await api.ask("GET", f"{NOTIFICATIONS}/{accepted['id']}?include=content")).body
    assert (shown["template"], shown["locale"], shown["status"]) == ("order@1", "en", "sent")
    assert shown["content"]["variables"] == VARIABLES
    listed = (await api.ask("GET", NOTIFICATIONS)).body["items"][0]
    assert (listed["template"], listed["locale"]) == ("order@1", "en")
    assert "ada>" not in json.dumps(listed["metadata"])
    assert "content" not in listed


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        (None, "en"),
        ("de", "de"),
        ("de-CH", "de"),
        ("de-AT", "de-AT"),
        ("DE-at-x", "de-AT"),
        ("fr", "en"),
        ("fr-CA", "en"),
    ],
)
async def test_the_locale_is_the_exact_one_or_the_language_or_the_default(
    api: Api, worker: Worker, locale: str | None, expected: str
) -> None:
    await api.save("order", ORDER)
    id_ = (await api.submit(locale=locale)).body["id"]
    assert (await api.ask("GET", f"{NOTIFICATIONS}/{id_}")).body["locale"] == expected
    subject = {"en": "Order 17", "de": "Bestellung 17", "de-AT": "Bstöllung 17"}[expected]
    assert (await sent_content(worker))["subject"] == subject


async def test_what_the_locale_lacks_for_a_channel_comes_from_the_default(api: Api) -> None:
    await api.save("order", ORDER)
    accepted = await api.submit(channel="sms", recipient="+15005550006", locale="de")
    assert accepted.body["segments"] == 1


async def test_old_versions_are_rendered_as_before_after_a_push(
    api: Api, worker: Worker, database_url: str
) -> None:
    await api.save("order", ORDER)
    await api.submit()
    await api.save("order", email_template(body="new {{ something }}"))
    assert (await sent_content(worker))["subject"] == "Order 17"
    named = await api.submit(template="order@1")
    assert named.body["template"] == "order@1"
    assert (await sent_content(worker))["subject"] == "Order 17"
    newest = await api.submit(variables={"something": "x"})
    assert newest.body["template"] == "order@2"
    async with open_worker(database_url) as another:
        assert await sent_content(another) == {
            "recipient_name": "Ada",
            "subject": "S",
            "body": "new x",
        }


async def test_the_same_content_makes_no_new_version(api: Api) -> None:
    await api.save("order", ORDER)
    again = await api.ask("POST", "/v1/templates/order/versions", ORDER)
    assert (again.status, again.body["version"]) == (200, 1)
    other_order = dict(reversed(ORDER.items()))
    assert (await api.save("order", other_order, 200))["version"] == 1
    changed = await api.ask("POST", "/v1/templates/order/versions", email_template(body="x"))
    assert (changed.status, changed.headers["Location"]) == (201, "/v1/templates/order/versions/2")
    assert (await api.save("order", ORDER))["version"] == 3
    assert (await api.ask("GET", "/v1/templates/order")).body["versions"] == [3, 2, 1]
    assert (await api.ask("GET", "/v1/templates/order/versions/1")).body == ORDER
    assert [each["version"] for each in (await api.ask("GET", "/v1/templates")).body["items"]] == [
        3
    ]


async def test_pushes_at_once_get_different_versions(database_url: str) -> None:
    async with open_api(database_url) as one, open_api(database_url) as other:
        for n in range(10):
            async with asyncio.TaskGroup() as group:
                saves = [
                    group.create_task(api.save("order", email_template(body=f"{n} {api is one}")))
                    for api in (one, other)
                ]
            assert {save.result()["version"] for save in saves} == {2 * n + 1, 2 * n + 2}


HOSTILE = OUT_OF_FUEL | BEYOND_FUEL | RAISING


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
async def test_what_cannot_be_rendered_is_refused_at_submit(api: Api, source: str) -> None:
    saved = await api.ask("POST", "/v1/templates/order/versions", email_template(body=source))
    if saved.status == 201:
        error = await api.refusal()
        assert error["field"] in {"template", "variables"}
        assert "Ada" not in json.dumps(error)


@pytest.mark.parametrize(
    ("parts", "field", "line"),
    [
        ({"subject": "{% if %}", "body": "x"}, "locales.en.email.subject", "line 1"),
        ({"body": "a\nb {{ x y }}"}, "locales.en.email.body", "line 2, column 8"),
        ({"html": "a", "mjml": "<mjml></mjml>"}, "locales.en.email.mjml", ""),
        ({"mjml": "<html>"}, "locales.en.email.mjml", ""),
        ({"data": {"a": 1}, "body": "x"}, "locales.en.email.data", ""),
        ({"subject": None, "body": "x"}, "locales.en.email", ""),
        ({"body": ""}, "locales.en.email", ""),
        ({"body": "a\u0000"}, "locales.en.email.body", ""),
    ],
)
async def test_a_document_that_is_wrong_is_refused_with_part_line_and_column(
    api: Api, parts: Json, field: str, line: str
) -> None:
    answer = await api.ask("POST", "/v1/templates/order/versions", email_template(**parts))
    assert answer.status == 400
    assert field in [error["field"] for error in answer.body["errors"]]
    assert line in json.dumps(answer.body)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"template": "nobody"}, "template"),
        ({"template": "order@9"}, "template"),
        ({"template": "Order"}, "template"),
        ({"channel": "push", "recipient": "token"}, "channel"),
        ({"variables": {"order": {"id": 1}}}, "variables"),
        ({"variables": {"order": {"id": "a\nb"}, "name": "x"}}, "template"),
        ({"variables": {"order": {"id": "a" * 1000}, "name": "x"}}, "template"),
        ({"variables": {"x": "a" * 70_000}}, "variables"),
        ({"variables": "a"}, "variables"),
        ({"locale": "x"}, "locale"),
        ({"content": {"subject": "both"}}, "content.subject"),
        ({"content": {"body": "both"}}, "content.body"),
        ({"template": None, "variables": None}, "content"),
        ({"template": None, "content": {"subject": "S"}}, "variables"),
    ],
)
async def test_a_submit_whose_template_cannot_be_sent_names_the_field(
    api: Api, changes: Json, field: str
) -> None:
    await api.save("order", ORDER)
    assert (await api.refusal(**changes))["field"] == field


async def test_an_empty_subject_is_refused(api: Api) -> None:
    await api.save("order", email_template(subject="{{ s }}", body="x"))
    assert (await api.refusal(variables={"s": ""}))["field"] == "template"


async def test_sender_copies_and_headers_stand_beside_the_template(
    api: Api, worker: Worker
) -> None:
    await api.save("order", ORDER)
    beside = {"from": "Shop <shop@example.com>", "cc": ["eve@example.com"], "headers": {"X-A": "1"}}
    await api.submit(content=beside)
    content = await sent_content(worker)
    assert (content["from"], content["cc"]) == ("Shop <shop@example.com>", ["eve@example.com"])
    assert content["headers"] == {"X-A": "1"}
    assert content["subject"] == "Order 17"


async def test_a_batch_mixes_contents_and_templates_and_names_what_is_wrong(api: Api) -> None:
    await api.save("order", ORDER)
    plain = {key: SUBMIT[key] for key in ("channel", "recipient")}
    items = [
        SUBMIT,
        {**plain, "content": {"subject": "S", "body": "b"}},
        {**SUBMIT, "variables": {}},
        {**SUBMIT, "template": "nobody"},
        {**SUBMIT, "template": "order@1"},
    ]
    answer = await api.ask("POST", f"{NOTIFICATIONS}/batch", {"notifications": items})
    results = answer.body["results"]
    assert [result.get("template") for result in results] == [
        "order@1",
        None,
        None,
        None,
        "order@1",
    ]
    fields = [result["problem"]["errors"][0]["field"] for result in results[2:4]]
    assert fields == ["variables", "template"]


async def test_a_repeat_after_a_push_is_answered_as_before(api: Api) -> None:
    await api.save("order", ORDER)
    first = await api.submit(key="k")
    await api.save("order", {**ORDER, "default_locale": "de"})
    again = await api.submit(key="k")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.body == first.body
    await api.save("order", email_template(body="{{ something_new }}"))
    unrenderable = await api.submit(key="k")
    assert unrenderable.body == first.body
    await api.submit(422, key="k", variables={"order": {"id": 18}})
    items = {"notifications": [{**SUBMIT, "idempotency_key": "k"}]}
    batch = await api.ask("POST", f"{NOTIFICATIONS}/batch", items)
    assert batch.headers["Idempotent-Replayed"] == "true"
    assert batch.body["results"] == [first.body]
    assert (await api.refusal())["field"] == "variables"


async def test_a_repeat_of_a_text_message_has_the_segments_of_the_first(api: Api) -> None:
    def text(body: str) -> Json:
        return {"default_locale": "en", "locales": {"en": {"sms": {"body": body}}}}

    sms: Json = {"channel": "sms", "recipient": "+15005550006"}
    await api.save("order", text("{{ name }}"))
    first = await api.submit(key="k", **sms)
    assert first.body["segments"] == 1
    for body in ("x" * 400, "{{ something_new }}"):
        await api.save("order", text(body))
        assert (await api.submit(key="k", **sms)).body == first.body
    items = {"notifications": [{**SUBMIT, **sms, "idempotency_key": "k"}]}
    batch = await api.ask("POST", f"{NOTIFICATIONS}/batch", items)
    assert batch.body["results"] == [first.body]


async def test_a_batch_that_was_stored_is_answered_while_replays_cannot_be_looked_up(
    database_url: str,
) -> None:
    async with open_api(database_url, reader=AwayForTemplates()) as api:
        await api.save("order", ORDER)
        first = await api.submit(key="k")
        items = {"notifications": [{**SUBMIT, "idempotency_key": "k"}, SUBMIT]}
        batch = await api.ask("POST", f"{NOTIFICATIONS}/batch", items)
        assert batch.status == 202
        assert batch.body["results"][0] == first.body


async def test_a_preview_shows_what_would_be_sent_and_stores_nothing(
    api: Api, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await api.save("order", ORDER)
    answer = await api.ask("POST", f"{NOTIFICATIONS}/preview", {**SUBMIT, "locale": "de"})
    assert answer.status == 200
    assert answer.body == {
        "channel": "email",
        "recipient": "ada@example.com",
        "template": "order@1",
        "locale": "de",
        "from": None,
        "subject": "Bestellung 17",
        "body": "Hallo Ada <ada>",
        "html": None,
        "data": None,
        "headers": None,
        "size_bytes": len("Bestellung 17") + len("Hallo Ada <ada>"),
        "segments": None,
        "encoding": None,
        "suppressed_by": None,
        "quiet_until_at": None,
    }
    sms = {"channel": "sms", "recipient": "+15005550006", "content": {"body": "grüße 🎉"}}
    plain = (await api.ask("POST", f"{NOTIFICATIONS}/preview", sms)).body
    assert (plain["segments"], plain["encoding"], plain["template"]) == (1, "ucs2", None)
    wrong = await api.ask("POST", f"{NOTIFICATIONS}/preview", {**SUBMIT, "variables": {}})
    assert wrong.status == 400
    assert await connection.fetchval("SELECT count(*) FROM notifications") == 0


async def test_a_schema_refuses_variables_by_their_fields(api: Api) -> None:
    schema = {"properties": {"order": {"properties": {"id": {"type": "integer"}}}}}
    await api.save("order", {**ORDER, "schema": schema})
    error = await api.refusal(variables={"order": {"id": "x"}, "name": "Ada"})
    assert error["field"] == "variables.order.id"
    await api.submit()
    wrong = {**ORDER, "schema": {"type": "nosuch"}}
    answer = await api.ask("POST", "/v1/templates/order/versions", wrong)
    assert (answer.status, answer.body["errors"][0]["field"]) == (400, "schema.type")


async def test_a_template_is_seen_and_used_by_its_tenant_alone(database_url: str) -> None:
    async with open_keyed_api(database_url) as keyed:
        for tenant in (SHOP, BANK):
            await keyed.keys.put_tenant(tenant, note="", author=ADA)
        shop, bank = (
            Api(keyed.client, await keyed.key(SHOP)),
            Api(keyed.client, await keyed.key(BANK)),
        )
        tested = Api(keyed.client, await keyed.key(SHOP, mode=Mode.TEST))
        reader = Api(keyed.client, await keyed.key(SHOP, (KeyScope.READ,)))
        await shop.save("order", ORDER)
        for path in ("/v1/templates/order", "/v1/templates/order/versions/1"):
            assert (await shop.ask("GET", path)).status == 200
            assert (await tested.ask("GET", path)).status == 200
            assert (await bank.ask("GET", path)).status == 404
        assert (await bank.ask("GET", "/v1/templates")).body["items"] == []
        assert (await bank.refusal())["field"] == "template"
        assert (await bank.ask("POST", f"{NOTIFICATIONS}/preview", SUBMIT)).status == 400
        await shop.submit()
        assert (await bank.save("order", email_template(body="bank")))["version"] == 1
        assert (await shop.ask("GET", "/v1/templates/order")).body["versions"] == [1]
        for refused in (tested, reader):
            saved = await refused.ask("POST", "/v1/templates/order/versions", ORDER)
            assert saved.status == 403


async def test_versions_are_counted_for_each_tenant(database_url: str) -> None:
    async with open_templates(ConnectionSettings(url=database_url)) as templates:
        new = NewTemplate(name="order", channels=["email"], document=b"{}", compiled=b"{}")
        for tenant in (SHOP, BANK, DEFAULT_TENANT):
            saved = await templates.save(tenant, new, ADA)
            assert saved is not None
            assert (saved.summary.version, saved.is_new) == (1, True)
        refs = [TemplateRef("order", None), TemplateRef("order", 1)]
        found = [await templates.find(tenant, refs) for tenant in (SHOP, BANK)]
        ids = [of_tenant[refs[0]] for of_tenant in found]
        assert ids == [of_tenant[refs[1]] for of_tenant in found]
        assert ids[0] != ids[1]
        assert [each.name for each in await templates.templates(SHOP)] == ["order"]


BAD_TEXTS = {
    "an empty subject": {"subject": ""},
    "a subject of two lines": {"subject": "a\nb"},
    "a subject that is too long": {"subject": "a" * 999},
    "a text that is too long": {"subject": "S", "body": "a" * 262_145},
    "a syntax error": {"subject": "S", "body": "{% if %}"},
    "no text": {"subject": 7},
}


@pytest.mark.parametrize(
    "parts",
    [
        *({"subject": "S", "body": source} for source in HOSTILE.values()),
        *BAD_TEXTS.values(),
    ],
    ids=[*HOSTILE, *BAD_TEXTS],
)
async def test_a_hostile_row_fails_as_render_and_the_worker_goes_on(
    worker: Worker, connection: asyncpg.Connection[asyncpg.Record], parts: Json
) -> None:
    own = await store_template(connection, email_template(**parts))
    hostile, other = a_notification(content=encode_templated(own, {})), a_notification()
    await worker.accept(hostile, other)
    assert await worker.run_until_final(hostile) is Status.FAILED
    assert await worker.status(other) is Status.SENT
    view = await worker.view(hostile)
    assert view.result is not None
    assert view.result.reason == "render"
    assert (view.result.code or "").startswith("render_")
    assert "Ada" not in (view.result.detail or "")
    assert (view.tries, len(worker.provider.calls)) == (0, 1)
    assert len(worker.outcomes) == 1, "a breaker heard of it"
    assert worker.counted("failures", reason="render") == 1


@pytest.mark.parametrize(
    "content",
    [
        b'{"template":"x@1"}',
        b'{"template":"',
        b'{"template":"x@1","locale":"en","template_id":"no","variables":{}}',
        b'{"template":"x@1","locale":"en","template_id":"00000000-0000-0000-0000-000000000001","template_channel":"email"}',
        b'{"template":"x@1","locale":"en","template_id":"00000000-0000-0000-0000-000000000001","template_channel":"email","variables":7}',
        b'{"template":"x@1","locale":7,"template_id":null}',
        b'{"template":"' + b"[" * 100_000,
        b'{"template":"\xff"}',
    ],
    ids=str,
)
async def test_a_row_whose_content_names_no_template_fails_as_render(
    worker: Worker, content: bytes
) -> None:
    item = a_notification(content=content)
    await worker.accept(item)
    assert await worker.run_until_final(item) is Status.FAILED
    view = await worker.view(item)
    assert view.result is not None
    assert (view.result.reason, view.result.code) == ("render", "render_missing")


async def test_what_needs_a_little_more_time_than_at_its_check_is_sent(
    worker: Worker, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with open_renderer() as renderer:
        source = await first_refused(renderer)
    own = await store_template(connection, email_template(body=source))
    item = a_notification(content=encode_templated(own, {}))
    await worker.accept(item)
    assert await worker.run_until_final(item) is Status.SENT


async def first_refused(renderer: TemplateRenderer) -> str:
    """A template that takes up to 1.3 times as long as the check of a submit allows."""
    length = 100_000
    while True:
        source = f"{{{{ ([1] * {length})|length }}}}"
        parts = msgspec.json.encode({"body": source})
        if not isinstance(
            await renderer.render(RenderJob(DEFAULT_TENANT, parts, b"{}", 1000)), Mapping
        ):
            return source
        length = length * 13 // 10


@pytest.mark.parametrize("variables", [7, [], "x", None])
async def test_variables_that_are_no_object_fail_as_render(
    worker: Worker, connection: asyncpg.Connection[asyncpg.Record], variables: object
) -> None:
    own = await store_template(connection, email_template(body="{{ name }}"))
    encoded = msgspec.Raw(msgspec.json.encode(variables))
    content = encode_templated(msgspec.structs.replace(own, variables=encoded), {})
    item = a_notification(content=content)
    await worker.accept(item)
    assert await worker.run_until_final(item) is Status.FAILED


async def test_a_document_of_a_later_version_fails_as_render(
    worker: Worker, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    own = await store_template(connection, {"something": "else"})
    item = a_notification(content=encode_templated(own, {}))
    await worker.accept(item)
    assert await worker.run_until_final(item) is Status.FAILED


async def test_postgres_away_while_a_template_is_loaded_fails_nothing(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    own = await store_template(connection, email_template(body="Hello {{ name }}"))
    item = a_notification(content=encode_templated(own, {}), max_tries=1)
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(database_url) as worker,
        open_templates(ConnectionSettings(url=proxy.url(database_url))) as templates,
        open_renderer() as renderer,
    ):
        worker.attempts._contents = TemplateContents(
            versions=TemplateCache(templates), renderer=renderer, max_bytes=262_144
        )
        proxy.cut()
        [held] = await worker.hold(item)
        await worker.run(held.pointer)
        view = await worker.view(item)
        assert (view.status, view.tries) == (Status.RETRYING, 0)
        assert "template_unavailable" in (view.last_error or "")
        proxy.heal()
        assert await worker.run_until_final(item) is Status.SENT
        assert worker.provider.calls[0].content["body"] == "Hello Ada <ada>"


async def test_a_worker_that_stops_while_it_renders_gives_the_row_back(
    worker: Worker, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    class Endless:
        async def render(self, _: object) -> Any:
            await asyncio.Event().wait()

    own = await store_template(connection, email_template(body="x"))
    worker.attempts._contents = Endless()
    held, row = await worker.claim_one(a_notification(content=encode_templated(own, {})))
    async with asyncio.TaskGroup() as group:
        attempt = group.create_task(worker.attempts.attempt(row))
        await asyncio.sleep(0)
        attempt.cancel()
    assert await worker.attempts.release_orphans() == 1
    assert await worker.status(held.pointer) is Status.QUEUED
    assert worker.provider.calls == []


class Hanging:
    """A store and a renderer of templates that answer nothing."""

    async def find(self, *_: object, **__: object) -> Any:
        await asyncio.Event().wait()

    save = render = compile = find


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (NOTIFICATIONS, SUBMIT),
        (f"{NOTIFICATIONS}/batch", {"notifications": [SUBMIT]}),
        (f"{NOTIFICATIONS}/preview", SUBMIT),
        ("/v1/templates/order/versions", {**ORDER, "default_locale": "de"}),
    ],
)
async def test_a_missed_deadline_names_its_cause(
    path: str, body: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    async with open_client(make_api(store)) as client:
        await Api(client).save("order", ORDER)
    rules = make_rules(request_deadline_s=0.05)
    async with open_client(make_api(store, rules, renderer=Hanging())) as client:
        late = await Api(client).ask("POST", path, body)
    assert (late.status, late.body["type"].rpartition(":")[2]) == (503, "overloaded")
    assert late.headers["Retry-After"] == "1"
    assert "renderer" in late.body["detail"]
    for name in ("find", "save"):
        monkeypatch.setattr(store.templates, name, getattr(Hanging(), name))
    async with open_client(make_api(store, rules)) as client:
        late = await Api(client).ask("POST", path, body)
    assert (late.status, late.body["type"].rpartition(":")[2]) == (503, "store-unavailable")


async def test_a_version_is_read_once(database_url: str) -> None:
    settings = ConnectionSettings(url=database_url)
    async with open_api(database_url) as api, open_templates(settings) as templates:
        await api.save("order", ORDER)
        order = TemplateRef("order", None)
        newest = (await templates.find(DEFAULT_TENANT, [order]))[order]
        reads: list[UUID] = []

        class Counting:
            async def load(self, id: UUID) -> object:  # noqa: A002 the port's name
                reads.append(id)
                return await templates.load(id)

        cache = TemplateCache(Counting(), max_bytes=1)  # type: ignore[arg-type] # reads only
        first = await cache.get(newest)
        assert first is not None
        assert await cache.get(first.id) is first
        assert reads == [first.id]
        await api.save("order", email_template(body="x"))
        second = (await templates.find(DEFAULT_TENANT, [order]))[order]
        await cache.get(second)
        await cache.get(first.id)
        assert reads == [first.id, second, first.id], "the bound holds one version"
