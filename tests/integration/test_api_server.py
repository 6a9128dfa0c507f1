from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from notifier.api.http.server import bind, open_server
from notifier.domain.errors import ConfigError
from tests.unit.fakes_api import MemoryStore, make_api, open_client, submit_body

NOTIFICATIONS = "/v1/notifications"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(MemoryStore())) as client:
        yield client


def test_a_port_in_use_is_reported_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            bind("127.0.0.1", port)
    assert str(caught.value) == (
        f"127.0.0.1:{port} is in use: another process listens there; choose another with --port"
    )


def test_an_address_of_another_machine_is_reported_in_one_line() -> None:
    with pytest.raises(ConfigError, match="is not an address of this machine"):
        bind("192.0.2.1", 0)


def test_an_unknown_host_name_is_reported_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.invalid:0 cannot be listened on"):
        bind("nowhere.invalid", 0)


async def test_a_request_in_flight_is_answered_before_the_server_stops() -> None:
    store = MemoryStore()
    store.released.clear()
    async with asyncio.TaskGroup() as group:
        async with (
            aiohttp.ClientSession() as client,
            open_server(make_api(store), host="127.0.0.1", port=0, grace_s=5) as port,
        ):
            url = f"http://127.0.0.1:{port}{NOTIFICATIONS}"
            submit = group.create_task(client.post(url, json=submit_body()), name="submit")
            await store.entered.wait()
            asyncio.get_running_loop().call_later(0.15, store.released.set)
        async with submit.result() as response:
            assert response.status == 202
    assert len(store.new) == 1
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_request_that_outlasts_the_grace_period_is_cancelled() -> None:
    store = MemoryStore()
    store.released.clear()
    async with asyncio.TaskGroup() as group:
        async with (
            aiohttp.ClientSession() as client,
            open_server(make_api(store), host="127.0.0.1", port=0, grace_s=1) as port,
        ):
            url = f"http://127.0.0.1:{port}{NOTIFICATIONS}"
            submit = group.create_task(_status(client, url), name="submit")
            await store.entered.wait()
        assert await submit in {None, 500}
    assert not store.new


async def _status(client: aiohttp.ClientSession, url: str) -> int | None:
    try:
        async with client.post(url, json=submit_body()) as response:
            return response.status
    except aiohttp.ClientError:
        return None


async def test_the_root_redirects_to_the_reference(client: aiohttp.ClientSession) -> None:
    async with client.get("/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, "/docs")


async def test_the_reference_loads_no_assets_and_runs_no_scripts(
    client: aiohttp.ClientSession,
) -> None:
    async with client.get("/docs") as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]
        assert response.content_type == "text/html"
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"<script|<link|<img|@import|url\(", page)
    assert f"curl {response.url.origin()}/v1/notifications -H" in page


@pytest.mark.parametrize(
    ("host", "is_shown"),
    [("notify.example", True), ("[::1]:8000", True), ("$(reboot)", False), ("x;reboot", False)],
)
async def test_the_reference_shows_the_requested_host_if_it_is_valid(
    client: aiohttp.ClientSession, host: str, is_shown: bool
) -> None:
    async with client.get("/docs") as response:
        own = str(response.url.origin())
    async with client.get("/docs", headers={"Host": host}) as response:
        page = await response.text()
    assert f"curl {f'http://{host}' if is_shown else own}/v1/queues" in page
    assert is_shown or host not in page


async def test_a_websocket_request_is_answered_as_http_and_not_logged(
    client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with client.get("/health/live", headers=headers) as response:
        assert response.status == 200
    assert not caplog.records


async def test_live_and_metrics_are_served(client: aiohttp.ClientSession) -> None:
    async with client.get("/health/live") as response:
        assert await response.json() == {"status": "live"}
    async with client.head("/health/live") as response:
        assert (response.status, await response.read()) == (200, b"")
    async with client.get("/metrics") as response:
        assert await response.text() == "notifier_up 1\n"
        assert response.headers["Content-Type"] == "text/plain; version=1.0.0"


async def test_a_process_that_is_not_ready_lists_the_reasons() -> None:
    app = make_api(MemoryStore(), reasons=["Postgres is away", "the clock is off by 7 s"])
    async with open_client(app) as client, client.get("/health/ready") as response:
        assert (response.status, response.content_type) == (503, "application/problem+json")
        problem = await response.json(content_type=None)
    assert problem["reasons"] == ["Postgres is away", "the clock is off by 7 s"]


async def test_a_ready_process_answers_200(client: aiohttp.ClientSession) -> None:
    async with client.get("/health/ready") as response:
        assert (response.status, await response.json()) == (200, {"status": "ready"})


async def test_an_unknown_path_is_a_problem(client: aiohttp.ClientSession) -> None:
    async with client.get("/v2/anything") as response:
        assert (response.status, response.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE"])
async def test_a_wrong_method_is_a_problem_with_the_allowed_methods(
    client: aiohttp.ClientSession, method: str
) -> None:
    async with client.request(method, NOTIFICATIONS) as response:
        assert (response.status, response.content_type) == (405, "application/problem+json")
        allowed = {name.strip() for name in response.headers["Allow"].split(",")}
    assert allowed == {"GET", "HEAD", "OPTIONS", "POST"}


async def test_options_lists_the_allowed_methods(client: aiohttp.ClientSession) -> None:
    async with client.options(NOTIFICATIONS) as response:
        assert (response.status, response.headers["Allow"]) == (200, "GET, HEAD, OPTIONS, POST")
