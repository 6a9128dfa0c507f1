"""Pause and resume over HTTP, with an in-memory store and with Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from typing_extensions import override

from notifier.adapters.inprocess.broker import InProcessBroker
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import open_controls
from notifier.adapters.postgres.store import open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.api.app import create_api
from notifier.api.routes.pauses import MAX_BODY_BYTES
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Channel
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import run_steps_async
from notifier.ports.queries import PauseState
from notifier.scheduling.cluster.cluster_figures import ClusterFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from notifier.scheduling.deployment_status import DeploymentStatus
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import QUEUES, worker_id
from tests.doubles import FixedFigures
from tests.unit.fakes_api import (
    FakeMetrics,
    FakeReadiness,
    MemoryStore,
    make_api,
    make_rules,
    open_client,
)

RULES = make_rules(providers=("http", "smtp"), request_deadline_s=2.0)
PROVIDERS = {Channel("email"): ["smtp"], Channel("sms"): ["http"], Channel("push"): ["http"]}
EMAIL_LOW = Scope(ScopeKind.QUEUE, "email.low")
PATHS = {
    "queues/email.low": EMAIL_LOW,
    "channels/sms": Scope(ScopeKind.CHANNEL, "sms"),
    "providers/smtp": Scope(ScopeKind.PROVIDER, "smtp"),
}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store, RULES)) as client:
        yield client


async def post(client: aiohttp.ClientSession, path: str, **request: Any) -> tuple[int, Any]:
    async with client.post(f"/v1/{path}", **request) as response:
        return response.status, await response.json(content_type=None)


async def get(client: aiohttp.ClientSession, path: str) -> Any:
    async with client.get(f"/v1/{path}") as response:
        assert response.status == 200
        return await response.json()


@pytest.mark.parametrize("path", PATHS)
async def test_each_kind_is_paused_listed_and_resumed(
    client: aiohttp.ClientSession, store: MemoryStore, path: str
) -> None:
    scope = PATHS[path]
    pause = {"kind": scope.kind, "name": scope.name, "reason": "too much", "expires_in_s": 60.0}
    pause |= {"matches": True}
    body = {"reason": "too much", "for": 60}
    assert await post(client, f"{path}/pause", json=body) == (200, pause)
    assert await get(client, "pauses") == [pause]
    for was_paused in (True, False):
        resumed = {"kind": scope.kind, "name": scope.name, "resumed": was_paused}
        assert await post(client, f"{path}/resume") == (200, resumed)
    assert store.paused == {}


@pytest.mark.parametrize(
    "request_body",
    [{}, {"data": b"", "headers": JSON}, {"json": {}}, {"json": {"for": None}}],
    ids=["none", "empty", "empty object", "null"],
)
async def test_a_pause_without_fields_has_no_reason_and_no_end(
    client: aiohttp.ClientSession, store: MemoryStore, request_body: dict[str, Any]
) -> None:
    status, response = await post(client, "queues/email.low/pause", **request_body)
    assert (status, response["expires_in_s"], response["reason"]) == (200, None, "")
    assert store.paused[EMAIL_LOW].expires_in_s is None


async def test_a_second_pause_replaces_the_reason_and_the_end(
    client: aiohttp.ClientSession,
) -> None:
    for body in ({"reason": "first"}, {"reason": "second", "for": 5}):
        await post(client, "queues/email.low/pause", json=body)
    (pause,) = await get(client, "pauses")
    assert (pause["reason"], pause["expires_in_s"]) == ("second", 5.0)


async def test_a_reason_may_have_300_characters_of_any_script(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    reason = "\N{GRINNING FACE}" * 300
    assert (await post(client, "queues/email.low/pause", json={"reason": reason}))[0] == 200
    assert store.paused[EMAIL_LOW].reason == reason


@pytest.mark.parametrize("action", ["pause", "resume"])
@pytest.mark.parametrize(
    ("path", "detail"),
    [
        (
            "queues/email.urgent",
            f"There is no queue 'email.urgent'. There are: {', '.join(map(str, QUEUES))}.",
        ),
        ("channels/fax", "There is no channel 'fax'. There are: email, sms, push."),
        ("providers/unknown", "There is no provider 'unknown'. There are: http, smtp."),
        ("providers/%00", "There is no provider '\\x00'. There are: http, smtp."),
    ],
)
async def test_an_unknown_name_is_answered_404_with_the_known_names(
    client: aiohttp.ClientSession, store: MemoryStore, path: str, detail: str, action: str
) -> None:
    status, problem = await post(client, f"{path}/{action}")
    assert (status, problem["detail"]) == (404, detail)
    assert problem["field"] == path.partition("s/")[0]
    assert store.paused == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"for":0}', "for"),
        (b'{"for":-1}', "for"),
        (b'{"for":"long"}', "for"),
        (b'{"for":true}', "for"),
        (b'{"for":2592001}', "for"),
        (b'{"for":1e999}', "for"),
        (b'{"reason":7}', "reason"),
        (b'{"reason":null}', "reason"),
        (b'{"reason":"' + b"x" * 301 + b'"}', "reason"),
        (b'{"reason":"two\\nlines"}', "reason"),
        (b'{"reason":"its end\\n"}', "reason"),
        (b'{"reason":"\\u001b[31m"}', "reason"),
        (b'{"reason":"nul\\u0000"}', "reason"),
        (b'{"reason":"\\ud800"}', "reason"),
        (b'{"reason":"\xff"}', "$"),
        (b'{"why":"x"}', "why"),
        (b"[]", "$"),
        (b"null", "$"),
        (b"{", "$"),
        (b" ", "$"),
    ],
)
async def test_the_problem_names_a_wrong_field(
    client: aiohttp.ClientSession, store: MemoryStore, body: bytes, field: str
) -> None:
    status, problem = await post(client, "queues/email.low/pause", data=body, headers=JSON)
    assert (status, problem["field"]) == (400, field)
    assert store.paused == {}


async def test_the_problem_of_an_unknown_field_lists_the_known_fields(
    client: aiohttp.ClientSession,
) -> None:
    _, problem = await post(client, "queues/email.low/pause", json={"for_s": 1})
    assert problem["expected"] == "only reason, for here"


async def test_a_body_that_is_too_large_or_not_json_is_refused(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    large = b" " * (MAX_BODY_BYTES + 1)
    assert (await post(client, "queues/email.low/pause", data=large, headers=JSON))[0] == 413
    assert (await post(client, "queues/email.low/pause", data={"for": "5"}))[0] == 415
    assert store.paused == {}


@pytest.mark.parametrize(
    "path", [f"{path}/{verb}" for path in PATHS for verb in ("pause", "resume")]
)
async def test_without_postgres_pause_and_resume_are_answered_503(
    client: aiohttp.ClientSession, store: MemoryStore, path: str
) -> None:
    store.error = StoreUnavailable("gone")
    async with client.post(f"/v1/{path}") as response:
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
    async def resume(self, scope: Scope) -> bool:
        await asyncio.Event().wait()
        return True

    @override
    async def pauses(self) -> list[PauseState]:
        await asyncio.Event().wait()
        return []


async def test_a_request_that_outlasts_the_deadline_is_answered_503() -> None:
    rules = make_rules(request_deadline_s=0.05)
    async with open_client(make_api(HangingStore(), rules)) as client:
        assert (await post(client, "queues/email.low/resume"))[0] == 503
        async with client.get("/v1/pauses") as response:
            assert response.status == 503


async def test_the_providers_show_their_breakers(client: aiohttp.ClientSession) -> None:
    await post(client, "providers/smtp/pause")
    assert await get(client, "providers") == [
        {
            "provider": "smtp",
            "channels": ["email"],
            "breaker": "open",
            "reason": "errors",
            "probe_in_s": 3.5,
            "paused": True,
            "calls": 20,
            "failures": 11,
            "code": "503",
            "hanging": [],
        }
    ]


@asynccontextmanager
async def real_api(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """The API of one process, with pauses and status read from Postgres."""
    settings, worker, memory = ConnectionSettings(url=url), worker_id(), MemoryStore()
    async with (
        open_store(settings, worker) as store,
        open_controls(settings, worker) as controls,
    ):
        app = create_api(
            acceptor=memory,
            reader=memory,
            status=DeploymentStatus(
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
            ),
            pauses=controls,
            rules=RULES,
            readiness=FakeReadiness(),
            metrics=FakeMetrics(),
        )
        async with open_client(app) as client:
            yield client


async def paused_queues(client: aiohttp.ClientSession) -> dict[str, str]:
    rows = await get(client, "queues")
    return {row["queue"]: row["limited_by"] for row in rows if row["paused"]}


@pytest.mark.parametrize(
    ("path", "paused"),
    [
        ("queues/email.low", ["email.low"]),
        ("channels/sms", ["sms.high", "sms.medium", "sms.low"]),
        ("providers/smtp", ["email.high", "email.medium", "email.low"]),
    ],
)
async def test_a_pause_set_by_one_process_holds_in_every_other_until_any_resumes_it(
    database_url: str, path: str, paused: list[str]
) -> None:
    async with real_api(database_url) as first, real_api(database_url) as second:
        body = {"reason": "übermäßig", "for": 2_592_000}
        status, response = await post(first, f"{path}/pause", json=body)
        assert (status, response["expires_in_s"]) == (200, 2_592_000.0)
        (pause,) = await get(second, "pauses")
        assert (pause["kind"], pause["name"]) == (PATHS[path].kind, PATHS[path].name)
        assert pause["reason"] == "übermäßig"
        assert 2_590_000 < pause["expires_in_s"] <= 2_592_000
        assert await paused_queues(second) == dict.fromkeys(paused, "pause")
        rows = await get(first, "providers")
        assert [row["paused"] for row in rows] == [False, path == "providers/smtp"]
        assert (await post(second, f"{path}/resume"))[1]["resumed"] is True
        assert (await post(first, f"{path}/resume"))[1]["resumed"] is False
        assert await paused_queues(first) == {}


async def test_a_pause_of_a_removed_provider_can_be_resumed(
    database_url: str,
) -> None:
    async with (
        real_api(database_url) as client,
        open_controls(ConnectionSettings(url=database_url), worker_id()) as controls,
    ):
        await controls.pause(Scope(ScopeKind.PROVIDER, "gone"), reason="", for_s=None)
        assert (await post(client, "providers/gone/pause"))[0] == 404
        assert (await post(client, "providers/gone/resume"))[1]["resumed"] is True
        assert (await post(client, "providers/gone/resume"))[0] == 404
        assert await get(client, "pauses") == []


async def test_an_expired_pause_is_not_listed(database_url: str) -> None:
    async with real_api(database_url) as client:
        for seconds in ("0.001", "1e-320"):
            body = f'{{"for":{seconds}}}'.encode()
            status, _ = await post(client, "queues/email.low/pause", data=body, headers=JSON)
            assert status == 200
            await asyncio.sleep(0.01)
            assert await get(client, "pauses") == []


async def test_a_pause_is_refused_while_postgres_is_down_and_accepted_afterwards(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    async with real_api(private_database_url) as client:
        assert (await post(client, "channels/sms/pause"))[0] == 200
        await run_steps_async(private_postgres.killing())
        for path in ("channels/sms/resume", "queues/email.low/pause"):
            assert (await post(client, path))[0] == 503
        await run_steps_async(private_postgres.starting())
        async with asyncio.timeout(20):
            while (await post(client, "channels/sms/resume"))[0] != 200:
                await asyncio.sleep(0.05)
        assert await get(client, "pauses") == []
