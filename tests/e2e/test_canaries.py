"""Nothing that is secret or personal leaves the places that are made for it.

Canaries stand in every credential, recipient, content, file, key and token; the fates are mixed,
one provider echoes all it is sent, and Postgres the rows that it refuses. Then everything that the
system wrote is searched for them.
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
import asyncpg
import pytest

from harness.client import QUEUES, Client, Document
from harness.system import System, running_system, urls
from notifier.domain.blobs import blob_id
from notifier.domain.credentials import Mode, new_credential, parse_credential
from tests.hostile_templates import BEYOND_FUEL
from tests.integration.raw_servers import RawServer, http_response, open_http_script

DATABASE = "canary-of-database"
TOKEN = "canary-of-token"
HEADER = "canary-of-header"
SIGNER = "canary-of-signer-with-at-least-32-characters"
UNKNOWN_KEY = new_credential(Mode.LIVE, b"canary--" * 7)
PERSON = "canary-of-person"
PHONE, REFUSED_PHONE = "15005557396", "15005557397"
(SUBJECT, BODY, DATA, KEPT, FILE, BLOB, NAME, COPY, BLIND, VARIABLE, KEY, SUPPRESSED) = (
    f"canary-of-{name}"
    for name in (
        *("subject", "body", "data", "metadata", "file", "blob", "name", "copy", "blind-copy"),
        *("variable", "idempotency-key", "suppressed"),
    )
)
POISON = "canary-of-poison"
"""In a submit that Postgres refuses, as it does the attempt with REFUSED_PHONE."""
STRANGER = "canary-of-stranger"
"""A value in refused requests, which only its own caller may see."""

CREDENTIALS = (
    *(DATABASE, TOKEN, HEADER, SIGNER, UNKNOWN_KEY.secret),
    b64encode(f"AC1:{TOKEN}".encode()).decode(),
)
PERSONAL = (
    *(PERSON, PHONE, REFUSED_PHONE, SUBJECT, BODY, DATA, KEPT, FILE, BLOB, NAME, COPY, BLIND),
    *(VARIABLE, KEY, SUPPRESSED, POISON, STRANGER),
    *(b64encode(text.encode()).decode().rstrip("=") for text in (FILE, BLOB)),
)
MAIL = f"From: shop@example.com\nSubject: {BLOB}\n\n{BLOB}\n".encode()
TEMPLATES = ("order", "raising", "endless")
BROKEN = {"raising": "{{ name - 1 }}", "endless": "{{ name }}" + BEYOND_FUEL["a list that doubles"]}
REFUSALS = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE invalid_text_representation USING MESSAGE = 'invalid: ' || NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON notifications FOR EACH ROW
    WHEN (NEW.recipient LIKE '%{POISON}%') EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse BEFORE INSERT ON attempts FOR EACH ROW
    WHEN (NEW.detail LIKE '%{REFUSED_PHONE}%') EXECUTE FUNCTION refuse();
"""
"""As Postgres reports a value of a wrong form: the value is in the message."""


@pytest.fixture
async def echo() -> AsyncIterator[RawServer]:
    """A provider that refuses everything and echoes what it was sent, also as its code."""

    def echoed(_: int) -> bytes:
        asked = raw.seen[-1]
        signed = next(line for line in asked.splitlines() if line.startswith("Authorization"))
        phone = REFUSED_PHONE if REFUSED_PHONE in asked else PHONE
        body = {"code": f"+{phone}", "message": f"+{phone} {signed} {TOKEN} {asked}"}
        return http_response("400 Bad Request", json.dumps(body).encode())

    async with open_http_script(echoed) as raw:
        yield raw


@pytest.fixture
def system(
    system_folder: Path, database_url: str, vhost_url: str, echo: RawServer, tmp_path: Path
) -> Iterator[System]:
    database = database_url.replace("postgres@", f"postgres:{DATABASE}@")
    (tmp_path / "signer").write_text(SIGNER)
    settings = {
        "log.level": "debug",
        "api.auth": "keys",
        "api.public_url": "https://notify.example.com",
        "security.secret_key_file": tmp_path / "signer",
        "lookups.recipient": "true",
        "lookups.metadata_keys": '["kept"]',
        "providers.twilio.url": f"http://127.0.0.1:{echo.port}/",
        "providers.twilio.username": "AC1",
        "providers.twilio.password": TOKEN,
        "providers.twilio.headers.x-secret": f"Bearer {HEADER}",
    }
    with running_system(system_folder, urls(database, vhost_url) | settings) as system:
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
    *(wanted("sms", f"+{phone}") for phone in (PHONE, REFUSED_PHONE)),
]


def rich() -> Iterator[Document]:
    """Emails with everything that one may have, a repeated one, a suppressed one, and templates."""
    to = f"{NAME} <ok+{PERSON}@example.com>"
    for data in ({"data": b64encode(FILE.encode()).decode()}, {"blob": blob_id(BLOB.encode())}):
        file = {"filename": f"{FILE}.pdf", "content_type": "application/pdf", **data}
        content = {
            "subject": SUBJECT,
            "html": BODY,
            "headers": {"X-Canary": SUBJECT},
            "cc": [f"{COPY}@example.com"],
            "bcc": [f"{BLIND}@example.com"],
            "reply_to": f"{COPY}@example.com",
            "attachments": [file],
        }
        yield wanted("email", to, content=content, topic="news")
    yield wanted("email", to, content={"mime": blob_id(MAIL)})
    for _ in range(2):
        yield wanted("email", to, idempotency_key=KEY)
    yield wanted("email", f"{SUPPRESSED}@example.com")
    for name in TEMPLATES:
        yield wanted("email", to, content=None, template=name, variables={"name": VARIABLE})


async def test_what_is_secret_or_personal_is_in_no_log_metric_message_or_other_answer(
    system: System, client: Client, vhost_url: str, database_url: str, tmp_path: Path
) -> None:
    system.start_sandbox()
    system.start_api()
    client.key = system.run("keys", "create", "--database").stdout.strip()
    headers = {"Authorization": f"Bearer {client.key}"}
    async with (
        every_message(vhost_url) as messages,
        aiohttp.ClientSession(client.api, headers=headers) as session,
    ):
        secrets = [parse_credential(client.key).secret, *await sign_in(session, client.key)]
        await prepare(session)
        imported = import_suppressions(system, tmp_path / "list.csv", client.key)
        ids = [(await client.post(body))[2]["id"] for body in (*MIXED, *rich())]
        await break_things(database_url)
        system.start_worker()
        await client.all_final(ids)
        secrets += await unsubscribe(session, ids[len(MIXED)])
        await refused_requests(session)
        mine = [await client.notification(which) for which in ids]
        written = await told_to_others(client, system)
    (echoed,) = next(one["attempts"] for one in mine if one["recipient"] == f"+{PHONE}")
    assert echoed["code"] == "400", "what names the recipient is no code"
    assert {PHONE in echoed["detail"], "Basic ***" in echoed["detail"]} == {True}, echoed
    statuses = [one["status"] for one in mine[len(MIXED) :]]
    assert statuses == ["sent"] * 5 + ["suppressed", "sent", "failed", "failed"]
    assert [one["result"]["reason"] for one in mine[-2:]] == ["render"] * 2
    assert len(messages) >= len(MIXED)
    written |= {child.log.name: child.log.read_text() for child in system.children}
    written |= {" ".join(words): said(system, client.key, *words) for words in COMMANDS}
    written |= {"messages": " ".join(messages), "import": imported}
    written["with an unknown key"] = said(system, UNKNOWN_KEY.text, "queues")
    log = "".join(child.log.read_text() for child in system.children)
    for event in ("result_rejected", "template_renderer_ended"):
        assert event in log
    assert leaks(written, (*CREDENTIALS, *PERSONAL, *secrets)) == []
    own = {"the caller's own": json.dumps(mine), "audit": said(system, client.key, "audit")}
    assert leaks(own, (*CREDENTIALS, *secrets)) == []


COMMANDS = (
    *(("check-config",), ("doctor",), ("doctor", "--json"), ("providers",), ("queues",)),
    *(("workers",), ("keys", "list"), ("tenants", "list")),
    ("templates", "list", "--tenant", "default"),
)


async def sign_in(session: aiohttp.ClientSession, key: str) -> list[str]:
    """The secrets of a session and of a key with one scope, after requests that need another."""
    async with session.post("/v1/session", json={"key": key}) as answer:
        assert answer.status == 201
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    async with session.post("/v1/keys", json={"scopes": ["submit"]}) as answer:
        weak = (await answer.json())["secret"]
    for headers in ({"Authorization": f"Bearer {weak}"}, {"Cookie": cookie + "x"}):
        async with aiohttp.ClientSession(session._base_url, headers=headers) as other:
            await refused(other.get("/v1/keys"))
    async with aiohttp.ClientSession(session._base_url, headers={"Cookie": cookie}) as browser:
        await taken(browser.get("/v1/keys"))
    return [parse_credential(weak).secret, cookie.rpartition(".")[2]]


async def prepare(session: aiohttp.ClientSession) -> None:
    """Upload files, save templates, suppress."""
    for data, kind in ((BLOB.encode(), "application/pdf"), (MAIL, "message/rfc822")):
        await taken(session.post("/v1/blobs", data=data, headers={"Content-Type": kind}))
    texts = {"email": {"subject": "{{ name }}", "body": "{{ name }}"}}
    schema = {"properties": {"name": {"maxLength": 40}}}
    document = {"default_locale": "en", "locales": {"en": texts}, "schema": schema}
    document["tenant"] = "default"
    for name in TEMPLATES:
        await taken(session.post(f"/v1/templates/{name}/versions", json=document))
    recipient = f"{SUPPRESSED}@example.com"
    suppression = {"tenant": "default", "channel": "email", "recipient": recipient}
    await taken(session.post("/v1/suppressions", json=suppression))
    headers = {"Content-Type": "text/csv"}
    await taken(session.post("/v1/suppressions?tenant=default", data=CSV, headers=headers))
    preview = wanted("email", "ok@example.com", content=None, template="order")
    for path in ("preview", ""):
        url = f"/v1/notifications/{path}".rstrip("/")
        await refused(session.post(url, json=preview))
        too_long = {"name": VARIABLE * 9}
        await refused(session.post(url, json={**preview, "variables": too_long}))
    preview["variables"] = {"name": VARIABLE}
    await taken(session.post("/v1/notifications/preview", json=preview))


CSV = f"channel,recipient,note\nemail,{SUPPRESSED}2@example.com,\nemail,{SUPPRESSED},x\nsms\n"


IMPORT = ("suppressions", "import", "--tenant", "default", "--yes")


def import_suppressions(system: System, path: Path, key: str) -> str:
    """Import a file with a wrong row, and one that is no CSV; returns what the command wrote."""
    said_of = []
    for text in (CSV, f'{CSV}"{SUPPRESSED}'):
        path.write_text(text)
        said_of.append(said(system, key, *IMPORT, str(path)))
    return "".join(said_of)


async def break_things(database_url: str) -> None:
    """Let Postgres refuse rows, and templates be ones that cannot be rendered."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(REFUSALS)
    for name, body in BROKEN.items():
        parts = {
            "default_locale": "en",
            "locales": {"en": {"email": {"subject": "S", "body": body}}},
        }
        await connection.execute(
            "UPDATE templates SET document = $2, compiled = NULL WHERE name = $1",
            name,
            json.dumps(parts).encode(),
        )
    await connection.close()


async def unsubscribe(session: aiohttp.ClientSession, which: str) -> list[str]:
    """Follow the link of a mail, and one that was cut off; returns most of the signature in it."""
    async with session.get(f"/v1/notifications/{which}?include=content") as answer:
        content = (await answer.json())["content"]
    token = content["headers"]["List-Unsubscribe"].strip("<>").rpartition("/")[2]
    form = {"List-Unsubscribe": "One-Click"}
    await taken(session.get(f"/v1/unsubscribe/{token}"))
    await taken(session.post(f"/v1/unsubscribe/{token}", data=form))
    await refused(session.post(f"/v1/unsubscribe/{token[:-1]}", data=form))
    await refused(session.post(f"/v1/unsubscribe/{token}", data={STRANGER: STRANGER}))
    return [token.rpartition(".")[2][:-2]]


def said(system: System, key: str, *words: str) -> str:
    ended = system.run(*words, NOTIFIER_CLIENT__KEY=key)
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


async def refused_requests(session: aiohttp.ClientSession) -> None:
    """Send requests with every kind of error, each containing the canary."""
    good = {"channel": "email", "recipient": "ada@example.com", "content": {"subject": "x"}}
    wrong: list[Any] = [
        {**good, "recipient": STRANGER},
        {**good, STRANGER: 1},
        {**good, "channel": STRANGER},
        {**good, "content": {STRANGER: "x"}},
        {**good, "content": {"data": {STRANGER: "\0"}}},
        {**good, "content": {"subject": "x", "cc": [STRANGER]}},
        {**good, "content": {"subject": "x", "attachments": [{"data": STRANGER}]}},
        {**good, "template": STRANGER, "content": None},
        {**good, "tenant": STRANGER},
        {**good, "recipient": f"{POISON}@example.com"},
        STRANGER,
    ]
    for document in wrong:
        await refused(session.post("/v1/notifications", json=document))
        batch = {"notifications": [document]}
        await refused(session.post("/v1/notifications/batch", json=batch))
    is_json = {"Content-Type": "application/json"}
    await refused(session.post("/v1/notifications", data=f'{{"{STRANGER}": "', headers=is_json))
    other_body = {**good, "idempotency_key": KEY}
    await refused(session.post("/v1/notifications", json=other_body))
    await refused(
        session.post("/v1/blobs", data=STRANGER, headers={"Content-Type": "message/rfc822"})
    )
    await refused(session.post("/v1/session", json={"key": UNKNOWN_KEY.text}))
    sources = {"en": {"email": {"subject": f"{{{{ {STRANGER}", "body": f"{{% {STRANGER} %}}"}}}
    template = {"default_locale": "en", "locales": sources}
    await refused(session.post("/v1/templates/order/versions", json=template))
    for path in (f"/{STRANGER}", f"/v1/notifications/{STRANGER}", f"/v1/failures?{STRANGER}=1"):
        for credential in (STRANGER, UNKNOWN_KEY.text):
            await refused(session.get(path, headers={"Authorization": f"Bearer {credential}"}))
        await refused(session.get(path))
    await refused(session.get(f"/v1/notifications?cursor={quote(STRANGER)}"))
    await refused(session.get(f"/v1/unsubscribe/{STRANGER}"))
    await refused(session.put(f"/v1/pauses/queue/{STRANGER}", json={"note": STRANGER}))
    for found_by in (f"q=%2B{PHONE}", f"recipient={PERSON}@example.com", f"metadata.kept={KEPT}"):
        await taken(session.get(f"/v1/notifications?{found_by}"))


async def refused(asking: Any) -> None:
    async with asking as answer:
        assert 400 <= answer.status < 500, await answer.text()


async def taken(asking: Any) -> None:
    async with asking as answer:
        assert answer.ok, await answer.text()


async def told_to_others(client: Client, system: System) -> dict[str, str]:
    """Read everything that a caller without a submit may read."""
    worker = system.worker_url
    asked = [f"{each}/metrics" for each in (client.api, worker)]
    asked += [f"{each}/health/ready" for each in (client.api, worker)]
    asked += [f"{client.api}/v1/{of}" for of in ("queues", "providers", "pauses", "nothing")]
    asked += [f"{client.api}/v1/notifications?limit=0", f"{client.api}/docs/openapi.json"]
    return {url: await client.text(url) for url in asked}
