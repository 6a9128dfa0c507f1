"""Mails with large files over SMTP: what was out when the session broke, and whole mails."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.blobs import blob_id
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Outcome
from notifier.ports.provider import Envelope
from tests.integration.limited_mail_server import LimitedServer, open_limited
from tests.integration.real_mail_servers import open_exim

FILE = random.Random(1).randbytes(1_000_000)
MAIL = b"From: Shop <shop@example.com>\nSubject: s\n\n" + b".line\n" * 100
UTF8 = MAIL + "é\n".encode()
EHLO = b"250-mail.example.com\r\n250-PIPELINING\r\n250 8BITMIME\r\n"


def envelope(*, data: bytes, **content: object) -> Envelope:
    return Envelope(
        id=NotificationId(UUID(int=1)),
        claim=1,
        queue=QueueKey.parse("email.high"),
        recipient="ann@example.com",
        content=content,
        files={blob_id(data): data},
    )


def with_file() -> Envelope:
    file = {"filename": "a", "content_type": "a/b", "blob": blob_id(FILE)}
    return envelope(data=FILE, subject="s", attachments=[file])


async def send(server: LimitedServer, mail: Envelope, **settings: object) -> Outcome:
    async with open_limited(server):
        smtp = SmtpSettings(host="127.0.0.1", port=server.port, **settings)  # type: ignore[arg-type]
        async with open_smtp("smtp", smtp) as provider:
            return await provider.send(mail)


async def test_a_file_that_is_cut_before_its_dot_is_unavailable() -> None:
    server = LimitedServer(cut_after_received=100_000)
    assert (await send(server, with_file())).name == "unavailable"
    assert server.mails == []


async def test_a_server_that_refuses_a_file_before_its_end_gets_no_dot() -> None:
    server = LimitedServer(replies={"DATA": b"354 go\r\n552 5.3.4 too large\r\n"})
    assert (await send(server, with_file())).name in {"refused", "unavailable"}
    assert server.mails == []


async def test_a_large_file_may_take_longer_than_the_usual_limit() -> None:
    async with open_exim() as server:
        settings = SmtpSettings(host="127.0.0.1", port=server.port, timeout_s=0.01)
        async with open_smtp("smtp", settings) as provider:
            assert (await provider.send(with_file())).name == "accepted"


async def test_a_whole_mail_arrives_with_its_lines_and_its_own_sender() -> None:
    server = LimitedServer()
    assert (await send(server, envelope(data=MAIL, mime=blob_id(MAIL)))).name == "accepted"
    (mail,) = server.mails
    assert mail.partition(b"\r\n\r\n")[2] == b"..line\r\n" * 100 + b".\r\n"
    assert b"MAIL FROM:<shop@example.com>\r\n" in server.received


@pytest.mark.parametrize(
    ("settings", "content", "sender"),
    [
        ({}, {"from": "Bounces <bounces@example.com>"}, b"bounces@example.com"),
        ({"envelope_sender": "b@example.com"}, {"from": "x@example.com"}, b"b@example.com"),
    ],
)
async def test_the_envelope_of_a_whole_mail_may_have_another_sender(
    settings: dict[str, object], content: dict[str, object], sender: bytes
) -> None:
    server = LimitedServer()
    mail = envelope(data=MAIL, mime=blob_id(MAIL), **content)
    assert (await send(server, mail, **settings)).name == "accepted"
    assert b"MAIL FROM:<" + sender + b">\r\n" in server.received


async def test_text_beside_ascii_is_announced_or_not_sent() -> None:
    server = LimitedServer(replies={"EHLO": EHLO})
    mail = envelope(data=UTF8, mime=blob_id(UTF8))
    assert (await send(server, mail)).name == "accepted"
    assert b"BODY=8BITMIME\r\n" in server.received
    server = LimitedServer(replies={"EHLO": EHLO.replace(b"8BITMIME", b"HELP")})
    outcome = await send(server, mail)
    assert (outcome.name, outcome.code) == ("refused", "8bitmime")
    assert server.mails == []
