"""`/v1/inbox` over HTTP, with keys, tokens of users, streams and other origins, on Postgres."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.inbox import open_inbox_writer, open_inboxes
from notifier.adapters.postgres.key_rates import open_key_rates
from notifier.adapters.postgres.keys import PostgresKeys, open_keys
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.api.auth.access import AccessKind
from notifier.api.auth.gate import KeyAuth
from notifier.api.auth.keyring import Keyring
from notifier.api.auth.rates import KeyRates
from notifier.api.auth.sessions import Sessions
from notifier.api.auth.user_tokens import UserTokens
from notifier.api.http import server_sent_events
from notifier.api.http.stream_slots import StreamSlots
from notifier.api.inbox import stream as stream_module
from notifier.api.inbox.feed import InboxFeed
from notifier.api.routes.inbox import InboxSources
from notifier.api.routes.table import ROUTES
from notifier.domain.credentials import ENTROPY_BYTES, Mode, new_credential
from notifier.domain.inbox import Inbox
from notifier.domain.keys import Key, KeyScope, NewKey
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.lifecycle import background_task
from notifier.ports.inbox import NewEntry
from notifier.ports.keys import Author
from tests.builders import a_notification, worker_id
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notifier.adapters.postgres.inbox import PostgresInboxWriter

ADMIN: Final = Author(actor="cli:ada@desk")
SHOP, BANK = TenantId("shop"), TenantId("bank")
INBOX: Final = QueueKey(Channel("inbox"), Priority.HIGH)
TEST: Final = QueueKey(Channel("test"), Priority.HIGH)
APP: Final = "https://app.example.com"
EVIL: Final = (
    "https://evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "https://evil-app.example.com",
    "https://APP.example.com",
    "https://app.example.com/",
    "null",
    "*",
)
ADA: Final = Inbox(DEFAULT_TENANT, Mode.LIVE, "ada")
SUBMIT, READ, *_ = KeyScope

Document = dict[str, Any]


class SetClock:
    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    client: aiohttp.ClientSession
    store: PostgresStore
    writer: PostgresInboxWriter
    keys: PostgresKeys
    keyring: Keyring
    clock: SetClock
    stop: asyncio.Event

    async def key(
        self,
        *scopes: KeyScope,
        tenant: TenantId | None = DEFAULT_TENANT,
        mode: Mode = Mode.LIVE,
    ) -> str:
        credential = new_credential(mode, os.urandom(ENTROPY_BYTES))
        new = NewKey(
            tenant=tenant,
            mode=mode,
            scopes=scopes or tuple(KeyScope),
            rate_per_s=None,
            expires_at=None,
        )
        assert isinstance(await self.keys.create(new, credential, ADMIN), Key)
        return credential.text

    async def add(self, *bodies: str, inbox: Inbox = ADA) -> list[str]:
        ids = []
        for body in bodies:
            is_test = inbox.mode is Mode.TEST
            new = a_notification(
                TEST if is_test else INBOX,
                recipient=inbox.user,
                tenant=inbox.tenant,
                test_channel="inbox" if is_test else "",
            )
            await self.store.insert([new])
            await self.writer.add(NewEntry(new.id, "S", body, '{"n":\n1}'))
            ids.append(str(new.id))
        return ids

    async def call(
        self, method: str, path: str, bearer: str = "", body: object = None, **headers: str
    ) -> tuple[int, Document]:
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        url = URL(f"/v1/inbox/{path}", encoded=True)
        async with self.client.request(method, url, json=body, headers=headers) as response:
            return response.status, json.loads(await response.read() or b"{}")

    async def token(self, user: str, key: str, **body: object) -> str:
        status, made = await self.call("POST", f"{quote(user, safe='')}/token", key, body)
        assert status == 201, made
        text: str = made["token"]
        return text

    @asynccontextmanager
    async def stream(
        self, path: str, bearer: str = "", **headers: str
    ) -> AsyncIterator[AsyncIterator[tuple[str, Document]]]:
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        url = URL(f"/v1/inbox/{path}", encoded=True)
        async with self.client.get(
            url, headers=headers, timeout=aiohttp.ClientTimeout(total=60)
        ) as response:
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"] == "text/event-stream"
            assert await response.content.readuntil(b"\n\n") == b":\n\n"
            yield frames(response)


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Document]]:
    while frame := await response.content.readuntil(b"\n\n"):
        if frame == b":\n\n":
            yield "comment", {}
            continue
        name, data = frame.decode().strip().split("\n")
        yield name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@asynccontextmanager
async def open_api(url: str, *, with_keys: bool = True) -> AsyncIterator[Api]:
    settings, stop, clock = ConnectionSettings(url=url), asyncio.Event(), SetClock()
    async with (
        open_store(settings, worker_id()) as store,
        open_inbox_writer(settings, 3600.0) as writer,
        open_inboxes(settings) as inboxes,
        open_keys(settings) as keys,
        open_key_rates(settings) as rate_store,
        asyncio.TaskGroup() as group,
    ):
        feed = InboxFeed(reader=inboxes.reader, slots=StreamSlots())
        group.create_task(feed.run(stop), name="feed")
        keyring, rates = Keyring(keys), KeyRates(rate_store, deadline_s=5.0)
        app = make_api(
            MemoryStore(),
            make_rules(cors_origins=(APP,)),
            access=keys,
            auth=KeyAuth(keyring=keyring, rates=rates, sessions=Sessions(keys, session_s=600.0))
            if with_keys
            else None,
            inbox=InboxSources(inboxes.store, feed, UserTokens(keys, clock=clock)),
        )
        for tenant in (SHOP, BANK):
            await keys.put_tenant(tenant, note="", author=ADMIN)
        try:
            async with (
                background_task(keyring, "keys"),
                background_task(rates, "key rates"),
                open_client(app) as client,
            ):
                yield Api(
                    client=client,
                    store=store,
                    writer=writer,
                    keys=keys,
                    keyring=keyring,
                    clock=clock,
                    stop=stop,
                )
                stop.set()
        finally:
            stop.set()


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with open_api(database_url) as api:
        yield api


async def test_a_user_reads_and_marks_the_own_inbox_with_a_token(api: Api) -> None:
    ids = await api.add("a", "b", "c")
    token = await api.token("ada", await api.key(SUBMIT))
    status, page = await api.call("GET", "ada", token)
    assert status == 200
    assert [item["id"] for item in page["items"]] == ids[::-1]
    assert (page["unread"], page["next_cursor"]) == (3, None)
    first = page["items"][0]
    assert (first["subject"], first["body"], first["data"]) == ("S", "c", {"n": 1})
    assert datetime.fromisoformat(first["created_at"]).tzinfo is not None
    assert first["read_at"] is None
    assert await api.call("POST", "ada/read", token, {"ids": ids[:1]}) == (200, {"unread": 2})
    _, page = await api.call("GET", "ada?unread=true", token)
    assert [item["id"] for item in page["items"]] == ids[:0:-1]
    until_at = page["items"][-1]["created_at"]
    assert await api.call("POST", "ada/read", token, {"until_at": until_at}) == (200, {"unread": 1})


async def test_a_list_has_pages_that_belong_to_their_inbox_and_filter(api: Api) -> None:
    ids, key = await api.add(*"abcde"), await api.key(READ)
    found, query = [], "?limit=2"
    while query:
        status, page = await api.call("GET", f"ada{query}", key)
        assert status == 200
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        query = f"?limit=2&cursor={cursor}" if cursor else ""
        if cursor:
            for other in (f"bob?cursor={cursor}", f"ada?unread=true&cursor={cursor}"):
                assert (await api.call("GET", other, key))[0] == 400
    assert found == ids[::-1]
    for query in ("cursor=x", "cursor=" + "A" * 43, "cursor=%FF", "limit=0", "unread=1", "other=1"):
        assert (await api.call("GET", f"ada?{query}", key))[0] == 400, query


@pytest.mark.parametrize(
    "user",
    ["a/read", "a/events", "ä€", "a%2Fb", "a?b#c", "...", "..a", "Ada@Example.com", "+a&b=c"],
)
async def test_the_id_of_a_user_is_taken_as_it_is(api: Api, user: str) -> None:
    [id_] = await api.add("b", inbox=Inbox(DEFAULT_TENANT, Mode.LIVE, user))
    key, path = await api.key(), quote(user, safe="")
    token = await api.token(user, key)
    for bearer in (key, token):
        _, page = await api.call("GET", path, bearer)
        assert [item["id"] for item in page["items"]] == [id_]
    async with api.stream(f"{path}/events", token):
        pass
    assert await api.call("POST", f"{path}/read", token, {"ids": [id_]}) == (200, {"unread": 0})


@pytest.mark.parametrize("user", ["%FF", "a%20b", "%00", "x" * 129, "a%0Ab"])
async def test_what_is_no_id_of_a_user_is_refused(api: Api, user: str) -> None:
    key = await api.key()
    for method, more in (("GET", ""), ("GET", "/events"), ("POST", "/token")):
        status, problem = await api.call(method, user + more, key)
        assert (status, problem["errors"][0]["field"]) == (400, "user")


async def test_a_token_opens_no_other_inbox_and_no_other_route(api: Api) -> None:
    token = await api.token("ada", await api.key())
    for path in ("bob", "Ada", "ada%2F", "ada%20", "bob/events"):
        status, _ = await api.call("GET", path, token)
        assert status in {400, 403}, path
    assert (await api.call("POST", "bob/read", token, {"ids": []}))[0] == 403
    assert (await api.call("GET", "ada?tenant=shop", token))[0] == 400
    for route in ROUTES:
        if route.access.takes_user_token or route.access.kind is not AccessKind.KEY:
            continue
        path = route.path
        for part in ("{user:str}", "{id:str}", "{kind:str}", "{name:path}"):
            path = path.replace(part, "ada")
        for headers, query in (({"Authorization": f"Bearer {token}"}, {}), ({}, {"token": token})):
            async with api.client.request(
                route.method, path, headers=headers, params=query, json={}
            ) as response:
                assert response.status == 401, route.id


async def test_tokens_of_another_mode_or_tenant_see_their_own_inbox(api: Api) -> None:
    inboxes = {
        Inbox(tenant, mode, "ada"): await api.key(tenant=tenant, mode=mode)
        for tenant in (SHOP, BANK)
        for mode in Mode
    }
    for inbox in inboxes:
        await api.add(f"{inbox.tenant} {inbox.mode}", inbox=inbox)
    for inbox, key in inboxes.items():
        for bearer in (key, await api.token("ada", key)):
            _, page = await api.call("GET", "ada", bearer)
            assert [item["body"] for item in page["items"]] == [f"{inbox.tenant} {inbox.mode}"]


async def test_a_deployment_key_names_the_tenant(api: Api) -> None:
    key = await api.key(tenant=None)
    await api.add("b", inbox=Inbox(SHOP, Mode.LIVE, "ada"))
    assert (await api.call("GET", "ada", key))[0] == 400
    assert (await api.call("GET", "ada?tenant=nobody", key))[0] == 400
    assert len((await api.call("GET", "ada?tenant=shop", key))[1]["items"]) == 1
    _, made = await api.call("POST", "ada/token?tenant=shop", key)
    assert len((await api.call("GET", "ada", made["token"]))[1]["items"]) == 1


async def test_keys_need_the_scopes_of_the_contract(api: Api) -> None:
    reader, submitter = await api.key(READ), await api.key(SUBMIT)
    for method, path, good, bad in (
        ("GET", "ada", reader, submitter),
        ("GET", "ada/events", reader, submitter),
        ("POST", "ada/read", submitter, reader),
        ("POST", "ada/token", submitter, reader),
    ):
        body: Document | None = {"ids": []} if path == "ada/read" else None
        assert (await api.call(method, path, bad, body))[0] == 403
        if "events" in path:
            async with api.stream(path, good):
                pass
        else:
            assert (await api.call(method, path, good, body))[0] in {200, 201}


async def test_the_time_of_a_token_is_bounded_and_ends(api: Api) -> None:
    key = await api.key()
    for ttl_s in (0, 86_401, "1", True):
        assert (await api.call("POST", "ada/token", key, {"ttl_s": ttl_s}))[0] == 400
    status, made = await api.call("POST", "ada/token", key)
    assert status == 201
    assert datetime.fromisoformat(made["expires_at"]).timestamp() == api.clock.now + 3600
    assert (await api.call("GET", "ada", made["token"]))[0] == 200
    api.clock.now += 3600
    status, problem = await api.call("GET", "ada", made["token"])
    assert (status, problem["type"].rpartition(":")[2]) == (401, "key-invalid")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": [], "until_at": "2026-12-01T12:00:00Z"},
        {"ids": ["x"]},
        {"ids": "x"},
        {"until_at": "2026-12-01T12:00:00"},
        {"until_at": "soon"},
        {"ids": [f"0192f0c1-0000-7000-8000-{n:012d}" for n in range(201)]},
        {"other": 1},
    ],
)
async def test_a_wrong_body_marks_nothing(api: Api, body: Document) -> None:
    await api.add("a")
    key = await api.key()
    assert (await api.call("POST", "ada/read", key, body))[0] == 400
    assert (await api.call("GET", "ada", key))[1]["unread"] == 1


@pytest.mark.parametrize(
    ("at", "unread"), [("0001-01-01T00:00:00+23:59", 1), ("9999-12-31T23:59:59-23:59", 0)]
)
async def test_an_instant_at_the_end_of_time_is_none_that_fails(
    api: Api, at: str, unread: int
) -> None:
    await api.add("a")
    marked = await api.call("POST", "ada/read", await api.key(), {"until_at": at})
    assert marked == (200, {"unread": unread})


async def test_a_stream_tells_what_is_added_and_what_is_read(api: Api) -> None:
    [before] = await api.add("before")
    token = await api.token("ada", await api.key())
    async with (
        api.stream(f"ada/events?token={token}") as stream,
        api.stream("bob/events", await api.key()) as other,
    ):
        [id_] = await api.add("a")
        name, data = await anext(stream)
        assert (name, data["item"]["id"], data["item"]["body"], data["unread"]) == (
            "inbox.added",
            id_,
            "a",
            2,
        )
        assert data["item"]["data"] == {"n": 1}
        await api.call("POST", "ada/read", token, {"ids": [before, id_]})
        name, data = await anext(stream)
        assert (name, sorted(data["ids"]), data["unread"]) == (
            "inbox.read",
            sorted([before, id_]),
            0,
        )
        await api.add("b", inbox=Inbox(DEFAULT_TENANT, Mode.LIVE, "bob"))
        name, data = await anext(other)
        assert (name, data["item"]["body"], data["unread"]) == ("inbox.added", "b", 1)


async def test_streams_of_one_inbox_get_the_same(api: Api) -> None:
    token = await api.token("ada", await api.key())
    async with api.stream("ada/events", token) as one, api.stream("ada/events", token) as other:
        [id_] = await api.add("a")
        for stream in (one, other):
            assert (await anext(stream))[1]["item"]["id"] == id_


async def test_a_stream_ends_with_its_token_its_key_and_at_the_stop(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "CHECK_INTERVAL_S", 0.05)
    key = await api.key()
    token = await api.token("ada", key, ttl_s=60)
    async with api.stream("ada/events", token) as stream:
        api.clock.now += 60
        assert [each async for each in stream] == []
    async with api.stream("ada/events", key) as stream:
        await api.keys.revoke(key[9:21], ADMIN, tenant=None)  # type: ignore[arg-type]
        await api.keyring.read()
        assert [each async for each in stream] == []
    async with api.stream("ada/events", await api.key()) as stream:
        api.stop.set()
        assert [each async for each in stream] == []


async def test_a_quiet_stream_has_comments(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "CHECK_INTERVAL_S", 0.01)
    monkeypatch.setattr(stream_module, "COMMENT_INTERVAL_S", 0.0)
    async with api.stream("ada/events", await api.key()) as stream:
        assert await anext(stream) == ("comment", {})
    assert server_sent_events.COMMENT_INTERVAL_S == 15.0


async def test_a_user_has_a_limited_number_of_streams(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_STREAMS_OF_USER", 1)
    key = await api.key()
    one, other = await api.token("ada", key), await api.token("ada", key, ttl_s=60)
    async with api.stream("ada/events", one):
        assert (await api.call("GET", "ada/events", other))[0] == 503
        async with api.stream("bob/events", await api.token("bob", key)):
            pass


async def test_a_token_may_stand_in_the_address_of_the_stream_only(api: Api) -> None:
    token = await api.token("ada", await api.key())
    for method, path, body in (
        ("GET", "ada", None),
        ("POST", "ada/read", {"ids": []}),
        ("POST", "ada/token", None),
    ):
        status, problem = await api.call(method, f"{path}?token={token}", "", body)
        assert status in {400, 401}, problem
        assert token not in str(problem)
    for query in ("token=", f"token={token}x", f"token={token}&token={token}", "token=ntf_live_x"):
        status, problem = await api.call("GET", f"ada/events?{query}")
        assert status in {400, 401}
        assert token not in str(problem)
    assert (await api.call("GET", f"ada/events?token={token}", token))[0] == 400
    key = await api.key()
    assert (await api.call("GET", f"ada/events?token={key}"))[0] == 401


async def test_pages_of_an_allowed_origin_use_tokens_and_nothing_else(api: Api) -> None:
    key = await api.key()
    token = await api.token("ada", key)
    async with api.client.post("/v1/session", json={"key": key}, headers=own(api)) as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    url = "/v1/inbox/ada"
    for headers, status in (
        ({"Authorization": f"Bearer {token}"}, 200),
        ({"Authorization": f"Bearer {key}"}, 401),
        ({"Cookie": cookie}, 401),
        ({}, 401),
    ):
        async with api.client.get(url, headers={"Origin": APP, **headers}) as response:
            assert response.status == status, headers
            assert response.headers["Access-Control-Allow-Origin"] == APP
            assert "Access-Control-Allow-Credentials" not in response.headers
            assert "Origin" in ", ".join(response.headers.getall("Vary"))
    async with api.stream(f"ada/events?token={token}", Origin=APP) as stream:
        await api.add("a")
        assert (await anext(stream))[0] == "inbox.added"
    body: Document = {"ids": []}
    assert (await api.call("POST", "ada/read", token, body, Origin=APP))[0] == 200
    async with api.client.get(url, headers={"Cookie": cookie}) as response:
        assert response.status == 200
    async with api.client.post(
        f"{url}/read", json=body, headers={"Cookie": cookie, "Origin": APP}
    ) as response:
        assert response.status == 401


def own(api: Api) -> dict[str, str]:
    return {"Origin": str(api.client._base_url).rstrip("/")}


@pytest.mark.parametrize("origin", EVIL)
async def test_pages_of_other_origins_are_refused_and_told_nothing(api: Api, origin: str) -> None:
    token = await api.token("ada", await api.key())
    headers = {"Origin": origin, "Authorization": f"Bearer {token}"}
    for method, path in (("GET", "ada"), ("GET", "ada/events"), ("POST", "ada/read")):
        async with api.client.request(
            method, f"/v1/inbox/{path}", headers=headers, json={"ids": []}
        ) as response:
            assert response.status == 403
            assert not allowed(response)
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    async with api.client.options("/v1/inbox/ada", headers=asked) as response:
        assert not allowed(response)


async def test_another_route_allows_no_origin(api: Api) -> None:
    key = await api.key()
    headers = {"Origin": APP, "Authorization": f"Bearer {key}"}
    for method, path in (
        ("GET", "/v1/notifications"),
        ("POST", "/v1/inbox/ada/token"),
        ("GET", "/v1/session"),
    ):
        async with api.client.request(method, path, headers=headers) as response:
            assert response.status == 403
            assert not allowed(response)
        async with api.client.options(path, headers={"Origin": APP}) as response:
            assert response.status == 200
            assert not allowed(response)


async def test_a_preflight_request_is_answered(api: Api) -> None:
    for path, methods in (("ada", "GET"), ("ada/events", "GET"), ("a%2Fb/read", "POST")):
        asked = {
            "Origin": APP,
            "Access-Control-Request-Method": methods,
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        url = URL(f"/v1/inbox/{path}", encoded=True)
        async with api.client.options(url, headers=asked) as response:
            assert response.ok
            assert response.headers["Access-Control-Allow-Origin"] == APP
            assert response.headers["Access-Control-Allow-Methods"] == methods
            names = response.headers["Access-Control-Allow-Headers"].split(", ")
            assert {"authorization", "content-type"} <= set(names)
            assert "Access-Control-Allow-Credentials" not in response.headers


def allowed(response: aiohttp.ClientResponse) -> list[str]:
    return [name for name in response.headers if name.lower().startswith("access-control-")]


async def test_without_keys_a_token_still_opens_its_inbox_only(database_url: str) -> None:
    async with open_api(database_url, with_keys=False) as api:
        await api.add("a")
        token = await api.token("ada", "")
        assert (await api.call("GET", "ada", token))[1]["unread"] == 1
        assert (await api.call("GET", "bob", token))[0] == 403
        assert (await api.call("GET", "ada"))[1]["unread"] == 1
        assert (await api.call("GET", "ada", f"{token}x"))[0] == 401
        assert (await api.call("GET", "ada", Origin=APP))[0] == 401
        assert (await api.call("GET", "ada", token, Origin=APP))[0] == 200
