"""`notifier events` against a real API on a real Postgres."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.tcp_proxy import open_proxy
from tests.integration.test_api_events import Api, open_api
from tests.integration.test_cli_api import Cli


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with open_api(database_url) as api:
        yield api


async def address_of(api: Api) -> str:
    async with api.client.get("/health/live") as response:
        return str(response.url.origin())


@pytest.fixture
async def cli(api: Api, tmp_path: Path) -> Cli:
    return Cli(await address_of(api), tmp_path)


async def test_the_last_events_and_those_since_a_time_are_printed(cli: Cli, api: Api) -> None:
    sent = await api.send("a", "b", "a")
    last = await cli.run("events", "--limit", "2")
    assert (last.code, last.err) == (0, "")
    assert [line.split()[2] for line in last.out.splitlines()] == sent[1:]
    since = await cli.run("events", "--since", "1h", "--tag", "a", "--type", "notification.sent")
    assert [line.split()[2] for line in since.out.splitlines()] == [sent[0], sent[2]]
    as_json = await cli.run("events", "--since", "1h", "--json")
    documents = [json.loads(line) for line in as_json.out.splitlines()]
    assert [each["data"]["notification"]["id"] for each in documents] == sent


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--json",), 2, "--since"),
        (("--follow", "--type", "nothing"), 1, "400"),
        (("--since", "1h", "--notification", "5"), 1, "400"),
        (("--limit", "0"), 2, "limit"),
    ],
)
async def test_what_cannot_be_asked_is_said(
    cli: Cli, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    done = await cli.run("events", *arguments)
    assert (done.code, expected in done.err) == (code, True), done.err


@asynccontextmanager
async def following(url: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier", "events", "--follow", "--since", "1h", "--json"),
        *("--url", url),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.communicate()


async def test_a_stream_that_is_cut_off_is_resumed_and_prints_each_event_once(
    api: Api, tmp_path: Path
) -> None:
    port = urlsplit(await address_of(api)).port
    assert port is not None
    async with (
        open_proxy("127.0.0.1", port) as proxy,
        following(f"http://127.0.0.1:{proxy.port}", tmp_path) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        sent: list[str] = []
        printed: list[str] = []
        for _ in range(3):
            sent += await api.send("a", "b")
            while len(printed) < len(sent):
                document = json.loads(await process.stdout.readline())
                printed.append(document["data"]["notification"]["id"])
            proxy.cut()
            assert b"connecting again" in await process.stderr.readline()
            sent += await api.send()
            proxy.heal()
        while len(printed) < len(sent):
            document = json.loads(await process.stdout.readline())
            printed.append(document["data"]["notification"]["id"])
        assert printed == sent
