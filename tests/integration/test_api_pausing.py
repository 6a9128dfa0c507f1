"""Pause and resume over HTTP, with an in-memory store and with Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest
from typing_extensions import override

from notifier.adapters.inprocess.broker import InProcessBroker
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import open_controls
from notifier.adapters.postgres.keys import open_keys
from notifier.adapters.postgres.store import open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.api.http.body import MAX_SMALL_BODY_BYTES
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.errors import FeatureUnavailable, StoreUnavailable
from notifier.domain.notification import Channel
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import run_steps_async
from notifier.ports.keys import AuditFilter, Author
from notifier.ports.queries import PauseState
from notifier.scheduling.cluster.cluster_figures import ClusterFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from notifier.scheduling.deployment_status import DeploymentStatus
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import QUEUES, worker_id
from tests.doubles import FixedFigures
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client

RULES = make_rules(providers=("http", "smtp"), request_deadline_s=2.0)
PROVIDERS = {Channel("email"): ["smtp"], Channel("sms"): ["http"], Channel("push"): ["http"]}
EMAIL_LOW = Scope(ScopeKind.QUEUE, "email.low")
PATHS = {
    "pauses/queue/email.low": EMAIL_LOW,
    "pauses/channel/sms": Scope(ScopeKind.CHANNEL, "sms"),
    "pauses/provider/smtp": Scope(ScopeKind.PROVIDER, "smtp"),
    "pauses/tenant/shop": Scope(ScopeKind.TENANT, "shop"),
    "pauses/tag/summer-sale": Scope(ScopeKind.TAG, "summer-sale"),
    "pauses/tag/shop%2F2026/a:b.c_d": Scope(ScopeKind.TAG, "shop/2026/a:b.c_d"),
}
PATH = "pauses/queue/email.low"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store, RULES)) as client:
        yield client


async def put(client: aiohttp.ClientSession, path: str, **request: Any) -> tuple[int, Any]:
    return await answer(client, "PUT", path, **request)


async def delete(client: aiohttp.ClientSession, path: str, **request: Any) -> tuple[int, Any]:
    return await answer(client, "DELETE", path, **request)


async def answer(
    client: aiohttp.ClientSession, method: str, path: str, **request: Any
) -> tuple[int, Any]:
    async with client.request(method, f"/v1/{path}", **request) as response:
        return response.status, await response.json(content_type=None)


async def get(client: aiohttp.ClientSession, path: str) -> Any:
    async with client.get(f"/v1/{path}") as response:
        assert response.status == 200
        page = await response.json()
        assert page["next_cursor"] is None
        return page["items"]


@pytest.mark.parametrize("path", PATHS)
async def test_each_kind_is_paused_listed_and_resumed(
    client: aiohttp.ClientSession, store: MemoryStore, path: str
) -> None:
    scope = PATHS[path]
    pause = {
        "kind": scope.kind,
        "name": scope.name,
        "note": "too much",
        "paused_at": "2030-01-31T08:00:00Z",
        "expires_at": "2030-01-31T08:01:00Z",
        "matches": True,
    }
    body = {"note": "too much", "for_s": 60}
    assert await put(client, path, json=body) == (200, pause)
    assert await get(client, "pauses") == [pause]
    for was_paused in (True, False):
        assert await delete(client, path) == (200, {"was_paused": was_paused})
    assert store.paused == {}
    assert await get(client, "pauses") == []


@pytest.mark.parametrize(
    "request_body",
    [{}, {"data": b"", "headers": JSON}, {"json": {}}, {"json": {"for_s": None, "note": None}}],
    ids=["none", "empty", "empty object", "null"],
)
async def test_a_pause_without_fields_has_no_note_and_no_end(
    client: aiohttp.ClientSession, store: MemoryStore, request_body: dict[str, Any]
) -> None:
    status, response = await put(client, PATH, **request_body)
    assert (status, response["expires_at"], response["note"]) == (200, None, None)
    assert store.paused[EMAIL_LOW].expires_in_s is None


async def test_a_second_pause_replaces_the_note_and_the_end(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    for body in ({"note": "first"}, {"note": "second", "for_s": 5}):
        await put(client, PATH, json=body)
    (pause,) = await get(client, "pauses")
    assert pause["note"] == "second"
    assert store.paused[EMAIL_LOW].expires_in_s == 5.0


async def test_a_note_may_have_300_characters_of_any_script(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    note = "\N{GRINNING FACE}" * 300
    assert (await put(client, PATH, json={"note": note}))[0] == 200
    assert store.paused[EMAIL_LOW].note == note


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    ("path", "field", "detail"),
    [
        (
            "queue/email.urgent",
            "name",
            f"There is no queue 'email.urgent'. There are: {', '.join(map(str, QUEUES))}.",
        ),
        ("channel/fax", "name", "There is no channel 'fax'. There are: email, sms, push."),
        ("provider/unknown", "name", "There is no provider 'unknown'. There are: http, smtp."),
        ("provider/%00", "name", "There is no provider '\\x00'. There are: http, smtp."),
        (
            "queues/email.low",
            "kind",
            "There is no kind of pause 'queues'. There are: queue, channel, provider, tag, tenant.",
        ),
    ],
)
async def test_an_unknown_kind_or_name_is_answered_404_with_the_known_ones(
    client: aiohttp.ClientSession,
    store: MemoryStore,
    path: str,
    field: str,
    detail: str,
    method: str,
) -> None:
    status, problem = await answer(client, method, f"pauses/{path}")
    assert (status, problem["detail"]) == (404, detail)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert store.paused == {}


@pytest.mark.parametrize("action", ["pause", "resume"])
@pytest.mark.parametrize("of", ["queues/email.low", "channels/sms", "providers/smtp"])
async def test_the_earlier_routes_are_gone(
    client: aiohttp.ClientSession, action: str, of: str
) -> None:
    assert (await answer(client, "POST", f"{of}/{action}"))[0] == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"for_s":0}', "for_s"),
        (b'{"for_s":-1}', "for_s"),
        (b'{"for_s":"long"}', "for_s"),
        (b'{"for_s":true}', "for_s"),
        (b'{"for_s":2592001}', "for_s"),
        (b'{"for_s":1e999}', "for_s"),
        (b'{"note":7}', "note"),
        (b'{"note":"' + b"x" * 301 + b'"}', "note"),
        (b'{"note":"two\\nlines"}', "note"),
        (b'{"note":"its end\\n"}', "note"),
        (b'{"note":"\\u001b[31m"}', "note"),
        (b'{"note":"nul\\u0000"}', "note"),
        (b'{"note":"\\ud800"}', "note"),
        (b'{"note":"\xff"}', "$"),
        (b'{"who":"x"}', "who"),
        (b"[]", "$"),
        (b"null", "$"),
        (b"{", "$"),
        (b" ", "$"),
    ],
)
async def test_the_problem_names_a_wrong_field(
    client: aiohttp.ClientSession, store: MemoryStore, body: bytes, field: str
) -> None:
    status, problem = await put(client, PATH, data=body, headers=JSON)
    assert (status, [error["field"] for error in problem["errors"]]) == (400, [field])
    assert store.paused == {}


async def test_the_earlier_names_are_refused_with_the_present_ones(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    status, problem = await put(client, PATH, json={"reason": "flood", "for": 60, "x": 1})
    assert (status, problem["detail"]) == (400, "3 fields are wrong.")
    assert [(error["field"], error["expected"]) for error in problem["errors"]] == [
        ("reason", "note"),
        ("for", "for_s"),
        ("x", "only for_s, note here"),
    ]
    assert store.paused == {}


async def test_a_body_that_is_too_large_or_not_json_is_refused(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    large = b" " * (MAX_SMALL_BODY_BYTES + 1)
    assert (await put(client, PATH, data=large, headers=JSON))[0] == 413
    assert (await put(client, PATH, data={"for_s": "5"}))[0] == 415
    assert store.paused == {}


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("path", PATHS)
async def test_without_postgres_pause_and_resume_are_answered_503(
    client: aiohttp.ClientSession, store: MemoryStore, path: str, method: str
) -> None:
    store.error = StoreUnavailable("gone")
    async with client.request(method, f"/v1/{path}") as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", ["pauses", "providers"])
async def test_without_postgres_the_lists_are_answered_503(
    client: aiohttp.ClientSession, store: MemoryStore, path: str
) -> None:
    store.error = StoreUnavailable("gone")
    async with client.get(f"/v1/{path}") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")


class HangingStore(MemoryStore):
    """A store whose resumes and lists never end."""

    @override
    async def resume(self, scope: Scope, author: Author | None = None) -> bool:
        await asyncio.Event().wait()
        return True

    @override
    async def pauses(self) -> list[PauseState]:
        await asyncio.Event().wait()
        return []


async def test_a_request_that_outlasts_the_deadline_is_answered_503() -> None:
    rules = make_rules(request_deadline_s=0.05)
    async with open_client(make_api(HangingStore(), rules)) as client:
        assert (await delete(client, PATH))[0] == 503
        async with client.get("/v1/pauses") as response:
            assert response.status == 503


async def test_the_providers_show_their_breakers(client: aiohttp.ClientSession) -> None:
    await put(client, "pauses/provider/smtp")
    assert await get(client, "providers") == [
        {
            "provider": "smtp",
            "channels": ["email"],
            "breaker": "open",
            "reason": "errors",
            "since_at": "2030-01-31T08:00:00Z",
            "probe_at": "2030-01-31T08:00:05Z",
            "paused": True,
            "calls": 20,
            "failures": 11,
            "code": "503",
            "hanging": [],
        }
    ]


@pytest.mark.parametrize("name", ["Shop", "-", "x" * 65, "a b", "7"])
async def test_what_is_no_name_of_a_tenant_is_refused(
    client: aiohttp.ClientSession, name: str
) -> None:
    status, problem = await put(client, f"pauses/tenant/{name}", json={})
    assert (status, problem["errors"][0]["field"]) == (404, "name")


@pytest.mark.parametrize("name", ["a b", "x" * 65, "caf%C3%A9", "a%0A"])
async def test_what_is_no_tag_is_refused(client: aiohttp.ClientSession, name: str) -> None:
    status, problem = await put(client, f"pauses/tag/{name}", json={})
    assert (status, problem["errors"][0]["field"]) == (404, "name")


async def test_a_tenant_is_not_paused_while_a_worker_would_go_on_sending(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.lacking = FeatureUnavailable("holds", "the worker on host node-1 does not understand it")
    status, problem = await put(client, "pauses/tenant/shop", json={})
    assert (status, problem["type"]) == (503, "urn:notifier:problem:feature-unavailable")
    assert "node-1" in problem["detail"]
    assert store.paused == {}
    assert (await put(client, "pauses/channel/sms", json={}))[0] == 200


@asynccontextmanager
async def real_api(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """The API of one process, with pauses and status read from Postgres."""
    settings, worker = ConnectionSettings(url=url), worker_id()
    async with (
        open_store(settings, worker) as store,
        open_controls(settings, worker) as controls,
    ):
        status = DeploymentStatus(
            store=store,
            broker=InProcessBroker(QUEUES),
            cluster=ClusterFigures(own=FixedFigures(), detector=FailureDetector()),
            gates=QueueGates(
                controls,
                queues=QUEUES,
                providers=PROVIDERS,
                probes=Probes(),
                observer=Metrics(QUEUES, PROVIDERS, version="0"),
            ),
        )
        app = make_api(MemoryStore(), RULES, status=status, pauses=controls, quiet_hours=controls)
        async with open_client(app) as client:
            yield client


async def paused_queues(client: aiohttp.ClientSession) -> dict[str, str]:
    rows = await get(client, "queues")
    return {row["queue"]: row["limited_by"] for row in rows if row["paused"]}


@pytest.mark.parametrize(
    ("path", "paused"),
    [
        ("pauses/queue/email.low", ["email.low"]),
        ("pauses/channel/sms", ["sms.high", "sms.medium", "sms.low"]),
        ("pauses/provider/smtp", ["email.high", "email.medium", "email.low"]),
    ],
)
async def test_a_pause_set_by_one_process_holds_in_every_other_until_any_resumes_it(
    database_url: str, path: str, paused: list[str]
) -> None:
    async with real_api(database_url) as first, real_api(database_url) as second:
        body = {"note": "übermäßig", "for_s": 2_592_000}
        status, response = await put(first, path, json=body)
        assert status == 200
        paused_at, expires_at = (
            datetime.fromisoformat(response[name]) for name in ("paused_at", "expires_at")
        )
        assert expires_at - paused_at == timedelta(days=30)
        assert await get(second, "pauses") == [response]
        assert (response["kind"], response["name"]) == (PATHS[path].kind, PATHS[path].name)
        assert response["note"] == "übermäßig"
        assert await paused_queues(second) == dict.fromkeys(paused, "pause")
        rows = await get(first, "providers")
        assert [row["paused"] for row in rows] == [False, path == "pauses/provider/smtp"]
        assert await delete(second, path) == (200, {"was_paused": True})
        assert await delete(first, path) == (200, {"was_paused": False})
        assert await paused_queues(first) == {}


async def test_a_second_pause_keeps_the_beginning_and_drops_the_end(database_url: str) -> None:
    async with real_api(database_url) as client:
        _, first = await put(client, PATH, json={"for_s": 60})
        _, second = await put(client, PATH, json={"note": "longer"})
        assert (second["paused_at"], second["expires_at"]) == (first["paused_at"], None)


async def test_a_pause_of_a_removed_provider_can_be_resumed(
    database_url: str,
) -> None:
    async with (
        real_api(database_url) as client,
        open_controls(ConnectionSettings(url=database_url), worker_id()) as controls,
    ):
        await controls.pause(Scope(ScopeKind.PROVIDER, "gone"), note="", for_s=None)
        path = "pauses/provider/gone"
        (shown,) = await get(client, "pauses")
        assert (shown["name"], shown["matches"]) == ("gone", False)
        assert (await put(client, path))[0] == 404
        assert (await delete(client, path))[1] == {"was_paused": True}
        assert (await delete(client, path))[0] == 404
        assert await get(client, "pauses") == []


async def test_an_expired_pause_is_not_listed(database_url: str) -> None:
    async with real_api(database_url) as client:
        for seconds in ("0.001", "1e-320"):
            body = f'{{"for_s":{seconds}}}'.encode()
            status, _ = await put(client, PATH, data=body, headers=JSON)
            assert status == 200
            await asyncio.sleep(0.01)
            assert await get(client, "pauses") == []


async def test_a_pause_is_refused_while_postgres_is_down_and_accepted_afterwards(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    async with real_api(private_database_url) as client:
        assert (await put(client, "pauses/channel/sms"))[0] == 200
        await run_steps_async(private_postgres.killing())
        assert (await delete(client, "pauses/channel/sms"))[0] == 503
        assert (await put(client, PATH))[0] == 503
        await run_steps_async(private_postgres.starting())
        async with asyncio.timeout(20):
            while (await delete(client, "pauses/channel/sms"))[0] != 200:
                await asyncio.sleep(0.05)
        assert await get(client, "pauses") == []


async def test_who_paused_and_resumed_is_in_the_audit(database_url: str) -> None:
    async with (
        real_api(database_url) as client,
        open_keys(ConnectionSettings(url=database_url)) as keys,
    ):
        path = "/v1/pauses/queue/email.low"
        async with client.put(path, json={"for_s": 60, "note": "wrong price"}) as response:
            assert response.status == 200
            asked = response.headers["Request-Id"]
        for _ in range(2):
            async with client.delete(path) as response:
                assert response.status == 200
        ended, begun = (await keys.audit(AuditFilter(is_all=True))).entries
    assert (ended.action.name, begun.action.name) == ("pause.deleted", "pause.created")
    assert (begun.action.actor, begun.action.target) == ("anonymous", "pause:queue:email.low")
    assert (begun.action.note, begun.action.request_id) == ("wrong price", asked)
    assert begun.action.after == {"for_s": 60.0, "note": "wrong price"}
