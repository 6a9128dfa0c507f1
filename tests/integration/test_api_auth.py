"""What each route asks of a request: the route table, walked with every kind of wrong key."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
import pytest
from litestar import Litestar
from yarl import URL

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.key_rates import open_key_rates
from notifier.adapters.postgres.keys import PostgresKeys, open_keys
from notifier.api.auth.access import Access, AccessKind
from notifier.api.auth.gate import KeyAuth
from notifier.api.auth.keyring import Keyring
from notifier.api.auth.rates import KeyRates
from notifier.api.auth.sessions import COOKIE, Sessions
from notifier.api.routes.route import Route
from notifier.api.routes.table import ROUTES
from notifier.api.rules import AddressKind, ApiRules, ChannelRules
from notifier.domain.credentials import ENTROPY_BYTES, Credential, Mode, new_credential
from notifier.domain.keys import Key, KeyScope, NewKey, granted
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.lifecycle import background_task
from notifier.ports.keys import Author
from notifier.ports.queries import View
from tests.memory_failure_groups import MemoryFailureGroups
from tests.stored_templates import email_template
from tests.unit.fakes_api import (
    DEFAULT_RULES,
    MemoryStore,
    make_api,
    make_rules,
    open_client,
    submit_body,
)

SHOP, BANK = TenantId("shop"), TenantId("bank")
ADA: Final = Author(actor="cli:ada@desk")
SUBMIT, READ, OPERATE, ADMIN = KeyScope
KEYED: Final = [route for route in ROUTES if route.access.kind is AccessKind.KEY]
OF_ONE: Final = [
    route
    for route in KEYED
    if route.id
    in {
        "getNotification",
        "explainNotification",
        "cancelNotification",
        "retryNotification",
        "getOperation",
        "stopOperation",
        "revokeKey",
        "deleteSuppression",
        "getSchedule",
        "replaceSchedule",
        "deleteSchedule",
        "getWebhook",
        "changeWebhook",
        "deleteWebhook",
        "rotateWebhook",
        "testWebhook",
    }
]
(CANCEL,) = (route for route in ROUTES if route.id == "cancelNotification")
SUBMITS: Final = {"submit", "submitBatch"}
ALL: Final = tuple(KeyScope)
NOTIFICATIONS: Final = "/v1/notifications"
SUPPRESSIONS: Final = "/v1/suppressions"
OPERATIONS: Final = "/v1/operations"
TEMPLATES: Final = "/v1/templates"
SCHEDULES: Final = "/v1/schedules"
WEBHOOKS: Final = "/v1/webhooks"
SCHEDULE: Final = {"cron": "0 9 * * *", "time_zone": "UTC", "notification": submit_body()}
BODIES: Final[Mapping[str, object]] = {
    "replaceSchedule": SCHEDULE,
    "changeWebhook": {"note": "x"},
}
"""The bodies of requests to routes of one thing, which need one."""


@dataclass(frozen=True, kw_only=True)
class Api:
    """An API with keys in Postgres and notifications in memory."""

    client: aiohttp.ClientSession
    keys: PostgresKeys
    keyring: Keyring
    store: MemoryStore
    groups: MemoryFailureGroups
    app: Litestar

    async def key(
        self,
        tenant: TenantId | None = None,
        scopes: tuple[KeyScope, ...] = ALL,
        *,
        mode: Mode = Mode.LIVE,
        rate_per_s: float | None = None,
        expires_at: datetime | None = None,
    ) -> Credential:
        credential = new_credential(mode, os.urandom(ENTROPY_BYTES))
        new = NewKey(
            tenant=tenant,
            mode=mode,
            scopes=scopes,
            rate_per_s=rate_per_s,
            expires_at=expires_at,
        )
        assert isinstance(await self.keys.create(new, credential, ADA), Key)
        return credential

    async def status(
        self, route: Route, key: str | Credential | None, /, **path: str
    ) -> tuple[int, str]:
        """Status and slug of the answer to a request, which has a body only where one is needed."""
        text = key.text if isinstance(key, Credential) else key
        headers = {} if text is None else {"Authorization": f"Bearer {text}"}
        address = address_of(route, path)
        body = BODIES.get(route.id)
        async with self.client.request(
            route.method, address, headers=headers, json=body
        ) as response:
            document = await response.json() if response.content_length else {}
            return response.status, str(document.get("type", "")).rpartition(":")[2]

    async def answer(self, route: Route, key: Credential, /, **path: str) -> object:
        """Status and document of the answer, without the id of the request."""
        address = address_of(route, path)
        async with self.client.request(
            route.method,
            address,
            headers=bearer(key) | {"Request-Id": "same"},
            json=BODIES.get(route.id),
        ) as response:
            return response.status, await response.json()

    async def get(self, path: str, key: Credential) -> tuple[int, Any]:
        async with self.client.get(path, headers=bearer(key)) as response:
            return response.status, await response.json()

    async def submit(self, key: Credential, **changes: object) -> tuple[int, Any]:
        body = submit_body(**changes)
        async with self.client.post(NOTIFICATIONS, json=body, headers=bearer(key)) as response:
            return response.status, await response.json()

    async def operate(self, key: Credential) -> str:
        body = {"kind": "cancel", "filter": {"status": "queued"}, "note": "wrong price"}
        async with self.client.post(OPERATIONS, json=body, headers=bearer(key)) as response:
            id_: str = (await response.json())["id"]
            return id_

    async def schedule(self, key: Credential) -> str:
        async with self.client.post(SCHEDULES, json=SCHEDULE, headers=bearer(key)) as response:
            id_: str = (await response.json())["id"]
            return id_

    async def webhook(self, key: Credential) -> str:
        body = {"url": "https://shop.example.com/hooks"}
        async with self.client.post(WEBHOOKS, json=body, headers=bearer(key)) as response:
            id_: str = (await response.json())["id"]
            return id_

    async def suppress(self, key: Credential) -> str:
        body = {"channel": "email", "recipient": "ada@example.com"}
        async with self.client.post(SUPPRESSIONS, json=body, headers=bearer(key)) as response:
            id_: str = (await response.json())["id"]
            return id_


UNKNOWN: Final = {
    "id": "0192f0c1-0000-7000-8000-000000000000",
    "key": "000000000000",
    "suppression": "0192f0c1-0000-7000-8000-000000000000",
    "provider": "nobody",
    "operation": "0192f0c1-0000-7000-8000-000000000000",
    "schedule": "0192f0c1-0000-7000-8000-000000000000",
    "webhook": "0192f0c1-0000-7000-8000-000000000000",
    "token": "unknown",
    "user": "ada",
    "kind": "channel",
    "name": "email",
    "tenant": "nobody",
    "template": "nothing",
    "version": "1",
}


def address_of(route: Route, path: Mapping[str, str]) -> str:
    """The address of a route; `of` is the tenant that the query names."""
    address = route.openapi_path.format(**{**UNKNOWN, **path})
    return f"{address}?tenant={path['of']}" if "of" in path else address


def bearer(key: Credential) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with open_api(database_url) as api:
        await api.keys.put_tenant(SHOP, note="", author=ADA)
        await api.keys.put_tenant(BANK, note="", author=ADA)
        yield api


@asynccontextmanager
async def open_api(url: str, rules: ApiRules = DEFAULT_RULES) -> AsyncIterator[Api]:
    settings = ConnectionSettings(url=url, statement_timeout_s=2.0)
    async with open_keys(settings) as keys, open_key_rates(settings) as rate_store:
        keyring, rates = Keyring(keys), KeyRates(rate_store, deadline_s=5.0)
        auth = KeyAuth(keyring=keyring, rates=rates, sessions=Sessions(keys, session_s=600.0))
        store, groups = MemoryStore(), MemoryFailureGroups()
        app = make_api(store, rules, access=keys, auth=auth, failure_groups=groups)
        async with (
            background_task(keyring, "keys"),
            background_task(rates, "key rates"),
            open_client(app) as client,
        ):
            yield Api(
                client=client, keys=keys, keyring=keyring, store=store, groups=groups, app=app
            )


async def test_every_served_route_is_in_the_table_and_says_what_it_asks(api: Api) -> None:
    served = {
        (method, route.path_format)
        for route in api.app.routes
        for method in getattr(route, "methods", ())
        if method not in {"OPTIONS", "HEAD"}
    }
    assert served == {(route.method.upper(), route.openapi_path) for route in ROUTES}
    public = {route.id for route in ROUTES if route.access.kind is AccessKind.PUBLIC}
    assert not {route.id for route in ROUTES if "/v1/" in route.path} & public - {
        "createSession",
        "deleteSession",
        "readUnsubscribe",
        "unsubscribe",
    }


@pytest.mark.parametrize("route", KEYED, ids=lambda route: route.id)
async def test_a_route_refuses_what_is_no_valid_key(api: Api, route: Route) -> None:
    assert await api.status(route, None) == (401, "key-missing")
    unknown = new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES))
    good, revoked = await api.key(), await api.key()
    expired = await api.key(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await api.keys.revoke(revoked.id, ADA, tenant=None)
    await api.keyring.read()
    wrong: list[str | Credential] = [
        unknown,
        revoked,
        expired,
        replace(good, secret=unknown.secret),
        replace(good, mode=Mode.TEST),
        "",
        good.text[:-1],
        good.text + "0",
        "x" * 5000,
        "Basic abc",
    ]
    for key in wrong:
        assert await api.status(route, key) == (401, "key-invalid"), key
    status, slug = await api.status(route, good)
    assert (status, slug) not in {(401, slug), (403, slug)}


@pytest.mark.parametrize("route", KEYED, ids=lambda route: route.id)
async def test_a_route_refuses_a_key_without_its_scope_or_of_a_tenant(
    api: Api, route: Route
) -> None:
    access = route.access
    for scopes in ((SUBMIT,), (READ,), (OPERATE,), (ADMIN,)):
        key = await api.key(scopes=scopes)
        status, slug = await api.status(route, key)
        assert (status == 403) is not may(access, scopes), (scopes, status, slug)
        assert slug == "scope-missing" or status != 403
    of_tenant = await api.key(SHOP)
    status, _ = await api.status(route, of_tenant)
    assert (status == 403) is access.for_deployment


@pytest.mark.parametrize("route", KEYED, ids=lambda route: route.id)
async def test_a_route_that_shows_or_changes_what_is_live_refuses_a_test_key(
    api: Api, route: Route
) -> None:
    status, slug = await api.status(route, await api.key(mode=Mode.TEST))
    assert (status, slug) not in {(401, slug), (500, slug)}
    assert (status == 403) is (route.access.is_live or route.id in SUBMITS)


@pytest.mark.parametrize("route", OF_ONE, ids=lambda route: route.id)
async def test_an_id_of_another_tenant_or_mode_is_answered_as_an_unknown_one(
    api: Api, route: Route
) -> None:
    owner = await api.key(SHOP)
    _, accepted = await api.submit(owner)
    place = {
        "id": accepted["id"],
        "key": owner.id,
        "suppression": await api.suppress(owner),
        "operation": await api.operate(owner),
        "schedule": await api.schedule(owner),
        "webhook": await api.webhook(owner),
    }
    if route.id == "retryNotification":
        assert await api.status(CANCEL, owner, id=accepted["id"]) == (200, "")
    tested, deployment = await api.key(SHOP, mode=Mode.TEST), await api.key(mode=Mode.TEST)
    named = {"of": "shop"} if "tenant" in route.query_parameters else {}
    for stranger, of in ((await api.key(BANK), {}), (tested, {}), (deployment, named)):
        unknown = await api.answer(route, stranger, **of)
        assert await api.answer(route, stranger, **place, **of) == unknown
        assert (await api.status(route, stranger, **place, **of)) == (404, "not-found")
    status, _ = await api.status(route, owner, **place)
    assert status in {200, 202, 204}


def test_the_routes_of_one_thing_of_a_tenant_are_known() -> None:
    """A new route of one thing must be walked above: what its id names has to be made there."""
    of_one = {route.id for route in KEYED if "{" in route.path and not route.access.for_deployment}
    # A template belongs to a tenant and to no mode: see test_templates.py.
    of_templates = {route.id for route in KEYED if "{template}" in route.openapi_path}
    # Every user has an inbox, empty or not: see test_api_inbox.py.
    of_users = {route.id for route in KEYED if "{user}" in route.openapi_path}
    assert of_one == {route.id for route in OF_ONE} | of_templates | of_users


def may(access: Access, scopes: tuple[KeyScope, ...]) -> bool:
    return not access.scopes or not granted(scopes).isdisjoint(access.scopes)


async def test_a_notification_is_seen_by_its_tenant_and_the_deployment_alone(api: Api) -> None:
    shop, bank, deployment = await api.key(SHOP), await api.key(BANK), await api.key()
    tested = await api.key(SHOP, mode=Mode.TEST)
    _, accepted = await api.submit(shop)
    path = f"{NOTIFICATIONS}/{accepted['id']}"
    status, document = await api.get(path, shop)
    assert (status, document["tenant"], document["mode"]) == (200, "shop", "live")
    for stranger in (bank, tested):
        status, problem = await api.get(path, stranger)
        assert (status, problem["type"]) == (404, "urn:notifier:problem:not-found")
        unknown = await api.get(f"{NOTIFICATIONS}/{UNKNOWN['id']}", stranger)
        assert problem["detail"] == unknown[1]["detail"]
        for listed in (NOTIFICATIONS, "/v1/failures"):
            assert (await api.get(listed, stranger))[1]["items"] == []
    for owner in (shop, deployment):
        assert (await api.get(path, owner))[0] == 200
        assert len((await api.get(NOTIFICATIONS, owner))[1]["items"]) == 1


async def test_failures_are_grouped_for_the_tenant_and_the_mode_of_the_key(api: Api) -> None:
    shop, deployment = await api.key(SHOP), await api.key()
    tested = await api.key(SHOP, mode=Mode.TEST)
    path = "/v1/failures/groups"
    for key, query in ((shop, ""), (tested, ""), (deployment, ""), (deployment, "?tenant=bank")):
        assert (await api.get(path + query, key))[0] == 200
    assert [asked.view for asked in api.groups.asked] == [
        View(SHOP),
        View(SHOP, Mode.TEST),
        View(),
        View(BANK),
    ]
    for query in ("?tenant=bank", "?mode=test"):
        assert (await api.get(path + query, shop))[0] == 400


async def test_a_deployment_key_lists_one_tenant_and_a_tenant_none_but_itself(api: Api) -> None:
    shop, deployment = await api.key(SHOP), await api.key()
    for key in (shop, deployment):
        await api.submit(key)
    for name in ("shop", "default", "bank"):
        path = f"{NOTIFICATIONS}?tenant={name}"
        _, page = await api.get(path, deployment)
        expected = [] if name == "bank" else [name]
        assert [item["tenant"] for item in page["items"]] == expected
        assert (await api.get(path, shop))[0] == (200 if name == "shop" else 400)
    status, problem = await api.get(f"{NOTIFICATIONS}?tenant=No", deployment)
    assert (status, problem["errors"][0]["field"]) == (400, "?tenant")


async def test_a_key_lists_the_notifications_of_its_own_mode_alone(api: Api) -> None:
    live = await api.key()
    await api.submit(live)
    for key in (live, await api.key(SHOP), await api.key(mode=Mode.TEST)):
        for mode in Mode:
            status, answer = await api.get(f"{NOTIFICATIONS}?mode={mode}", key)
            if mode is key.mode:
                assert (status, len(answer["items"])) == (200, int(key is live))
            else:
                assert (status, answer["errors"][0]["field"]) == (400, "?mode")


@pytest.mark.parametrize("path", ["//v1/queues", "/v1/queues/", "/v1/%71ueues"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_no_spelling_of_a_path_and_no_head_request_gets_around_the_key(
    api: Api, path: str, method: str
) -> None:
    url = URL(str(api.client._base_url).rstrip("/") + path, encoded=True)
    async with api.client.request(method, url) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    "header",
    ["Basic {}", "{}", "Bearer {} {}", "Bearer {},{}", "Bearer", "Token {}", "Bearer	{}"],
)
async def test_a_key_in_another_form_is_no_key(api: Api, header: str) -> None:
    key = await api.key()
    headers = {"Authorization": header.format(key.text, key.text)}
    async with api.client.get("/v1/session", headers=headers) as response:
        assert response.status == 401
    for good in (f"bearer {key.text}", f"Bearer  {key.text} "):
        async with api.client.get("/v1/session", headers={"Authorization": good}) as response:
            assert response.status == 200


async def test_only_a_deployment_key_names_the_tenant_of_a_submit(api: Api) -> None:
    shop, deployment = await api.key(SHOP), await api.key()
    status, problem = await api.submit(shop, tenant="bank")
    assert (status, problem["errors"][0]["field"]) == (400, "tenant")
    for wrong in ("Bank", "nobody"):
        status, problem = await api.submit(deployment, tenant=wrong)
        assert (status, problem["errors"][0]["field"]) == (400, "tenant")
    assert (await api.submit(deployment, tenant="bank"))[0] == 202
    assert (await api.submit(deployment))[0] == 202
    assert [item.tenant for item in api.store.new.values()] == [BANK, DEFAULT_TENANT]
    path = f"{NOTIFICATIONS}/batch"
    for key, tenant in ((shop, "shop"), (deployment, "nobody")):
        body = {"notifications": [submit_body(), submit_body(tenant=tenant)]}
        async with api.client.post(path, json=body, headers=bearer(key)) as response:
            results = (await response.json())["results"]
        assert ["problem" in result for result in results] == [False, True]
    assert [item.tenant for item in api.store.new.values()][2:] == [SHOP, DEFAULT_TENANT]


NAMING: Final = [
    ("GET", SUPPRESSIONS, None),
    ("POST", SUPPRESSIONS, {"channel": "email", "recipient": "ada@example.com"}),
    ("DELETE", f"{SUPPRESSIONS}/{UNKNOWN['suppression']}", None),
    ("GET", SCHEDULES, None),
    ("GET", f"{SCHEDULES}/{UNKNOWN['schedule']}", None),
    ("DELETE", f"{SCHEDULES}/{UNKNOWN['schedule']}", None),
    ("GET", TEMPLATES, None),
    ("GET", f"{TEMPLATES}/order", None),
    ("GET", f"{TEMPLATES}/order/versions/1", None),
    ("POST", f"{TEMPLATES}/order/versions", email_template(body="Hello")),
]
"""Requests about what a tenant keeps."""


@pytest.mark.parametrize(("method", "path", "body"), NAMING, ids=str)
async def test_a_deployment_key_names_the_tenant_whose_things_it_reads_or_changes(
    api: Api, method: str, path: str, body: dict[str, object] | None
) -> None:
    async def ask(key: Credential, tenant: str | None) -> tuple[int, str | None]:
        in_query = {"tenant": tenant} if tenant and body is None else {}
        sent = body if body is None or tenant is None else {**body, "tenant": tenant}
        async with api.client.request(
            method, path, json=sent, headers=bearer(key), params=in_query
        ) as response:
            document = await response.json() if response.content_length else {}
            return response.status, document.get("errors", [{"field": None}])[0]["field"]

    shop, deployment = await api.key(SHOP), await api.key()
    field = "tenant" if body else "?tenant"
    for key, tenant in (
        (deployment, None),
        (deployment, "nobody"),
        (deployment, "No"),
        (shop, "bank"),
        (shop, "default"),
    ):
        assert await ask(key, tenant) == (400, field), tenant
    first = await ask(deployment, "shop")
    assert first[0] in {200, 201, 404}
    again = (200, None) if body else first
    for key, tenant in ((deployment, "shop"), (shop, "shop"), (shop, None)):
        assert await ask(key, tenant) == again
    other = await ask(deployment, "default")
    assert other == first


async def test_what_a_deployment_key_stores_for_a_tenant_is_of_that_tenant_alone(api: Api) -> None:
    shop, bank, deployment = await api.key(SHOP), await api.key(BANK), await api.key()
    rows = b"channel,recipient\nemail,ada@example.com\n"
    headers = bearer(deployment) | {"Content-Type": "text/csv"}
    async with api.client.post(f"{SUPPRESSIONS}?tenant=shop", data=rows, headers=headers) as done:
        assert (await done.json())["added"] == 1
    async with api.client.post(SUPPRESSIONS, data=rows, headers=headers) as refused:
        assert refused.status == 400
    body = {"channel": "email", "recipient": "eve@example.com", "tenant": "bank"}
    path = f"{SUPPRESSIONS}?tenant=shop"
    async with api.client.post(path, json=body, headers=bearer(deployment)) as refused:
        assert (await refused.json())["errors"][0]["field"] == "tenant"
    document = {**email_template(body="Hello"), "tenant": "shop"}
    path = f"{TEMPLATES}/order/versions"
    async with api.client.post(path, json=document, headers=bearer(deployment)) as saved:
        location = saved.headers["Location"]
    assert (await api.get(location, deployment))[1] == email_template(body="Hello")
    for listed in (SUPPRESSIONS, TEMPLATES):
        assert len((await api.get(listed, shop))[1]["items"]) == 1
        assert (await api.get(listed, bank))[1]["items"] == []
        assert len((await api.get(f"{listed}?tenant=shop", deployment))[1]["items"]) == 1
        assert (await api.get(f"{listed}?tenant=default", deployment))[1]["items"] == []


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/tenants", f"{TEMPLATES}?tenant=shop"])
async def test_long_lists_have_pages_each_row_on_one(api: Api, path: str) -> None:
    deployment = await api.key()
    for name in ("a", "b", "c"):
        await api.key(SHOP)
        await api.keys.put_tenant(TenantId(f"tenant-{name}"), note="", author=ADA)
        document = {**email_template(body="Hello"), "tenant": "shop"}
        saving = f"{TEMPLATES}/{name}/versions"
        async with api.client.post(saving, json=document, headers=bearer(deployment)) as saved:
            assert saved.status == 201
    _, whole = await api.get(path, deployment)
    assert (len(whole["items"]) > 2, whole["next_cursor"]) == (True, None)
    paged = f"{path}{'&' if '?' in path else '?'}limit=2"
    _, page = await api.get(paged, deployment)
    rows, cursor = page["items"], page["next_cursor"]
    assert len(rows) == 2
    while cursor:
        _, page = await api.get(f"{paged}&cursor={cursor}", deployment)
        rows, cursor = rows + page["items"], page["next_cursor"]
    assert rows == whole["items"]
    for wrong in ("x", "", "%C3%A9", "AAAAAAAAAAAAAAAA"):
        status, problem = await api.get(f"{paged}&cursor={wrong}", deployment)
        assert (status, problem["errors"][0]["field"]) == (400, "?cursor")


async def test_a_cursor_is_of_the_list_of_one_tenant(api: Api) -> None:
    deployment = await api.key()
    for name in ("a", "b"):
        document = {**email_template(body="Hello"), "tenant": "shop"}
        path = f"{TEMPLATES}/{name}/versions"
        async with api.client.post(path, json=document, headers=bearer(deployment)) as saved:
            assert saved.status == 201
    _, page = await api.get(f"{TEMPLATES}?tenant=shop&limit=1", deployment)
    for other in (f"{TEMPLATES}?tenant=bank", "/v1/tenants?limit=1", f"{NOTIFICATIONS}?limit=1"):
        status, _ = await api.get(f"{other}&cursor={page['next_cursor']}", deployment)
        assert status == 400


async def test_a_tenant_that_was_just_made_elsewhere_is_known_at_its_first_use(api: Api) -> None:
    deployment = await api.key()
    for number in range(3):
        name = f"new-{number}"
        await api.keys.put_tenant(TenantId(name), note="", author=ADA)
        assert (await api.submit(deployment, tenant=name))[0] == 202


async def test_nothing_is_submitted_with_a_test_key_where_the_settings_have_no_place_for_it(
    api: Api,
) -> None:
    tested = await api.key(SHOP, mode=Mode.TEST)
    assert (await api.submit(tested))[0] == 403
    body, path = {"notifications": [submit_body()]}, f"{NOTIFICATIONS}/batch"
    async with api.client.post(path, json=body, headers=bearer(tested)) as response:
        assert response.status == 403
    assert not api.store.new


async def test_what_a_test_key_submits_goes_to_the_channel_for_tests(database_url: str) -> None:
    rules = make_rules(
        channels={**DEFAULT_RULES.channels, "test": ChannelRules(address=AddressKind.TOKEN)},
        test_channel="test",
    )
    async with open_api(database_url, rules) as api:
        await api.keys.put_tenant(SHOP, note="", author=ADA)
        live, tested = await api.key(SHOP), await api.key(SHOP, mode=Mode.TEST)
        status, accepted = await api.submit(tested)
        assert (status, accepted["queue"]) == (202, "test.high")
        (new,) = api.store.new.values()
        assert (str(new.queue), new.test_channel, new.tenant) == ("test.high", "email", SHOP)
        _, document = await api.get(f"{NOTIFICATIONS}/{accepted['id']}", tested)
        assert (document["mode"], document["channel"]) == ("test", "email")
        assert (document["queue"], document["tenant"]) == ("test.high", "shop")
        for path, count in ((NOTIFICATIONS, 1), (f"{NOTIFICATIONS}?channel=sms", 0)):
            assert len((await api.get(path, tested))[1]["items"]) == count
        assert (await api.get(NOTIFICATIONS, live))[1]["items"] == []
        for key in (live, tested):
            status, problem = await api.submit(key, channel="test")
            assert (status, problem["errors"][0]["field"]) == (400, "channel")
        for key in (live, tested):
            assert (await api.submit(key, idempotency_key="order-17"))[0] == 202
        assert len({item.key.digest for item in api.store.new.values() if item.key}) == 2


async def test_content_needs_the_scope_operate(api: Api) -> None:
    reader, operator = await api.key(scopes=(READ,)), await api.key(scopes=(OPERATE,))
    _, accepted = await api.submit(await api.key())
    path = f"{NOTIFICATIONS}/{accepted['id']}?include=content"
    assert (await api.get(path, reader))[0] == 403
    assert (await api.get(path, operator))[1]["content"]["body"] == "123456"


async def test_an_erasure_needs_the_scope_admin(api: Api) -> None:
    erasure = {"kind": "erase", "filter": {"recipient": "a@example.com"}, "note": "asked"}
    for scopes, expected in (((OPERATE,), (403, "scope-missing")), ((ADMIN,), (202, ""))):
        key = await api.key(SHOP, scopes)
        headers = {"Authorization": f"Bearer {key.text}"}
        async with api.client.post("/v1/operations", json=erasure, headers=headers) as response:
            slug = str((await response.json()).get("type", "")).rpartition(":")[2]
        assert (response.status, slug) == expected


async def test_a_key_is_made_used_and_revoked_over_the_api(api: Api) -> None:
    admin = await api.key(SHOP, (ADMIN,))
    body = {"scopes": ["submit"], "note": "web shop", "rate_per_s": 5}
    async with api.client.post("/v1/keys", json=body, headers=bearer(admin)) as response:
        made = await response.json()
        assert response.status == 201
    assert (made["tenant"], made["rate_per_s"]) == ("shop", 5)
    async with api.client.post(
        NOTIFICATIONS, json=submit_body(), headers={"Authorization": f"Bearer {made['secret']}"}
    ) as response:
        assert response.status == 202
    listed = (await api.get("/v1/keys", admin))[1]["items"]
    assert [key["id"] for key in listed] == [admin.id, made["id"]]
    assert all("secret" not in key for key in listed)
    bank = await api.key(BANK, (ADMIN,))
    path = f"/v1/keys/{made['id']}"
    for key, status in ((bank, 404), (admin, 204), (admin, 404)):
        async with api.client.delete(path, headers=bearer(key)) as response:
            assert response.status == status
    async with api.client.post(
        NOTIFICATIONS, json=submit_body(), headers={"Authorization": f"Bearer {made['secret']}"}
    ) as response:
        assert response.status == 401
    entries = (await api.get("/v1/audit", admin))[1]["items"]
    assert [(entry["action"], entry["target"]) for entry in entries][:2] == [
        ("key.revoked", f"key:{made['id']}"),
        ("key.created", f"key:{made['id']}"),
    ]
    assert entries[0]["actor"] == f"key:{admin.id}"
    assert entries[0]["request_id"]
    assert (await api.get("/v1/audit", bank))[1]["items"][0]["target"] == f"key:{bank.id}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["dance"]}, "scopes.0"),
        ({"scopes": ["read"], "tenant": "bank"}, "tenant"),
        ({"scopes": ["read"], "tenant": "shop\n"}, "tenant"),
        ({"scopes": ["read"], "rate_per_s": 0}, "rate_per_s"),
        ({"scopes": ["read"], "rate_per_s": 1e-300}, "rate_per_s"),
        ({"scopes": ["read"], "rate_per_s": 5e-324}, "rate_per_s"),
        ({"scopes": ["read"], "note": "a\nb"}, "note"),
        ({"scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"scopes": ["read"], "expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"scopes": ["read"], "expires_at": "9999-12-31T23:59:59.999999Z"}, "expires_at"),
    ],
)
async def test_a_wrong_field_of_a_key_is_named(
    api: Api, body: dict[str, object], field: str
) -> None:
    admin = await api.key(SHOP, (ADMIN,))
    async with api.client.post("/v1/keys", json=body, headers=bearer(admin)) as response:
        problem = await response.json()
    assert (response.status, problem["errors"][0]["field"].replace("[0]", ".0")) == (400, field)


async def test_a_key_with_a_rate_makes_no_key_with_a_higher_one(api: Api) -> None:
    limited, free = await api.key(SHOP, rate_per_s=50.0), await api.key(SHOP)
    for maker, asked, got in (
        (limited, None, 50.0),
        (limited, 50.0, 50.0),
        (limited, 0.5, 0.5),
        (limited, 50.1, None),
        (free, None, None),
        (free, 1000.0, 1000.0),
    ):
        body = {"scopes": ["submit"], "rate_per_s": asked}
        async with api.client.post("/v1/keys", json=body, headers=bearer(maker)) as response:
            made = await response.json()
        if response.status == 400:
            assert (asked, made["errors"][0]["field"]) == (50.1, "rate_per_s")
        else:
            assert (response.status, made["rate_per_s"]) == (201, got)


async def test_a_test_key_makes_and_sees_only_test_keys(api: Api) -> None:
    live, tested = await api.key(SHOP), await api.key(SHOP, mode=Mode.TEST)
    body = {"scopes": ["read"]}
    async with api.client.post("/v1/keys", json=body, headers=bearer(tested)) as response:
        assert response.status == 400
    assert [key["id"] for key in (await api.get("/v1/keys", tested))[1]["items"]] == [tested.id]
    async with api.client.delete(f"/v1/keys/{live.id}", headers=bearer(tested)) as response:
        assert response.status == 404


async def test_tenants_are_managed_with_a_deployment_key(api: Api) -> None:
    admin = await api.key()
    headers = bearer(admin)
    async with api.client.put("/v1/tenants/cafe", json={"note": "x"}, headers=headers) as response:
        assert (response.status, (await response.json())["note"]) == (200, "x")
    names = [tenant["name"] for tenant in (await api.get("/v1/tenants", admin))[1]["items"]]
    assert names == ["bank", "cafe", "default", "shop"]
    assert (await api.get("/v1/tenants/cafe", admin))[0] == 200
    await api.key(SHOP)
    statuses = {"cafe": 204, "none": 404, "shop": 409, "default": 400, "No": 400}
    for name, status in statuses.items():
        async with api.client.delete(f"/v1/tenants/{name}", headers=headers) as response:
            assert response.status == status, name
    async with api.client.put("/v1/tenants/cafe", json={}, headers=headers) as response:
        problem = await response.json()
    assert (response.status, problem["type"]) == (409, "urn:notifier:problem:name-taken")


async def test_a_from_is_one_of_the_senders_of_the_tenant_and_without_one_their_first(
    api: Api,
) -> None:
    deployment = await api.key()
    for name, senders, default in (
        ("cafe", ["Cafe <hi@cafe.example>", "cafe.test"], "Cafe <hi@cafe.example>"),
        ("bar", [], None),
    ):
        async with api.client.put(
            f"/v1/tenants/{name}", json={"senders": senders}, headers=bearer(deployment)
        ) as response:
            assert (response.status, (await response.json())["senders"]) == (200, senders)
        key = await api.key(TenantId(name))
        for sender, is_allowed in (
            ("CEO <ceo@bank.example>", False),
            ("Other <HI@Cafe.Example>", bool(senders)),
            ("any@cafe.test", bool(senders)),
            ("any@sub.cafe.test", False),
            (None, True),
        ):
            given = {"content": {"subject": "s", "body": "b", "from": sender}}
            for one, tenant in ((key, {}), (deployment, {"tenant": name})):
                status, problem = await api.submit(one, **given, **tenant)
                assert status == (202 if is_allowed else 400), sender
                if not is_allowed:
                    assert problem["errors"][0]["field"] == "content.from"
            body = {"notifications": [submit_body(**given)]}
            path = f"{NOTIFICATIONS}/batch"
            async with api.client.post(path, json=body, headers=bearer(key)) as response:
                assert response.status == (202 if is_allowed else 400), sender
            path, one_body = f"{NOTIFICATIONS}/preview", submit_body(**given)
            async with api.client.post(path, json=one_body, headers=bearer(key)) as response:
                assert response.status == (200 if is_allowed else 400), sender
                shown = await response.json()
            if sender is None:
                assert shown["from"] == default
        stored = list(api.store.new.values())[-1]
        assert msgspec.json.decode(stored.content).get("from") == default
    given = {"content": {"subject": "s", "body": "b", "from": "ceo@bank.example"}}
    assert (await api.submit(deployment, **given))[0] == 202


async def test_a_preview_names_a_tenant_that_does_not_exist(api: Api) -> None:
    body, headers = submit_body(tenant="nowhere"), bearer(await api.key())
    path = f"{NOTIFICATIONS}/preview"
    async with api.client.post(path, json=body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["errors"][0]["field"] == "tenant"


async def test_a_whole_mail_is_from_a_sender_of_its_tenant_all_of_them(api: Api) -> None:
    await api.keys.put_tenant(SHOP, note="", author=ADA, senders=["shop.example"])
    key = await api.key(SHOP)
    headers = bearer(key) | {"Content-Type": "message/rfc822"}
    for sender, expected in (
        ("a@shop.example", 202),
        ("a@shop.example, CEO <ceo@bank.example>", 400),
        ("ceo@bank.example", 400),
    ):
        data = f"From: {sender}\r\nSubject: s\r\n\r\nHi\r\n".encode()
        async with api.client.post("/v1/blobs", data=data, headers=headers) as response:
            blob = (await response.json())["id"]
        status, problem = await api.submit(key, content={"mime": blob})
        assert status == expected, sender
        if status == 400:
            assert problem["errors"][0]["field"] == "content.mime"


@pytest.mark.parametrize(
    "sender", ["a b@c.example", "-.example", "shop.", "far too long a name", ""]
)
async def test_a_tenant_is_refused_what_is_no_sender(api: Api, sender: str) -> None:
    body = {"senders": ["ok.example", sender]}
    headers = bearer(await api.key())
    async with api.client.put("/v1/tenants/cafe", json=body, headers=headers) as response:
        problem = await response.json()
    assert (response.status, problem["errors"][0]["field"]) == (400, "senders.1")


async def test_the_settings_of_a_tenant_are_stored_and_those_left_out_are_reset(api: Api) -> None:
    headers = bearer(await api.key())
    settings: dict[str, object] = {
        "note": "the shop",
        "senders": ["shop.example"],
        "locale": "de-AT",
        "topics": {"news": "Our news"},
        "rate_per_s": 50.0,
    }
    reset: dict[str, object] = {
        "note": None,
        "senders": [],
        "locale": None,
        "topics": {},
        "rate_per_s": None,
    }
    for body, expected in ((settings, settings), ({}, reset)):
        for name in ("shop", "default"):
            path = f"/v1/tenants/{name}"
            async with api.client.put(path, json=body, headers=headers) as response:
                stored = await response.json()
            assert {key: stored[key] for key in settings} == expected
            async with api.client.get(path, headers=headers) as response:
                assert await response.json() == stored


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"locale": "german!"}, "locale"),
        ({"topics": {"News": "x"}}, "topics"),
        ({"topics": {"news": ""}}, "topics"),
        ({"topics": {"news": "a\nb"}}, "topics.news"),
        ({"rate_per_s": 0}, "rate_per_s"),
        ({"rate_per_s": 1e9}, "rate_per_s"),
    ],
    ids=str,
)
async def test_a_wrong_setting_of_a_tenant_is_named(
    api: Api, body: dict[str, object], field: str
) -> None:
    headers = bearer(await api.key())
    async with api.client.put("/v1/tenants/shop", json=body, headers=headers) as response:
        problem = await response.json()
    assert (response.status, problem["errors"][0]["field"]) == (400, field)


async def test_a_tenant_is_paused_only_while_it_exists(api: Api) -> None:
    deployment = await api.key()
    headers = bearer(deployment)
    for name, status in (("shop", 200), ("default", 200), ("shpo", 404)):
        async with api.client.put(f"/v1/pauses/tenant/{name}", headers=headers) as response:
            assert response.status == status, name
    async with api.client.delete("/v1/pauses/tenant/shpo", headers=headers) as response:
        assert response.status == 404
    await api.keys.delete_tenant(SHOP, ADA)
    await api.keyring.read()
    _, page = await api.get("/v1/pauses", deployment)
    assert {item["name"]: item["matches"] for item in page["items"]} == {
        "shop": False,
        "default": True,
    }


async def test_the_rate_of_a_key_is_told_and_a_call_beyond_it_is_refused(api: Api) -> None:
    key = await api.key(rate_per_s=0.001)
    body = {"notifications": [submit_body()] * 3}
    path = f"{NOTIFICATIONS}/batch"
    async with api.client.get("/v1/queues", headers=bearer(key)) as response:
        assert response.status == 200
        assert response.headers["RateLimit-Policy"] == '"key";q=1;w=1000'
        assert response.headers["RateLimit"] == '"key";r=0;t=1000'
    async with api.client.post(path, json=body, headers=bearer(key)) as response:
        assert response.status == 429
        assert (await response.json())["type"].endswith(":rate-limited")
        assert 0 < int(response.headers["Retry-After"]) <= 1000
        assert "RateLimit" in response.headers
    assert not api.store.new
    batch_key = await api.key(rate_per_s=10.0)
    async with api.client.post(
        path, json={"notifications": [submit_body()] * 10}, headers=bearer(batch_key)
    ) as response:
        assert response.status == 202
    async with api.client.post(
        path, json={"notifications": [submit_body()] * 5}, headers=bearer(batch_key)
    ) as response:
        assert response.status == 429


async def test_submits_of_all_keys_of_a_tenant_share_its_rate(api: Api) -> None:
    await api.keys.put_tenant(SHOP, note="", author=ADA, rate_per_s=0.001)
    await api.keyring.read()
    one, other = await api.key(SHOP), await api.key(SHOP)
    bank, deployment = await api.key(BANK), await api.key()
    path = f"{NOTIFICATIONS}/batch"
    async with api.client.post(NOTIFICATIONS, json=submit_body(), headers=bearer(one)) as response:
        assert response.status == 202
        assert response.headers["RateLimit"] == '"tenant";r=0;t=1000'
    async with api.client.post(
        path, json={"notifications": [submit_body()]}, headers=bearer(other)
    ) as response:
        assert response.status == 429
        assert (await response.json())["type"].endswith(":rate-limited")
        assert 0 < int(response.headers["Retry-After"]) <= 1000
    assert (await api.submit(one))[0] == 429
    assert (await api.get(NOTIFICATIONS, one))[0] == 200
    assert (await api.submit(bank))[0] == 202
    assert (await api.submit(deployment, tenant="shop"))[0] == 202
    await api.keys.put_tenant(SHOP, note="", author=ADA)
    await api.keyring.read()
    assert (await api.submit(one))[0] == 202


async def test_a_key_above_its_own_rate_spends_nothing_of_its_tenant(api: Api) -> None:
    await api.keys.put_tenant(SHOP, note="", author=ADA, rate_per_s=3.0)
    await api.keyring.read()
    limited, other = await api.key(SHOP, rate_per_s=0.001), await api.key(SHOP)
    assert [(await api.submit(limited))[0] for _ in range(5)] == [202, 429, 429, 429, 429]
    assert (await api.submit(other))[0] == 202


@pytest.mark.parametrize("wrong", ["{", '{"notifications": []}', '{"notifications": 1}'])
async def test_a_batch_that_is_none_costs_a_call(api: Api, wrong: str) -> None:
    key = await api.key(rate_per_s=0.001)
    headers = bearer(key) | {"Content-Type": "application/json"}
    for status in (400, 429):
        async with api.client.post(f"{NOTIFICATIONS}/batch", data=wrong, headers=headers) as answer:
            assert answer.status == status


@pytest.mark.parametrize("name", ["Authorization", "Origin", "Cookie"])
async def test_a_header_that_says_who_calls_stands_there_once(api: Api, name: str) -> None:
    key = await api.key()
    values = [f"Bearer {key.text}", f"Bearer {(await api.key()).text}"]
    headers = [("Authorization", values[0]), *((name, value) for value in values)]
    async with api.client.get("/v1/session", headers=headers) as response:
        assert response.status == 400
    twice = [("Authorization", values[0])] * 2
    async with api.client.get("/v1/session", headers=twice) as response:
        assert response.status == 200


async def test_a_session_stands_for_its_key_until_that_is_revoked(api: Api) -> None:
    key = await api.key(SHOP, (READ,))
    origin = {"Origin": str(api.client._base_url).rstrip("/")}
    async with api.client.post("/v1/session", json={"key": "ntf_live_x"}) as response:
        assert (response.status, "Set-Cookie" in response.headers) == (401, False)
    async with api.client.post("/v1/session", json={"key": key.text}, headers=origin) as response:
        assert response.status == 201
        cookie = response.headers["Set-Cookie"]
    assert key.secret not in cookie
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    session = {"Cookie": cookie.partition(";")[0]}
    async with api.client.get("/v1/session", headers=session) as response:
        assert await response.json() == {
            "key": key.id,
            "tenant": "shop",
            "scopes": ["read"],
            "mode": "live",
        }
    async with api.client.get("/v1/session", headers={"Cookie": f"{COOKIE}=a.b.c"}) as response:
        assert response.status == 401
    async with api.client.delete("/v1/session", headers=session | origin) as response:
        assert (response.status, "Max-Age=0" in response.headers["Set-Cookie"]) == (204, True)
    await api.keys.revoke(key.id, ADA, tenant=None)
    await api.keyring.read()
    async with api.client.get("/v1/session", headers=session) as response:
        assert response.status == 401


async def test_a_session_changes_something_only_from_a_page_of_the_api(api: Api) -> None:
    key = await api.key()
    async with api.client.post("/v1/session", json={"key": key.text}) as response:
        session = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
    own = str(api.client._base_url).rstrip("/")
    other_port = own.rpartition(":")[0]
    answers = {None: 403, "https://evil.example": 403, "null": 403, other_port: 403, own: 200}
    for origin, status in answers.items():
        headers = session | ({} if origin is None else {"Origin": origin})
        async with api.client.put("/v1/tenants/cafe", json={}, headers=headers) as response:
            assert response.status == status, origin
    async with api.client.get(
        "/v1/session", headers=session | {"Origin": "https://evil.example"}
    ) as response:
        assert response.status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "api"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "notifier.default.svc:8000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:8000", "Host": "localhost:8000"}, 200),
    ],
)
async def test_without_keys_no_page_of_another_site_reads_or_changes_anything(
    headers: dict[str, str], status: int
) -> None:
    async with open_client(make_api(MemoryStore())) as client:
        async with client.get("/v1/session", headers=headers) as response:
            assert response.status == status
        async with client.post(NOTIFICATIONS, json=submit_body(), headers=headers) as response:
            assert response.status == (202 if status == 200 else 403)


async def test_while_postgres_is_away_known_keys_hold_and_unknown_ones_get_503(
    api: Api, database_url: str
) -> None:
    key = await api.key()
    async with open_proxy_for(database_url) as proxy, open_api(proxy.url(database_url)) as far:
        assert (await far.get("/v1/session", key))[0] == 200
        proxy.cut()
        assert (await far.get("/v1/session", key))[0] == 200
        unknown = new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES))
        status, problem = await far.get("/v1/session", unknown)
        assert (status, problem["type"]) == (503, "urn:notifier:problem:store-unavailable")


async def test_no_answer_repeats_a_key(
    api: Api, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    key = await api.key(SHOP)
    for route in KEYED:
        address = route.openapi_path.format(**UNKNOWN)
        async with api.client.request(route.method, address, headers=bearer(key)) as response:
            assert key.secret not in await response.text() + str(response.headers)
