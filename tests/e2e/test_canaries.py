"""Nothing that is secret or personal leaves the places that are made for it.

Canaries stand in every credential, recipient and content; the fates are mixed, and one provider
echoes all it is sent. Then everything that the system wrote is searched for them.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aio_pika
import aiohttp
import pytest

from harness.client import QUEUES, Client
from harness.system import System, running_system, urls
from tests.integration.raw_servers import RawServer, http_response, open_http_script

DATABASE = "canary-of-database"
TOKEN = "canary-of-token"
HEADER = "canary-of-header"
PERSON = "canary-of-person"
PHONE = "15005557396"
SUBJECT, BODY, DATA, KEPT = (
    f"canary-of-{name}" for name in ("subject", "body", "data", "metadata")
)
STRANGER = "canary-of-stranger"
"""A value in refused requests, which only its own caller may see."""

CREDENTIALS = (DATABASE, TOKEN, HEADER, b64encode(f"AC1:{TOKEN}".encode()).decode())
PERSONAL = (PERSON, PHONE, SUBJECT, BODY, DATA, KEPT, STRANGER)


@pytest.fixture
async def echo() -> AsyncIterator[RawServer]:
    """A provider that refuses everything and echoes what it was sent, also as its code."""

    def echoed(_: int) -> bytes:
        asked = raw.seen[-1]
        signed = next(line for line in asked.splitlines() if line.startswith("Authorization"))
        body = {"code": f"+{PHONE}", "message": f"{signed} {TOKEN} {asked}"}
        return http_response("400 Bad Request", json.dumps(body).encode())

    async with open_http_script(echoed) as raw:
        yield raw


@pytest.fixture
def system(
    system_folder: Path, database_url: str, vhost_url: str, echo: RawServer
) -> Iterator[System]:
    database = database_url.replace("postgres@", f"postgres:{DATABASE}@")
    secrets = {
        "log.level": "debug",
        "providers.twilio.url": f"http://127.0.0.1:{echo.port}/",
        "providers.twilio.username": "AC1",
        "providers.twilio.password": TOKEN,
        "providers.fcm.headers.authorization": f"Bearer {HEADER}",
    }
    with running_system(system_folder, urls(database, vhost_url) | secrets) as system:
        yield system


def wanted(channel: str, recipient: str, **more: object) -> dict[str, object]:
    content: dict[str, object] = {"subject": SUBJECT, "body": BODY}
    if channel == "push":
        content["data"] = {"key": DATA}
    return {
        "channel": channel,
        "priority": "high",
        "recipient": recipient,
        "content": content,
        "metadata": {"kept": KEPT},
        **more,
    }


MIXED = [
    *(wanted("email", f"{fate}+{PERSON}@example.com") for fate in ("ok", "refuse", "flaky-2")),
    *(wanted("email", f"{fate}+{PERSON}@example.com", max_tries=2) for fate in ("down", "cut")),
    *(wanted("push", f"fate-{fate}-{PERSON}") for fate in ("ok", "refuse")),
    wanted("sms", f"+{PHONE}"),
]


async def test_what_is_secret_or_personal_is_in_no_log_metric_message_or_other_answer(
    system: System, client: Client, vhost_url: str
) -> None:
    system.start_all()
    async with every_message(vhost_url) as messages:
        ids = await client.submit(MIXED)
        await client.all_final(ids)
        await refused_requests(client.api)
        mine = [await client.notification(which) for which in ids]
        written = await told_to_others(client, system)
    (echoed,) = next(one["attempts"] for one in mine if one["channel"] == "sms")
    assert echoed["code"] == "400", "what names the recipient is no code"
    assert {PHONE in echoed["detail"], "Basic ***" in echoed["detail"]} == {True}, echoed
    assert len(messages) >= len(MIXED)
    written |= {child.log.name: child.log.read_text() for child in system.children}
    written |= {" ".join(words): said(system, *words) for words in COMMANDS}
    written["messages"] = " ".join(messages)
    assert leaks(written, (*CREDENTIALS, *PERSONAL)) == []
    assert leaks({"the caller's own": json.dumps(mine)}, CREDENTIALS) == []


COMMANDS = (("check-config",), ("doctor",), ("doctor", "--json"), ("providers",), ("queues",))


def said(system: System, *words: str) -> str:
    ended = system.run(*words)
    return ended.stdout + ended.stderr


def leaks(written: dict[str, str], canaries: tuple[str, ...]) -> list[str]:
    return [
        f"{where}: {canary}: ...{text[max(0, text.index(canary) - 200) :][:400]}"
        for where, text in written.items()
        for canary in canaries
        if canary in text
    ]


@asynccontextmanager
async def every_message(vhost_url: str) -> AsyncIterator[list[str]]:
    """Collect every published message with its properties, from a queue bound beside each queue."""
    seen: list[str] = []
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        for name in QUEUES:
            await queue.bind("notifier", name)

        async def keep(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            seen.append(f"{message.body.decode()} {message.info()}")

        await queue.consume(keep, no_ack=True)
        yield seen


async def refused_requests(api: str) -> None:
    """Send requests with every kind of error, each containing the canary."""
    good = {"channel": "email", "recipient": "ada@example.com", "content": {"subject": "x"}}
    wrong: list[Any] = [
        {**good, "recipient": STRANGER},
        {**good, STRANGER: 1},
        {**good, "channel": STRANGER},
        {**good, "content": {STRANGER: "x"}},
        {**good, "content": {"data": {STRANGER: "\0"}}},
        STRANGER,
    ]
    async with aiohttp.ClientSession(api) as session:
        for document in wrong:
            await refused(session.post("/v1/notifications", json=document))
            batch = {"notifications": [document]}
            await refused(session.post("/v1/notifications/batch", json=batch))
        cut, is_json = f'{{"{STRANGER}": "', {"Content-Type": "application/json"}
        await refused(session.post("/v1/notifications", data=cut, headers=is_json))
        for path in (f"/{STRANGER}", f"/v1/notifications/{STRANGER}", f"/v1/failures?{STRANGER}=1"):
            await refused(session.get(path, headers={"Authorization": f"Bearer {STRANGER}"}))
        await refused(session.get(f"/v1/notifications?cursor={quote(STRANGER)}"))
        await refused(session.put(f"/v1/pauses/queue/{STRANGER}", json={"note": STRANGER}))


async def refused(asking: Any) -> None:
    async with asking as answer:
        assert 400 <= answer.status < 500, await answer.text()


async def told_to_others(client: Client, system: System) -> dict[str, str]:
    """Read everything that a caller without a submit may read."""
    worker = system.worker_url
    asked = [f"{each}/metrics" for each in (client.api, worker)]
    asked += [f"{each}/health/ready" for each in (client.api, worker)]
    asked += [f"{client.api}/v1/{of}" for of in ("queues", "providers", "pauses", "nothing")]
    asked += [f"{client.api}/v1/notifications?limit=0", f"{client.api}/docs/openapi.json"]
    return {url: await client.text(url) for url in asked}
