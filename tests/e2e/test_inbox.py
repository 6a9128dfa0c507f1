"""An inbox on real processes: from the submit to the page of the user, as the guide has it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest

from harness.client import Document, open_client, until
from harness.system import System, running_system, urls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from harness.client import Client

PAGE: Final = Path(__file__).with_name("inbox_page.mjs")
GUIDE: Final = Path(__file__).parents[2] / "docs/inbox.md"
NODE: Final = Path(sys.executable).with_name("node")
ORIGIN: Final = "https://app.example.com"
USER: Final = "a/bä"
PATH: Final = quote(USER, safe="")
MAX_LINES: Final = 32
"""The script of the guide, with its list and its tags."""
SETTINGS: Final = {
    "api.auth": "keys",
    "api.cors_origins": json.dumps([ORIGIN]),
    "log.level": "debug",
    "channels.inbox.address": "user",
    "channels.inbox.provider": "inbox",
    "providers.inbox.type": "inbox",
    "channels.test.address": "token",
    "channels.test.provider": "tests",
    "providers.tests.type": "sandbox",
}


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    with running_system(system_folder, urls(database_url, vhost_url) | SETTINGS) as system:
        yield system


def key(system: System, *words: str) -> str:
    made = system.run("keys", "create", "--database", "--tenant", "default", *words)
    assert made.returncode == 0, made
    return made.stdout.strip()


def entry(body: str, user: str = USER, **more: object) -> Document:
    return {"channel": "inbox", "recipient": user, "content": {"body": body}, **more}


@asynccontextmanager
async def client_with(system: System, key: str) -> AsyncIterator[Client]:
    async with open_client(system.api_url, system.sandbox_url) as client:
        client.key = key
        yield client


async def test_a_page_shows_what_is_sent_and_marks_it(system: System, tmp_path: Path) -> None:
    system.start_all()
    script = tmp_path / "page.js"
    script.write_text(script_of_the_guide())
    async with client_with(system, key(system)) as client:
        await client.final(await client.submit_one(entry("first")))
        made = await client.call("POST", f"inbox/{PATH}/token", json={"ttl_s": 600})
        async with page(script, system.api_url, made["token"]) as lines:
            await shown(lines, [["first", "read"]])
            titled = entry("second")
            titled["content"]["subject"] = "<b>Order</b>"
            second = await client.submit_one(titled)
            await shown(lines, [["<b>Order</b>: second", "read"], ["first", "read"]])
        await client.final(second)
        listed = await client.call("GET", f"inbox/{PATH}")
        assert listed["unread"] == 0
        assert listed["items"][0]["id"] == second
    written = [child.log.read_text() for child in system.children]
    assert not [text for text in written if made["token"] in text or USER in text or PATH in text]


def script_of_the_guide() -> str:
    (html,) = re.findall(r"^```html\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(html.splitlines()) <= MAX_LINES
    assert "innerHTML" not in html
    (script,) = re.findall(r"<script type=\"module\">\n(.*)</script>", html, re.DOTALL)
    return str(script)


@asynccontextmanager
async def page(script: Path, api: str, token: str) -> AsyncIterator[asyncio.StreamReader]:
    """The page of a user; yields what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(NODE, PAGE, script, api, ORIGIN, token),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # the program in .venv starts the real one
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def shown(lines: asyncio.StreamReader, expected: list[list[str]]) -> None:
    """Wait until the page shows this list."""
    async with asyncio.timeout(60):
        while (line := await lines.readline()) and json.loads(line) != expected:
            pass
    assert line, "the page has ended"


async def test_tests_have_inboxes_of_their_own_and_lists_hide_both(system: System) -> None:
    system.start_all()
    live, tests = key(system), key(system, "--test")
    ids = {}
    for one in (live, tests):
        async with client_with(system, one) as client:
            ids[one] = await client.submit_one(entry(one[:8]))
            assert (await client.final(ids[one]))["status"] == "sent"
            page = await until(
                lambda client=client: client.call("GET", f"inbox/{PATH}"),  # type: ignore[misc]
                lambda page: page["items"],
            )
            assert [item["id"] for item in page["items"]] == [ids[one]]
    async with client_with(system, live) as client:
        assert (await client.call("GET", "notifications"))["items"] == []
        listed = await client.call("GET", "notifications?channel=inbox")
        assert [item["id"] for item in listed["items"]] == [ids[live]]


async def test_a_killed_worker_leaves_no_entry_out_and_none_twice(system: System) -> None:
    system.start_all()
    second = system.start_another_worker()
    async with client_with(system, key(system)) as client:
        ids = await client.submit([entry(str(number)) for number in range(300)])
        second.kill()
        second.has_started = False
        for id_ in ids:
            assert (await client.final(id_))["status"] == "sent"
        found: list[Any] = []
        query = "?limit=200"
        while query:
            page = await client.call("GET", f"inbox/{PATH}{query}")
            found += [item["id"] for item in page["items"]]
            query = f"?limit=200&cursor={page['next_cursor']}" if page["next_cursor"] else ""
        assert sorted(found) == sorted(ids)
