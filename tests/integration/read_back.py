"""Mails with names, copies, headers and files, sent to real servers and read by a strict parser.

`python -m tests.integration.read_back [--count N] [--smtp-server FOLDER]` sends N mails to each of
Postfix, Exim and, if the folder has the npm package of this name, smtp-server.
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import json
import os
import random
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.api.submission.validation import SubmitValidator
from notifier.domain.outcome import Outcome
from notifier.embedded.free_ports import free_ports
from notifier.ports.provider import Envelope
from tests.integration.real_mail_servers import (
    ROOT,
    open_exim,
    open_postfix,
    postfix_environment,
    running_server,
)
from tests.unit.fakes_api import DEFAULT_RULES, submit_body, validated

AT_ONCE: Final = 8
NAMES: Final = (
    *("Ada", "Lovelace, Ada", "Åda Løvelace", "愛子", 'Ada "the" Countess', "J. O'Neill"),
    *("🎉 Party 🎉", "👩‍🚀 Ada", "Ada 🇫🇷"),
)
FILES: Final = (
    *("a.pdf", "Rechnung März.pdf", "請求書" * 12 + ".pdf", 'a "b".pdf', "x" * 150, "🎉.png"),
)
TYPES: Final = ("application/pdf", "text/calendar; method=REQUEST", "application/zip")
TEXTS: Final = ("plain\n.\n..\n", "Grüße\n" * 50, "🎉" * 400, "From me\n.\r\n.\n\n\n", "x" * 3000)
SUBJECTS: Final = ("Hello", "Grüße", "x " * 200, "愛" * 80, "🎉 50 % off 🎉", "=?utf-8?q?a?=")
LARGE: Final = 400_000
SMTP_SERVER: Final = """
const fs = require("fs"), { SMTPServer } = require("smtp-server");
const [port, folder] = process.argv.slice(2);
let number = 0;
new SMTPServer({
  authOptional: true, disabledCommands: ["STARTTLS"], size: 20e6,
  onData(stream, session, done) {
    const file = fs.createWriteStream(`${folder}/${number++}.eml`);
    stream.pipe(file);
    file.on("finish", () => done());
  },
}).listen(Number(port), "127.0.0.1");
"""


@dataclass(frozen=True)
class ReadableServer:
    """A running mail server whose mails can be read; `folder` has what it stored."""

    name: str
    port: int
    folder: Path

    def mails(self) -> list[bytes]:
        """The mails as it stored them."""
        match self.name:
            case "exim":
                return list(map(_exim_mail, self.folder.glob("spool/input/**/*-H")))
            case "postfix":
                files = [
                    str(path) for path in self.folder.glob("queue/hold/**/*") if path.is_file()
                ]
                return [self._postcat(path) for path in files]
            case _:
                return [path.read_bytes() for path in self.folder.glob("*.eml")]

    def _postcat(self, path: str) -> bytes:
        command = [f"{ROOT}/usr/sbin/postcat", "-c", f"{self.folder}/conf", "-bh", path]
        environment = os.environ | postfix_environment(self.folder)
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


def _exim_mail(path: Path) -> bytes:
    """A mail in Exim's queue: a file with the headers, each behind its length, and a body."""
    rest = path.read_bytes().partition(b"\n\n")[2]
    headers = b""
    while rest:
        length, flag = int(rest[:3]), rest[3:4]
        if flag != b"*":  # removed
            headers += rest[5 : 5 + length]
        rest = rest[5 + length :]
    body = path.with_name(path.name.removesuffix("H") + "D").read_bytes()
    return headers + b"\n" + body.partition(b"\n")[2]


@asynccontextmanager
async def exim() -> AsyncIterator[ReadableServer]:
    async with open_exim() as server:
        yield ReadableServer("exim", server.port, server.log.parent)


@asynccontextmanager
async def postfix() -> AsyncIterator[ReadableServer]:
    """Postfix that keeps each mail in its queue."""
    access = "check_recipient_access inline:{{example.com=%s}}"
    rules = f"{access % 'HOLD'}, {access % 'OK'}, reject"
    async with open_postfix(f"smtpd_recipient_restrictions = {rules}") as server:
        yield ReadableServer("postfix", server.port, server.log.parent)


@asynccontextmanager
async def smtp_server(modules: Path) -> AsyncIterator[ReadableServer]:
    """smtp-server, whose package is in this folder's node_modules."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as name:
        command = ["node", "-e", SMTP_SERVER, "smtp-server", str(port), name]
        async with running_server(command, {}, port, folder=modules):
            yield ReadableServer("smtp-server", port, Path(name))


def mailbox(name: str, address: str) -> str:
    escaped = name.replace('"', '\\"')
    return f'"{escaped}" <{address}>'


def submit(number: int) -> dict[str, object]:
    """A submit that has every part of an email, drawn by its number."""
    chosen = random.Random(number)
    files = [
        {
            "filename": chosen.choice(FILES),
            "content_type": chosen.choice(TYPES),
            "data": b64encode(chosen.randbytes(chosen.randrange(2000))).decode(),
        }
        for _ in range(chosen.randrange(1, 4))
    ]
    if number % 20 == 0:
        files[0]["data"] = b64encode(chosen.randbytes(chosen.randrange(LARGE))).decode()
    images = [
        {
            "filename": f"{n}.png",
            "content_type": "image/png",
            "data": b64encode(chosen.randbytes(300)).decode(),
            "content_id": f"image{n}@example.com",
        }
        for n in range(chosen.randrange(3))
    ]
    shown = "".join(f'<img src="cid:{image["content_id"]}">' for image in images)
    return submit_body(
        recipient=mailbox(chosen.choice(NAMES), f"u{number}@example.com"),
        content={
            "subject": chosen.choice(SUBJECTS),
            "body": chosen.choice(TEXTS),
            "html": chosen.choice([f"<p>🎉 Grüße</p>\n.{shown}", f"<p>{shown}", None]),
            "from": mailbox(chosen.choice(NAMES), "shop@example.com"),
            "reply_to": mailbox(chosen.choice(NAMES), "help@example.com"),
            "cc": [mailbox(name, f"cc{n}@example.com") for n, name in enumerate(NAMES[:3])],
            "bcc": ["hidden@example.com"],
            "headers": {"X-Order": chosen.choice(["17", "Größe 🎉", "long " * 60 + "end"])},
            "attachments": [*files, *images],
        },
    )


def envelope(number: int) -> Envelope:
    """The envelope of a submit, as a worker makes it."""
    new = validated(SubmitValidator(DEFAULT_RULES), json.dumps(submit(number)).encode())
    return Envelope(
        id=new.id,
        claim=1,
        queue=new.queue,
        recipient=new.recipient,
        content=json.loads(new.content),
        files={use.id: use.data for use in new.blobs if use.data is not None},
    )


async def send_all(port: int, envelopes: Sequence[Envelope]) -> set[tuple[str, str]]:
    """Send all, some at once; returns the outcomes with their details."""
    settings = SmtpSettings(host="127.0.0.1", port=port, max_connections=AT_ONCE)
    waiting = list(envelopes)
    outcomes: list[Outcome] = []
    async with open_smtp("smtp", settings) as provider, asyncio.TaskGroup() as group:

        async def send_some() -> None:
            while waiting:
                outcomes.append(await provider.send(waiting.pop()))

        for _ in range(AT_ONCE):
            group.create_task(send_some())
    return {(outcome.name, outcome.detail or outcome.code) for outcome in outcomes}


def strictly_read(raw: bytes) -> EmailMessage:
    """Parse a mail. Raises AssertionError for any defect of a part or of a header."""
    assert b"hidden@" not in raw
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert not part.defects, part.defects
        for name, value in part.items():
            assert not getattr(value, "defects", ()), (name, value, value.defects)
    return message


def check(message: EmailMessage, sent: Envelope) -> None:
    """Compare a mail with what was submitted."""
    content = json.loads(json.dumps(sent.content))
    assert str(message["Subject"]).strip() == content["subject"].strip()
    assert str(message["X-Order"]) == content["headers"]["X-Order"]
    (to,) = message["To"].addresses
    assert (to.display_name, to.addr_spec) == (content["recipient_name"], sent.recipient)
    assert [each.display_name for each in message["Cc"].addresses] == list(NAMES[:3])
    for part, text in (("plain", content["body"]), ("html", content.get("html"))):
        found = message.get_body(preferencelist=(part,))
        assert (found is None) == (text is None)
        if found is not None and text is not None:
            lines = text.encode().splitlines()
            assert found.get_payload(decode=True).splitlines() == lines  # type: ignore[union-attr]
    assert sorted(_files(message), key=repr) == sorted(
        (
            (
                each["filename"],
                each["content_type"].partition(";")[0],
                f"<{each['content_id']}>" if each.get("content_id") else None,
                sent.files[each["blob"]],
            )
            for each in content["attachments"]
        ),
        key=repr,
    )


def _files(message: EmailMessage) -> list[tuple[object, object, object, object]]:
    return [
        (
            part.get_filename(),
            part.get_content_type(),
            part["Content-ID"],
            part.get_payload(decode=True),
        )
        for part in message.walk()
        if part.get_filename()
    ]


async def read_back(opened: AbstractAsyncContextManager[ReadableServer], count: int) -> int:
    """Send `count` mails to a server and compare what it stored; returns how many it stored."""
    async with opened as server:
        envelopes = {f"<{each.id}@example.com>": each for each in map(envelope, range(count))}
        outcomes = await send_all(server.port, list(envelopes.values()))
        assert {name for name, _ in outcomes} == {"accepted"}, outcomes
        raws = await asyncio.to_thread(server.mails)
    read = set[str]()
    for raw in raws:
        message = strictly_read(raw)
        check(message, envelopes[str(message["Message-ID"])])
        read.add(str(message["Message-ID"]))
    assert read == set(envelopes)
    return len(raws)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.read_back")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--smtp-server", type=Path)
    wanted = parser.parse_args()
    servers = [("postfix", postfix()), ("exim", exim())]
    if wanted.smtp_server:
        servers.append(("smtp-server", smtp_server(wanted.smtp_server)))
    for name, opened in servers:
        stored = await read_back(opened, wanted.count)
        print(f"{name}: {stored} mails, 0 defects, all parts equal", flush=True)  # noqa: T201 a script


if __name__ == "__main__":
    asyncio.run(main())
