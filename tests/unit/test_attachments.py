"""Files of an email: checked at submit, byte-equal in the mail that is sent."""

from __future__ import annotations

import email
import email.policy
import json
from base64 import b64encode
from datetime import UTC, datetime
from email.message import EmailMessage
from uuid import uuid4

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.adapters.providers.smtp.addresses import Unsendable
from notifier.adapters.providers.smtp.message import Recipients, Sender, compose
from notifier.api.submission.validation import SubmitValidator
from notifier.domain.blobs import blob_id
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import NewNotification, NotificationId, QueueKey
from notifier.ports.provider import Envelope
from tests.unit.fakes_api import DEFAULT_RULES, submit_body, validated

VALIDATOR = SubmitValidator(DEFAULT_RULES)
LINES = b"a\r\n.\r\n--=_\r\n\0\xff" * 40


def file(data: bytes = LINES, **changes: object) -> dict[str, object]:
    plain = {"filename": "a.pdf", "content_type": "application/pdf"}
    return {**plain, "data": b64encode(data).decode(), **changes}


def submitted(*files: dict[str, object], **content: object) -> NewNotification:
    content = {"subject": "s", **content, "attachments": list(files)}
    return validated(VALIDATOR, json.dumps(submit_body(content=content)).encode())


def mail_of(new: NewNotification) -> bytes:
    envelope = Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse("email.high"),
        recipient=new.recipient,
        content=json.loads(new.content),
        files={use.id: use.data for use in new.blobs if use.data is not None},
    )
    sender = Sender.parse("Shop <shop@example.com>", "")
    at = datetime(2030, 1, 31, tzinfo=UTC)
    return bytes(compose(envelope, Recipients.of(envelope), sender, at))


def read(raw: bytes) -> EmailMessage:
    """Read a mail strictly: without a defect, in lines of 7-bit text."""
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    assert b"\n" not in raw.replace(b"\r\n", b"")
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert not part.defects
        assert not any(getattr(value, "defects", ()) for value in part.values())
    return message


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
@example([b"", LINES])
def test_every_file_arrives_byte_equal(contents: list[bytes]) -> None:
    message = read(mail_of(submitted(*map(file, contents), body="text", html="<p>")))
    assert message.get_content_type() == "multipart/mixed"
    assert [part.get_content() for part in message.iter_attachments()] == contents


NAMES = [
    "a.pdf",
    "a b (1).pdf",
    'a"b".pdf',
    "Rechnung März.pdf",
    "請求書.pdf",
    "x" * 200,
    "é" * 200,
]
NAMES += ["a;b=c.pdf", "a'b'.pdf", "%41.pdf", "=?utf-8?q?a?=.pdf", "🎉" * 50]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_keeps_its_name(name: str) -> None:
    message = read(mail_of(submitted(file(filename=name), body="text")))
    (part,) = message.iter_attachments()
    assert (part.get_filename(), part.get_content_type()) == (name, "application/pdf")
    assert part.get_content_disposition() == "attachment"


def test_a_file_of_the_html_stands_beside_it() -> None:
    logo = file(b"png", filename="logo.png", content_type="image/png", content_id="logo@shop")
    message = read(mail_of(submitted(logo, file(), body="text", html='<img src="cid:logo@shop">')))
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
    ]
    image = next(part for part in message.walk() if part.get_content_type() == "image/png")
    assert (image["Content-ID"], image.get_content()) == ("<logo@shop>", b"png")
    assert image.get_content_disposition() == "inline"


def test_without_html_a_file_with_an_id_is_an_attachment() -> None:
    message = read(mail_of(submitted(file(content_id="logo"), body="text")))
    assert message.get_content_type() == "multipart/mixed"


def test_a_type_may_have_parameters() -> None:
    invitation = file(content_type="text/calendar; method=REQUEST", filename="a.ics")
    (part,) = read(mail_of(submitted(invitation, body="text"))).iter_attachments()
    assert part["Content-Type"].params["method"] == "REQUEST"


WRONG = [
    *({"filename": name} for name in ("", ".", "..", "a/b", "a\\b", "a\r\nb", "a\0", "x" * 201)),
    *({"filename": name} for name in (" a", "a ", "a\u202efdp.exe", "a\u2028b", "\u0085", 7, None)),
    *({"content_type": kind} for kind in ("", "pdf", "a/b/c", "a/b\r\nX-A: 1", "multipart/mixed")),
    *(
        {"content_type": kind}
        for kind in ("Message/rfc822", "a/b; boundary=x", "é/a", "a/b;", "a /b")
    ),
    *({"content_type": kind} for kind in ("a/b; name=x", 'a/b; x="y"', "a/b\0", " a/b", None)),
    *({"data": data} for data in ("*", "YQ", "YQ=", "YQ==\n", "YQ==YQ==", "-_-_", "é", 7, None)),
    *({"content_id": of} for of in ("", "<a>", "a b", "a\r\n", "é", "x" * 201, 7)),
]


@pytest.mark.parametrize("wrong", WRONG, ids=ascii)
def test_a_wrong_field_of_a_file_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidNotification) as caught:
        submitted(file(), file() | wrong)
    assert caught.value.field.startswith(f"content.attachments.1.{next(iter(wrong))}")


def test_files_are_limited_in_number_and_size_and_have_different_ids() -> None:
    with pytest.raises(InvalidNotification, match="at most 20"):
        submitted(*[file(b"")] * 21)
    with pytest.raises(InvalidNotification, match="at most 10,485,760 bytes of files"):
        submitted(file(b"x" * 5_242_880), file(b"y" * 5_242_881))
    assert len(submitted(file(b"x" * 5_242_880), file(b"y" * 5_242_880)).content) < 500
    with pytest.raises(InvalidNotification) as caught:
        submitted(file(content_id="a"), file(content_id="a"))
    assert caught.value.field == "content.attachments.1.content_id"


STORED = {"filename": "a", "content_type": "a/b", "blob": blob_id(b"")}


@pytest.mark.parametrize(
    "files",
    ["x", [{}], [{**STORED, "blob": "sha256:0"}], [{**STORED, "filename": "a\r\nb"}], [file()]],
)
def test_a_stored_file_that_could_break_a_mail_is_unsendable(files: object) -> None:
    content = json.dumps({"subject": "s", "attachments": files}).encode()
    new = msgspec.structs.replace(submitted(body="text"), content=content)
    with pytest.raises(Unsendable):
        mail_of(new)
