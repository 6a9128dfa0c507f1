from __future__ import annotations

import email
import email.policy
from collections.abc import Mapping
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.adapters.providers.smtp.addresses import Mailbox, Unsendable
from notifier.adapters.providers.smtp.message import Recipients, Sender, compose
from notifier.domain.mailbox import NamedAddress
from notifier.domain.notification import NotificationId, QueueKey
from notifier.ports.provider import Envelope

ID = NotificationId(UUID("018f0000-0000-7000-8000-000000000001"))
AT = datetime(2030, 1, 31, 12, tzinfo=UTC)
SENDER = Sender.parse("Shop <shop@example.com>", "")
TO = Mailbox.parse("ann@example.com")

printable = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=300
)


def composed(content: Mapping[str, object], to: Mailbox = TO, sender: Sender = SENDER) -> bytes:
    envelope = Envelope(
        id=ID, claim=3, queue=QueueKey.parse("email.high"), recipient=to.spec, content=content
    )
    return bytes(compose(envelope, Recipients.of(envelope), sender, AT))


def read(content: Mapping[str, object], sender: Sender = SENDER) -> EmailMessage:
    message = email.message_from_bytes(
        composed(content, sender=sender), policy=email.policy.default
    )
    assert isinstance(message, EmailMessage)
    return message


def text_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert isinstance(part, EmailMessage)
    return str(part.get_content())


def test_a_mail_carries_the_notification_id_and_the_claim() -> None:
    message = read({"subject": "Hi", "body": "there"})
    assert message["Message-ID"] == f"<{ID}@example.com>"
    assert message["X-Notifier-Claim"] == "3"
    assert message["From"] == "Shop <shop@example.com>"
    assert message["To"] == "ann@example.com"
    assert message["Date"] == "Thu, 31 Jan 2030 12:00:00 +0000"
    assert message["MIME-Version"] == "1.0"


def test_text_and_html_are_alternatives_and_the_html_comes_last() -> None:
    message = read({"body": "plain", "html": "<p>rich</p>"})
    assert message.get_content_type() == "multipart/alternative"
    assert text_of(message, "plain").strip() == "plain"
    assert text_of(message, "html").strip() == "<p>rich</p>"


def test_html_alone_is_one_html_part() -> None:
    assert read({"html": "<p>rich</p>"}).get_content_type() == "text/html"


@given(printable)
def test_any_subject_arrives_unchanged(subject: str) -> None:
    raw = composed({"subject": subject})
    header = raw.split(b"\r\n\r\n")[0]
    assert all(line.strip() for line in header.split(b"\r\n"))
    assert max(map(len, header.split(b"\r\n"))) < 998
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert str(parsed["Subject"]).strip() == subject.strip()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=2000))
def test_any_text_is_sent_as_short_seven_bit_lines(body: str) -> None:
    raw = composed({"body": body, "html": body})
    assert raw.isascii()
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    assert raw.endswith(b"\r\n")
    assert not raw.startswith(b".")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
@example("ends in a space \n.\n=\n\tand a tab\t\n\n")
@example("é" * 200)
@example("日本" * 200)
@example("x" * 999)
@example("--=_\n--=_--\n")
@example("\0")
def test_any_text_arrives_unchanged_except_for_line_breaks(text: str) -> None:
    lines = "".join(line.decode() + "\n" for line in text.encode().splitlines() or [b""])
    message = read({"body": text, "html": text})
    assert text_of(message, "plain").replace("\r\n", "\n") == lines
    assert text_of(message, "html").replace("\r\n", "\n") == lines
    alone = read({"body": text})
    assert text_of(alone, "plain").replace("\r\n", "\n") == lines
    assert not any(part.defects for part in (*message.walk(), *alone.walk()))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain\n", "7bit"),
        ("Grüße aus Köln, mit einem langen Satz dazu", "quoted-printable"),
        ("日本語のテキスト", "base64"),
        ("x" * 79, "quoted-printable"),
        ("é" + "x" * 68 + " ", "base64"),  # a line of 77, quoted
    ],
)
def test_a_text_is_sent_in_its_shortest_encoding(text: str, encoding: str) -> None:
    assert read({"body": text})["Content-Transfer-Encoding"] == encoding


@pytest.mark.parametrize("subject", ["a\r\nBcc: eve@example.com", "a\nb", "a\rb", "a\0b", "a\x85b"])
def test_a_subject_cannot_add_a_header(subject: str) -> None:
    with pytest.raises(Unsendable) as raised:
        composed({"subject": subject})
    assert raised.value.code == "header"


@pytest.mark.parametrize(
    "content", [{"body": "\ud800"}, {"subject": 7}, {"html": ["x"]}, {"subject": "x" * 999}]
)
def test_content_that_is_no_string_or_a_long_subject_is_unsendable(
    content: Mapping[str, object],
) -> None:
    with pytest.raises(Unsendable):
        composed(content)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@exam ple.com",
        "ann@example.com>\r\nRCPT TO:<eve@example.com",
        "ann\r\n@example.com",
        "a<b@example.com",
        "a,b@example.com",
        '"a b"@example.com',
        "ann@example.com\u2028",
        "ann@b@example.com",
        "ann@" + "ü" * 80 + ".com",
    ],
)
def test_an_address_that_could_break_a_command_is_unsendable(address: str) -> None:
    with pytest.raises(Unsendable) as raised:
        Mailbox.parse(address)
    assert raised.value.code == "address"


def test_an_international_domain_is_sent_in_ascii_and_needs_no_extension() -> None:
    mailbox = Mailbox.parse("ann@bücher.example")
    assert mailbox.spec == "ann@xn--bcher-kva.example"
    assert not mailbox.is_utf8
    assert Mailbox.parse("änn@example.com").is_utf8


def test_a_sender_name_may_have_non_ascii_characters_or_a_comma() -> None:
    sender = Sender.parse('"Jürgen, Shop" <shop@example.com>', "mail.example.com")
    message = read({}, sender)
    assert message["From"].addresses[0].display_name == "Jürgen, Shop"
    assert message["Message-ID"] == f"<{ID}@mail.example.com>"
    assert read({}, Sender.parse('"A, B" <a@example.com>', ""))["From"] == '"A, B" <a@example.com>'


@pytest.mark.parametrize("sender", ["nobody", "a b <c>", "A\r\nB: c <a@example.com>"])
def test_an_invalid_sender_is_unsendable(sender: str) -> None:
    with pytest.raises(Unsendable):
        Sender.parse(sender, "")


@pytest.mark.parametrize("domain", ["x>\r\nBcc: <eve@example.com", "bücher.example", "a b"])
def test_a_domain_that_could_break_a_header_is_unsendable(domain: str) -> None:
    with pytest.raises(Unsendable):
        Sender.parse("Shop <shop@example.com>", domain)


@given(st.text("abcdefghij  ", min_size=60, max_size=900))
@example("word " * 60)
@example("x" * 300)
@example(" " * 80)
def test_a_long_ascii_subject_is_folded_and_not_encoded(subject: str) -> None:
    raw = composed({"subject": subject})
    header = raw.split(b"\r\n\r\n")[0]
    if subject.strip():
        assert b"=?utf-8?" not in header
    assert all(line.strip() for line in header.split(b"\r\n"))
    parsed = email.message_from_bytes(raw, policy=email.policy.compat32)
    unfolded = str(parsed["Subject"]).replace("\r\n", "").replace("\n", "")
    if subject.strip():
        assert unfolded.strip() == subject.strip()


def test_an_international_domain_is_sent_by_idna_2008() -> None:
    assert Mailbox.parse("u1@straße.test").spec == "u1@xn--strae-oqa.test"


NAMES = [
    "Ada",
    "Lovelace, Ada",
    'Ada "the" Countess',
    "Ada (mathematician)",
    "Åda Løvelace",
    "愛" * 40,
]
NAMES += ["x" * 255, "a b " * 60, "O'Neill", "ada@example.com", "\\"]


@pytest.mark.parametrize("name", NAMES)
def test_every_mailbox_header_has_the_name_and_the_address_that_were_given(name: str) -> None:
    box = str(NamedAddress(name.strip(), "a@example.com"))
    raw = composed(
        {
            "subject": "s",
            "recipient_name": name.strip(),
            "cc": [box, "b@example.com"],
            "bcc": ["hidden@example.com"],
            "reply_to": [box],
        },
        sender=Sender.parse(box, ""),
    )
    message = email.message_from_bytes(raw, policy=email.policy.default)
    undecoded = email.message_from_bytes(raw, policy=email.policy.compat32)
    for header in ("From", "To", "Cc", "Reply-To"):
        # The newer policy reads a blank between two encoded words of a name.
        words, _ = getaddresses([undecoded[header]])[0]
        assert str(make_header(decode_header(words))) == name.strip()
        assert not message[header].defects
    assert message["To"].addresses[0].addr_spec == TO.spec
    assert [of.addr_spec for of in message["Cc"].addresses] == ["a@example.com", "b@example.com"]
    assert b"hidden" not in raw
    assert not message.defects
    assert max(map(len, raw.split(b"\r\n"))) < 998


@given(printable)
@example("x" * 900)
@example("=?utf-8?q?a?=")
def test_any_value_of_a_header_arrives_unchanged(value: str) -> None:
    value = value.strip()
    raw = composed({"subject": "s", "headers": {"X-Shop": value}})
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert str(message["X-Shop"]).strip() == value
    assert not message.defects


def test_references_are_folded_and_never_encoded() -> None:
    ids = " ".join(f"<{n}.=?{'x' * 40}@example.com>" for n in range(12))
    raw = composed({"subject": "s", "headers": {"References": ids}})
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    assert message["References"].replace("\r\n", "") == ids


@pytest.mark.parametrize(
    "content",
    [
        {"headers": {"X-A": "a\r\nBcc: eve@example.com"}},
        {"headers": {"X-A": 7}},
        {"headers": ["x"]},
        {"headers": {"References": "é"}},
        {"cc": "a@example.com"},
        {"cc": [7]},
        {"bcc": ["eve@example.com>\r\nRCPT TO:<b@example.com"]},
        {"reply_to": ["a b <c>"]},
        {"recipient_name": "a\nb"},
    ],
)
def test_fields_that_could_break_a_mail_are_unsendable(content: Mapping[str, object]) -> None:
    with pytest.raises(Unsendable):
        composed(content)
