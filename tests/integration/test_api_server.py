from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from notifier.api.http.server import bind, open_server
from notifier.domain.errors import ConfigError
from tests.unit.fakes_api import MemoryStore, a_submit, make_api, open_client

ONE = "/v1/notifications"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(MemoryStore())) as client:
        yield client


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            bind("127.0.0.1", port)
    assert str(caught.value) == (
        f"127.0.0.1:{port} is in use: another process listens there; choose another with --port"
    )


def test_an_address_of_another_machine_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match="is not an address of this machine"):
        bind("192.0.2.1", 0)


def test_a_name_that_is_no_host_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.invalid:0 cannot be listened on"):
        bind("nowhere.invalid", 0)


async def test_what_is_in_flight_is_answered_before_the_server_ends() -> None:
    store = MemoryStore()
    store.hold.clear()
    async with asyncio.TaskGroup() as group:
        async with (
            aiohttp.ClientSession() as client,
            open_server(make_api(store), host="127.0.0.1", port=0, grace_s=5) as port,
        ):
            url = f"http://127.0.0.1:{port}{ONE}"
            asked = group.create_task(client.post(url, json=a_submit()), name="asked")
            await store.entered.wait()
            asyncio.get_running_loop().call_later(0.15, store.hold.set)
        async with asked.result() as answer:
            assert answer.status == 202
    assert len(store.new) == 1
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_what_is_not_answered_within_the_grace_is_cancelled() -> None:
    store = MemoryStore()
    store.hold.clear()
    async with asyncio.TaskGroup() as group:
        async with (
            aiohttp.ClientSession() as client,
            open_server(make_api(store), host="127.0.0.1", port=0, grace_s=1) as port,
        ):
            url = f"http://127.0.0.1:{port}{ONE}"
            asked = group.create_task(_status(client, url), name="asked")
            await store.entered.wait()
        assert await asked in {None, 500}
    assert not store.new


async def _status(client: aiohttp.ClientSession, url: str) -> int | None:
    try:
        async with client.post(url, json=a_submit()) as answer:
            return answer.status
    except aiohttp.ClientError:
        return None


async def test_the_first_page_leads_to_the_reference(client: aiohttp.ClientSession) -> None:
    async with client.get("/", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, "/docs")


async def test_the_reference_loads_nothing_and_runs_nothing(
    client: aiohttp.ClientSession,
) -> None:
    async with client.get("/docs") as answer:
        page = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
        assert answer.content_type == "text/html"
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"<script|<link|<img|@import|url\(", page)
    assert f"curl {answer.url.origin()}/v1/notifications -H" in page


@pytest.mark.parametrize(
    ("host", "shown"),
    [("notify.example", True), ("[::1]:8000", True), ("$(reboot)", False), ("x;reboot", False)],
)
async def test_the_reference_names_the_host_its_reader_named_unless_it_is_none(
    client: aiohttp.ClientSession, host: str, shown: bool
) -> None:
    async with client.get("/docs") as answer:
        own = str(answer.url.origin())
    async with client.get("/docs", headers={"Host": host}) as answer:
        page = await answer.text()
    assert f"curl {f'http://{host}' if shown else own}/v1/queues" in page
    assert shown or host not in page


async def test_a_wish_for_a_websocket_is_answered_and_not_logged(
    client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    wish = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with client.get("/health/live", headers=wish) as answer:
        assert answer.status == 200
    assert not caplog.records


async def test_live_and_metrics_answer(client: aiohttp.ClientSession) -> None:
    async with client.get("/health/live") as answer:
        assert await answer.json() == {"status": "live"}
    async with client.head("/health/live") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    async with client.get("/metrics") as answer:
        assert await answer.text() == "notifier_up 1\n"
        assert answer.headers["Content-Type"] == "text/plain; version=1.0.0"


async def test_not_ready_says_why_not() -> None:
    app = make_api(MemoryStore(), reasons=["Postgres is away", "the clock is off by 7 s"])
    async with open_client(app) as client, client.get("/health/ready") as answer:
        assert (answer.status, answer.content_type) == (503, "application/problem+json")
        problem = await answer.json(content_type=None)
    assert problem["reasons"] == ["Postgres is away", "the clock is off by 7 s"]


async def test_ready_is_said(client: aiohttp.ClientSession) -> None:
    async with client.get("/health/ready") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ready"})


async def test_an_unknown_address_is_a_problem(client: aiohttp.ClientSession) -> None:
    async with client.get("/v2/anything") as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE"])
async def test_a_wrong_method_is_a_problem_that_says_which_are_right(
    client: aiohttp.ClientSession, method: str
) -> None:
    async with client.request(method, ONE) as answer:
        assert (answer.status, answer.content_type) == (405, "application/problem+json")
        allowed = {one.strip() for one in answer.headers["Allow"].split(",")}
    assert allowed == {"GET", "HEAD", "OPTIONS", "POST"}


async def test_options_says_which_methods_are_right(client: aiohttp.ClientSession) -> None:
    async with client.options(ONE) as answer:
        assert (answer.status, answer.headers["Allow"]) == (200, "GET, HEAD, OPTIONS, POST")
