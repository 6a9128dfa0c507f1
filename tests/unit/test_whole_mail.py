"""Whole mails that callers upload: which ones are refused, and what of them is sent."""

from __future__ import annotations

import email
import email.policy
from base64 import b64decode
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from notifier.adapters.providers.smtp.addresses import Unsendable
from notifier.adapters.providers.smtp.mail_text import CHUNK_BYTES, Base64File, Lines, MailText
from notifier.adapters.providers.smtp.whole_mail import Whole, compose_whole
from notifier.domain.blobs import blob_id
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.whole_mail import check_mail
from notifier.ports.provider import Envelope

FROM = b"From: Shop <shop@example.com>\r\n"
BODY = b"\r\nHello\r\n.\r\n..x\r\n"


def composed(data: bytes, **content: object) -> Whole:
    blob = blob_id(data)
    envelope = Envelope(
        id=NotificationId(uuid4()),
        claim=3,
        queue=QueueKey.parse("email.high"),
        recipient="ada@example.com",
        content={"mime": blob, **content},
        files={blob: data},
    )
    return compose_whole(envelope, "", datetime(2030, 1, 31, tzinfo=UTC))


GOOD = [
    FROM + BODY,
    FROM.replace(b"\r", b"") + BODY.replace(b"\r", b""),
    FROM + b"Subject: a\r\n b\r\n\tc\r\nX-Empty:\r\n" + BODY,
    FROM + b"Received: one\r\nReceived: two\r\n" + BODY,
    FROM,
    FROM + b"\r\n",
    b"From: =?utf-8?q?=C3=89?= <e@example.com>, b@example.com\r\n" + BODY,
    FROM + b"\r\n" + "8 bit: é\r\n".encode() * 100,
    FROM + b"\r\n" + b"x" * 998 + b"\r\n",
]
BAD = [
    b"",
    b"From: " + b"(" * 900 + b"\r\n" + BODY,
    b"no head",
    b"\r\nHello",
    b"Subject: x\r\n\r\n",
    FROM + FROM + BODY,
    FROM + b"Subject: a\r\nsubject: b\r\n" + BODY,
    FROM + b"To: a@b.c\r\nTo: d@e.f\r\n" + BODY,
    FROM + b"Content-Type: a/b\r\nContent-Type: c/d\r\n" + BODY,
    FROM + "Subject: é\r\n".encode() + BODY,
    FROM + b"no colon\r\n" + BODY,
    FROM + b"X y: 1\r\n" + BODY,
    FROM + b"X\r\n" + BODY,
    FROM + b": x\r\n" + BODY,
    b" " + FROM + BODY,
    FROM + b"X-A: \x01\r\n" + BODY,
    FROM + b"X-A: \x7f\r\n" + BODY,
    b"From: nobody\r\n" + BODY,
    b"From: \r\n" + BODY,
    b"From: Group:;\r\n" + BODY,
    b"From: <@evil@bank.example:shop@example.com>\r\n" + BODY,
    b"From: shop@example.com(,evil@bank.example\r\n" + BODY,
    FROM + b"Sender: nobody\r\n" + BODY,
    FROM + b"\r\na\0b",
    FROM + b"\r\na\rb",
    FROM + b"\r\na\r.\r\n",
    FROM + b"\r\n" + b"x" * 999 + b"\r\n",
    FROM + b"X-A: " + b"x" * 999 + BODY,
    FROM + b"X-A: y\r\n" * 9000 + BODY,
    FROM + b"X-A: y\r\n" * 9000,
]


@pytest.mark.parametrize("data", GOOD, ids=lambda data: repr(data[:40]))
def test_a_mail_is_accepted_and_its_text_arrives(data: bytes) -> None:
    check_mail(data)
    whole = composed(data)
    sent = bytes(whole.text)
    assert b"\n" not in sent.replace(b"\r\n", b"")
    assert whole.is_8bit is not data.isascii()
    message = email.message_from_bytes(sent, policy=email.policy.default)
    original = email.message_from_bytes(data, policy=email.policy.default)
    assert message["X-Notifier-Claim"] == "3"
    assert message["Date"] is not None
    assert message["Message-ID"] is not None
    for name, value in original.items():
        assert str(value) in map(str, message.get_all(name, []))
    given = data.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
    assert sent.replace(b"\r\n", b"\n").partition(b"\n\n")[2] == given


def test_the_senders_of_a_mail_are_those_that_readers_show() -> None:
    head = b"Resent-Sender: r@c.example\r\nSender: CEO <ceo@bank.example>\r\n"
    head += b'Resent-From: a@c.example, b@c.example\r\nFrom: ":(" <shop@example.com>\r\n'
    assert check_mail(head + BODY) == [
        "shop@example.com",
        "ceo@bank.example",
        "a@c.example",
        "b@c.example",
        "r@c.example",
    ]


@pytest.mark.parametrize("data", BAD, ids=lambda data: repr(data[:60]))
def test_what_is_no_mail_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_mail(data)


def test_own_fields_stay_and_those_that_must_not_be_sent_go() -> None:
    head = b"Bcc: secret@example.com,\r\n other@example.com\r\nReturn-Path: <x@y.z>\r\n"
    head += b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <own@example.com>\r\n"
    sent = bytes(composed(head + FROM + b"X-Notifier-Claim: 9\r\n" + BODY).text)
    assert b"secret" not in sent
    assert b"other@" not in sent
    assert b"Return-Path" not in sent
    message = email.message_from_bytes(sent)
    assert message.get_all("Message-ID") == ["<own@example.com>"]
    assert message.get_all("Date") == ["Thu, 01 Jan 2026 00:00:00 +0000"]
    assert message.get_all("X-Notifier-Claim") == ["3"]


def test_headers_of_the_content_replace_those_of_the_mail() -> None:
    links = {"List-Unsubscribe": "<https://a.example/u>", "X-A": "1"}
    data = FROM + b"list-unsubscribe: <https://b.example>,\r\n <mailto:b@c.d>\r\n" + BODY
    message = email.message_from_bytes(bytes(composed(data, headers=links).text))
    assert message.get_all("List-Unsubscribe") == ["<https://a.example/u>"]
    assert message["X-A"] == "1"


def test_the_sender_is_that_of_the_mail() -> None:
    assert composed(FROM + BODY).sender.spec == "shop@example.com"


@pytest.mark.parametrize("data", [b"", b"no mail", b"From: x@\r\n\r\n"])
def test_a_stored_mail_that_is_none_is_unsendable(data: bytes) -> None:
    with pytest.raises(Unsendable):
        composed(data)


@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES])
def test_a_file_is_encoded_in_whole_lines(size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    text = MailText([b"head\r\n", Base64File(data), b"end\r\n"])
    chunks = list(text.chunks())
    assert all(chunk.endswith(b"\r\n") for chunk in chunks)
    lines = b"".join(chunks).split(b"\r\n")
    assert max(map(len, lines)) <= 76
    assert b64decode(b"".join(lines[1:-2])) == data
    assert abs(text.size - len(bytes(text))) < 100 + size // 50


@pytest.mark.parametrize("at", range(-2, 3))
def test_lines_are_whole_wherever_a_chunk_ends(at: int) -> None:
    filler = (b"y" * 98 + b"\r\n") * (CHUNK_BYTES // 100 + 1)
    data = filler[: CHUNK_BYTES + at - 4] + b"\r\n.\r\n.a\n\r\n" + filler[:500] + b"end"
    text = b"".join(Lines(memoryview(data)).chunks())
    assert text == data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n"
    for chunk in Lines(memoryview(data)).chunks():
        assert chunk.endswith(b"\r\n")
