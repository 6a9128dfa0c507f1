"""Keys on real processes: two APIs, the command line, and what they write about a key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness.client import QUEUES, open_client, submit_body
from harness.system import System, running_system, urls
from notifier.domain.credentials import ENTROPY_BYTES, Mode, new_credential, parse_credential
from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import run_steps_async

BOUND_S = 30.0


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    settings = urls(database_url, vhost_url) | {"api.auth": "keys", "log.level": "debug"}
    with running_system(system_folder, settings) as system:
        yield system


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def answer(
    http: aiohttp.ClientSession, url: str, key: str, body: Mapping[str, object] | None = None
) -> tuple[int, Any]:
    headers, method = {"Authorization": f"Bearer {key}"}, "GET" if body is None else "POST"
    async with http.request(method, url, json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_a_key_works_at_once_in_two_apis_is_refused_by_both_and_is_in_no_log(
    system: System, http: aiohttp.ClientSession
) -> None:
    (port,) = free_ports(1)
    system.start_api()
    second = system.spawn_api_at(port)
    async with asyncio.timeout(BOUND_S):
        await run_steps_async(second.starting())
    one, other = system.api_url, second.url
    first_key = system.run("keys", "create", "--database").stdout.strip()
    status, made = await answer(http, f"{one}/v1/keys", first_key, {"scopes": ["submit", "read"]})
    assert status == 201
    key = made["secret"]
    assert (await answer(http, f"{other}/v1/notifications", key, submit_body()))[0] == 202
    assert (await answer(http, f"{one}/v1/notifications", key))[0] == 200
    assert (await answer(http, f"{one}/v1/keys", key))[0] == 403
    revoked = system.run("keys", "revoke", made["id"], NOTIFIER_CLIENT__KEY=first_key)
    assert revoked.returncode == 0, revoked
    async with asyncio.timeout(BOUND_S):
        for url in (one, other):
            while (await answer(http, f"{url}/v1/notifications", key))[0] == 200:
                await asyncio.sleep(0.02)
    assert (await answer(http, f"{other}/v1/notifications", first_key))[0] == 200
    shown = system.run("keys", "list", NOTIFIER_CLIENT__KEY=first_key)
    assert parse_credential(first_key).id in shown.stdout
    audited = system.run("audit", "--action", "key.revoked", NOTIFIER_CLIENT__KEY=first_key)
    assert f"key:{made['id']}" in audited.stdout, audited
    refused = system.run("queues", NOTIFIER_CLIENT__KEY=key)
    assert (refused.returncode, "401" in refused.stderr) == (1, True)
    written = [child.log.read_text() for child in (*system.children, second)]
    written += [await text(http, f"{url}/metrics") for url in (one, other)]
    written += [revoked.stdout, shown.stdout, refused.stderr]
    unknown = new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES)).text
    written += [str(await answer(http, f"{url}/v1/notifications", unknown)) for url in (one, other)]
    cookie = await session_cookie(http, one, first_key)
    written += [system.run(command).stdout for command in ("check-config", "doctor")]
    written += [child.log.read_text() for child in (*system.children, second)]
    secrets = [parse_credential(each).secret for each in (first_key, key, unknown)]
    for secret in (*secrets, cookie.rpartition(".")[2]):
        assert not [place for place in written if secret in place]


async def session_cookie(http: aiohttp.ClientSession, url: str, key: str) -> str:
    async with http.post(f"{url}/v1/session", json={"key": key}) as response:
        assert response.status == 201
        return response.headers["Set-Cookie"].partition(";")[0]


async def text(http: aiohttp.ClientSession, url: str) -> str:
    async with http.get(url) as response:
        return await response.text()


def test_an_api_without_keys_is_not_reachable_from_outside_unless_that_is_said(
    system: System,
) -> None:
    open_to_all = {"NOTIFIER_API__AUTH": "off", "NOTIFIER_API__HOST": "0.0.0.0"}
    refused = system.run("api", **open_to_all)
    assert (refused.returncode, "api.auth" in refused.stderr) == (2, True)


TEST_CHANNEL = {
    "channels.test.address": "token",
    "channels.test.provider": "test",
    "providers.test.type": "sandbox",
}


@pytest.fixture
def testing(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    """A system that has a place for the notifications of test keys."""
    settings = urls(database_url, vhost_url) | {"api.auth": "keys"} | TEST_CHANNEL
    with running_system(system_folder, settings) as system:
        yield system


async def test_what_a_test_key_submits_ends_by_its_fate_and_reaches_no_provider(
    testing: System,
) -> None:
    testing.start_all()
    create = ("keys", "create", "--database")
    live, tested = (
        testing.run(*create, *words).stdout.strip()
        for words in (("--scope", "operate"), ("--test",))
    )
    async with open_client(testing.api_url, testing.sandbox_url) as client:
        client.key = tested
        bodies = [submit_body(queue, fate) for queue in QUEUES for fate in ("ok", "refuse")]
        ids = await client.submit(bodies)
        assert await client.all_final(ids) == {"sent": len(QUEUES), "failed": len(QUEUES)}
        found = await client.notification(ids[0])
        assert (found["mode"], found["channel"], found["queue"]) == ("test", "email", "test.high")
        assert (found["provider"], found["reference"]) == ("test", f"test-{ids[0]}")
        assert await client.log() == []
        client.key = live
        assert await client.statuses() == {}
