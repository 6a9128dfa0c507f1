"""Pause and resume over HTTP: over a store in memory, and over a real Postgres."""

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
from notifier.api.settings import ApiSettings
from notifier.domain.controls import Pause, Scope, ScopeKind
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Channel
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import run_steps_async
from notifier.scheduling.cluster.cluster_figures import ClusterFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from notifier.scheduling.deployment_status import DeploymentStatus
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import QUEUES, worker_id
from tests.doubles import FixedFigures
from tests.unit.fakes_api import MemoryStore, make_api, open_client

SETTINGS = ApiSettings(providers=("http", "smtp"), request_deadline_s=2.0)
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
    async with open_client(make_api(store, SETTINGS)) as client:
        yield client


async def posted(client: aiohttp.ClientSession, path: str, **said: Any) -> tuple[int, Any]:
    async with client.post(f"/v1/{path}", **said) as answer:
        return answer.status, await answer.json(content_type=None)


async def shown(client: aiohttp.ClientSession, path: str) -> Any:
    async with client.get(f"/v1/{path}") as answer:
        assert answer.status == 200
        return await answer.json()


# ---- over a store in memory ---------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_each_kind_is_paused_listed_and_resumed(
    client: aiohttp.ClientSession, store: MemoryStore, path: str
) -> None:
    scope = PATHS[path]
    said = {"kind": scope.kind, "name": scope.name, "reason": "too much", "expires_in_s": 60.0}
    asked = {"reason": "too much", "for": 60}
    assert await posted(client, f"{path}/pause", json=asked) == (200, said)
    assert await shown(client, "pauses") == [said]
    for was_paused in (True, False):
        resumed = {"kind": scope.kind, "name": scope.name, "resumed": was_paused}
        assert await posted(client, f"{path}/resume") == (200, resumed)
    assert store.paused == {}


@pytest.mark.parametrize(
    "said",
    [{}, {"data": b"", "headers": JSON}, {"json": {}}, {"json": {"for": None}}],
    ids=["none", "empty", "empty object", "null"],
)
async def test_what_is_not_said_is_until_resumed_and_without_reason(
    client: aiohttp.ClientSession, store: MemoryStore, said: dict[str, Any]
) -> None:
    status, answer = await posted(client, "queues/email.low/pause", **said)
    assert (status, answer["expires_in_s"], answer["reason"]) == (200, None, "")
    assert store.paused[EMAIL_LOW].expires_in_s is None


async def test_a_pause_that_holds_gets_a_new_reason_and_end(
    client: aiohttp.ClientSession,
) -> None:
    for said in ({"reason": "first"}, {"reason": "second", "for": 5}):
        await posted(client, "queues/email.low/pause", json=said)
    (only,) = await shown(client, "pauses")
    assert (only["reason"], only["expires_in_s"]) == ("second", 5.0)


async def test_a_reason_may_be_long_and_in_any_script(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    reason = "\N{GRINNING FACE}" * 300
    assert (await posted(client, "queues/email.low/pause", json={"reason": reason}))[0] == 200
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
        ("providers/nobody", "There is no provider 'nobody'. There are: http, smtp."),
        ("providers/%00", "There is no provider '\\x00'. There are: http, smtp."),
    ],
)
async def test_what_does_not_exist_is_named_with_what_there_is(
    client: aiohttp.ClientSession, store: MemoryStore, path: str, detail: str, action: str
) -> None:
    status, problem = await posted(client, f"{path}/{action}")
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
async def test_a_bad_body_is_refused_with_its_field(
    client: aiohttp.ClientSession, store: MemoryStore, body: bytes, field: str
) -> None:
    status, problem = await posted(client, "queues/email.low/pause", data=body, headers=JSON)
    assert (status, problem["field"]) == (400, field)
    assert store.paused == {}


async def test_an_unknown_field_is_answered_with_those_there_are(
    client: aiohttp.ClientSession,
) -> None:
    _, problem = await posted(client, "queues/email.low/pause", json={"for_s": 1})
    assert problem["expected"] == "only reason, for here"


async def test_a_body_too_large_or_of_another_type_is_refused(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    large = b" " * (MAX_BODY_BYTES + 1)
    assert (await posted(client, "queues/email.low/pause", data=large, headers=JSON))[0] == 413
    assert (await posted(client, "queues/email.low/pause", data={"for": "5"}))[0] == 415
    assert store.paused == {}


@pytest.mark.parametrize(
    "path", [f"{path}/{verb}" for path in PATHS for verb in ("pause", "resume")]
)
async def test_without_postgres_nothing_is_promised(
    client: aiohttp.ClientSession, store: MemoryStore, path: str
) -> None:
    store.broken = StoreUnavailable("gone")
    async with client.post(f"/v1/{path}") as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", ["pauses", "providers"])
async def test_the_lists_need_postgres_too(
    client: aiohttp.ClientSession, store: MemoryStore, path: str
) -> None:
    store.broken = StoreUnavailable("gone")
    async with client.get(f"/v1/{path}") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


class Slow(MemoryStore):
    """A store that takes its time."""

    @override
    async def resume(self, scope: Scope) -> bool:
        await asyncio.Event().wait()
        return True

    @override
    async def pauses(self) -> list[Pause]:
        await asyncio.Event().wait()
        return []


async def test_an_answer_that_takes_too_long_is_a_503() -> None:
    hasty = ApiSettings(request_deadline_s=0.05)
    async with open_client(make_api(Slow(), hasty)) as client:
        assert (await posted(client, "queues/email.low/resume"))[0] == 503
        async with client.get("/v1/pauses") as answer:
            assert answer.status == 503


async def test_the_providers_show_their_breakers(client: aiohttp.ClientSession) -> None:
    await posted(client, "providers/smtp/pause")
    assert await shown(client, "providers") == [
        {
            "provider": "smtp",
            "channels": ["email"],
            "breaker": "open",
            "reason": "errors",
            "probe_in_s": 3.5,
            "paused": True,
            "calls": 20,
            "failures": 11,
        }
    ]


# ---- over a real Postgres -----------------------------------------------------------------------


@asynccontextmanager
async def real_api(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """One process's API, whose pauses and status come from Postgres."""
    settings, worker, memory = ConnectionSettings(url=url), worker_id(), MemoryStore()
    async with (
        open_store(settings, worker) as store,
        open_controls(settings, worker) as controls,
    ):
        app = create_api(
            acceptor=memory,
            reader=memory,
            board=DeploymentStatus(
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
            pausing=controls,
            settings=SETTINGS,
            readiness=list,
            metrics=lambda: (b"", "text/plain"),
        )
        async with open_client(app) as client:
            yield client


async def paused_queues(client: aiohttp.ClientSession) -> dict[str, str]:
    rows = await shown(client, "queues")
    return {row["queue"]: row["limited_by"] for row in rows if row["paused"]}


@pytest.mark.parametrize(
    ("path", "held"),
    [
        ("queues/email.low", ["email.low"]),
        ("channels/sms", ["sms.high", "sms.medium", "sms.low"]),
        ("providers/smtp", ["email.high", "email.medium", "email.low"]),
    ],
)
async def test_what_one_process_pauses_every_other_shows_until_one_resumes_it(
    database_url: str, path: str, held: list[str]
) -> None:
    async with real_api(database_url) as one, real_api(database_url) as other:
        asked = {"reason": "übermäßig", "for": 2_592_000}
        status, answer = await posted(one, f"{path}/pause", json=asked)
        assert (status, answer["expires_in_s"]) == (200, 2_592_000.0)
        (only,) = await shown(other, "pauses")
        assert (only["kind"], only["name"]) == (PATHS[path].kind, PATHS[path].name)
        assert only["reason"] == "übermäßig"
        assert 2_590_000 < only["expires_in_s"] <= 2_592_000
        assert await paused_queues(other) == dict.fromkeys(held, "pause")
        rows = await shown(one, "providers")
        assert [row["paused"] for row in rows] == [False, path == "providers/smtp"]
        assert (await posted(other, f"{path}/resume"))[1]["resumed"] is True
        assert (await posted(one, f"{path}/resume"))[1]["resumed"] is False
        assert await paused_queues(one) == {}


async def test_a_pause_of_what_the_settings_no_longer_have_can_be_ended(database_url: str) -> None:
    async with (
        real_api(database_url) as client,
        open_controls(ConnectionSettings(url=database_url), worker_id()) as controls,
    ):
        await controls.pause(Scope(ScopeKind.PROVIDER, "gone"), reason="", for_s=None)
        assert (await posted(client, "providers/gone/pause"))[0] == 404
        assert (await posted(client, "providers/gone/resume"))[1]["resumed"] is True
        assert (await posted(client, "providers/gone/resume"))[0] == 404
        assert await shown(client, "pauses") == []


async def test_a_pause_that_has_ended_is_gone(database_url: str) -> None:
    async with real_api(database_url) as client:
        for span in ("0.001", "1e-320"):
            body = f'{{"for":{span}}}'.encode()
            said = {"data": body, "headers": JSON}
            assert (await posted(client, "queues/email.low/pause", **said))[0] == 200
            await asyncio.sleep(0.01)
            assert await shown(client, "pauses") == []


async def test_while_postgres_is_away_a_pause_is_refused_and_after_it_is_taken(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    async with real_api(private_database_url) as client:
        assert (await posted(client, "channels/sms/pause"))[0] == 200
        await run_steps_async(private_postgres.killing())
        for path in ("channels/sms/resume", "queues/email.low/pause"):
            assert (await posted(client, path))[0] == 503
        await run_steps_async(private_postgres.starting())
        async with asyncio.timeout(20):
            while (await posted(client, "channels/sms/resume"))[0] != 200:
                await asyncio.sleep(0.05)
        assert await shown(client, "pauses") == []
