"""Mails with names, copies, headers and files, as Exim has stored them, read by a strict parser."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import random
from base64 import b64decode, b64encode
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.api.submission.validation import SubmitValidator
from notifier.ports.provider import Envelope
from tests.integration.real_mail_servers import open_exim
from tests.unit.fakes_api import DEFAULT_RULES, submit_body

COUNT: Final = 60
NAMES: Final = ("Ada", "Lovelace, Ada", "Åda Løvelace", "愛子", 'Ada "the" Countess', "J. O'Neill")
FILES: Final = ("a.pdf", "Rechnung März.pdf", "請求書" * 12 + ".pdf", 'a "b".pdf', "x" * 150)


def mailbox(name: str, address: str) -> str:
    escaped = name.replace('"', '\\"')
    return f'"{escaped}" <{address}>'


def submit(number: int) -> dict[str, object]:
    """A submit that has every part of an email, drawn by its number."""
    chosen = random.Random(number)
    files = [
        {
            "filename": chosen.choice(FILES),
            "content_type": chosen.choice(["application/pdf", "text/calendar; method=REQUEST"]),
            "data": b64encode(chosen.randbytes(chosen.randrange(2000))).decode(),
            "content_id": chosen.choice([None, f"file{n}@example.com"]),
        }
        for n in range(chosen.randrange(1, 5))
    ]
    return submit_body(
        recipient=mailbox(chosen.choice(NAMES), f"u{number}@example.com"),
        content={
            "subject": chosen.choice(["Hello", "Grüße", "x " * 200, "愛" * 80]),
            "body": chosen.choice(["plain\n.\n..\n", "Grüße\n" * 50]),
            "html": chosen.choice(["<p>", "<p>Grüße</p>\n.", None]),
            "from": mailbox(chosen.choice(NAMES), "shop@example.com"),
            "reply_to": mailbox(chosen.choice(NAMES), "help@example.com"),
            "cc": [mailbox(name, f"cc{n}@example.com") for n, name in enumerate(NAMES[:3])],
            "bcc": ["hidden@example.com"],
            "headers": {"X-Order": chosen.choice(["17", "Größe", "long " * 60 + "end"])},
            "attachments": files,
        },
    )


def stored_mails(spool: Path) -> list[bytes]:
    """The mails in Exim's queue: a file with the headers, each behind its length, and a body."""
    mails = []
    for path in spool.glob("input/**/*-H"):
        rest = path.read_bytes().partition(b"\n\n")[2]
        headers = b""
        while rest:
            length, flag = int(rest[:3]), rest[3:4]
            if flag != b"*":  # removed
                headers += rest[5 : 5 + length]
            rest = rest[5 + length :]
        body = path.with_name(path.name.removesuffix("H") + "D").read_bytes()
        mails.append(headers + b"\n" + body.partition(b"\n")[2])
    return mails


def files_of(message: EmailMessage) -> list[tuple[object, object, object]]:
    return [
        (part.get_filename(), part["Content-ID"], part.get_payload(decode=True))
        for part in message.walk()
        if part.get_filename()
    ]


async def test_mails_that_exim_stored_have_no_defect_and_their_files_byte_equal() -> None:
    validator = SubmitValidator(DEFAULT_RULES)
    new = [validator.validate(json.dumps(submit(n)).encode()) for n in range(COUNT)]
    envelopes = [
        Envelope(
            id=each.id,
            claim=1,
            queue=each.queue,
            recipient=each.recipient,
            content=json.loads(each.content),
        )
        for each in new
    ]
    async with open_exim() as server:
        settings = SmtpSettings(host="127.0.0.1", port=server.port, max_connections=4)
        async with open_smtp("smtp", settings) as provider, asyncio.TaskGroup() as group:
            tasks = [group.create_task(provider.send(envelope)) for envelope in envelopes]
        assert {(task.result().name, task.result().detail) for task in tasks} == {("accepted", "")}
        raws = await asyncio.to_thread(stored_mails, server.log.parent / "spool")
    by_id = {}
    for raw in raws:
        assert b"hidden@" not in raw
        message = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        for part in message.walk():
            assert not part.defects
            assert not any(getattr(value, "defects", ()) for value in part.values())
        by_id[str(message["Message-ID"])] = message
    assert len(raws) == len(by_id) == COUNT
    for envelope in envelopes:
        message, content = by_id[f"<{envelope.id}@example.com>"], envelope.content
        assert str(message["Subject"]).strip() == str(content["subject"]).strip()
        assert str(message["X-Order"]) == content["headers"]["X-Order"]  # type: ignore[index]
        assert len(message["Cc"].addresses) == 3
        assert sorted(files_of(message), key=repr) == sorted(
            (
                (
                    each["filename"],
                    f"<{each['content_id']}>" if each.get("content_id") else None,
                    b64decode(each["data"]),
                )
                for each in content["attachments"]  # type: ignore[attr-defined]
            ),
            key=repr,
        )
