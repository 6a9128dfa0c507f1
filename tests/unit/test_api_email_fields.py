"""What an email may have beside its text: mailboxes and headers, checked at submit."""

from __future__ import annotations

import json

import pytest

from notifier.api.submission.validation import SubmitValidator
from notifier.domain.errors import InvalidNotification
from notifier.domain.mailbox import NamedAddress
from notifier.domain.notification import NewNotification
from tests.unit.fakes_api import make_rules, submit_body, validated

VALIDATOR = SubmitValidator(make_rules(allowed_headers=["Precedence"]))
SMS = {"channel": "sms", "recipient": "+15005550006"}
ENDS_OF_LINES = [f"a{chr(code)}b" for code in (0, 8, 9, 10, 11, 12, 13, 0x1C, 0x7F, 0x85, 0x9B)]
ENDS_OF_LINES += ["a\u2028b", "a\u2029b", "a\r\nBcc: eve@example.com", "a\r\n\r\nbody", "a\n b"]
TURNED = [f"a{mark}b" for mark in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2069"]
SURROGATES = ["a\ud800", "\udfffb"]
WRONG_NAMES = [*ENDS_OF_LINES, *TURNED, *SURROGATES, "x" * 256, "=?utf-8?q?=0d=0aBcc?="]
WRONG_NAMES += ["Lovelace, Ada", "a;b", "a:b", "a@b", "a<b", "(a)", "a\\b", '"a', 'a"', "[a]"]
WRONG_ADDRESSES = [
    *("", "ada", "@example.com", "ada@", "a b@example.com", "ada@exa mple.com", "ada@@example.com"),
    *(
        "ada@example..com",
        ".ada@example.com",
        "ada@-example.com",
        "ada@example.com.",
        "ada@nowhere",
    ),
    *("ada@example.com, eve@example.com", "ada@example.com;eve@example.com", "ada@[127.0.0.1]"),
    *("<ada@example.com", "ada@example.com>", "a <b> <ada@example.com>", "<<ada@example.com>>"),
    *(
        "Group: ada@example.com;",
        "ada@example.com (Ada)",
        "Ada <>",
        "Ada <ada>",
        " ada@example.com",
    ),
    *("Ada <ada@example.com> x", "Ada <ada@example.com\r\n>", "ada\u202e@example.com"),
    *("mailto:ada@example.com", "Ada ada@example.com", "x" * 65 + "@example.com", "a@" + "x" * 300),
    " " * 1000 + "<ada@example.com>",  # so long texts would take long
    *("ada@example.com\n", "ada@example.com\0", "\ud800@example.com", "Ada < ada@example.com>"),
]
WRONG_MAILBOXES = [*(f"{name} <ada@example.com>" for name in WRONG_NAMES), *WRONG_ADDRESSES]


def validate(**changes: object) -> NewNotification:
    return validated(VALIDATOR, json.dumps(submit_body(**changes)).encode())


def email(**parts: object) -> dict[str, object]:
    return {"content": {"subject": "s", "body": "b", **parts}}


def stored(**parts: object) -> dict[str, object]:
    content: dict[str, object] = json.loads(validate(**email(**parts)).content)
    return content


def wrong_field(changes: dict[str, object]) -> str:
    with pytest.raises(InvalidNotification) as caught:
        validate(**changes)
    assert not caught.value.others
    return caught.value.field


@pytest.mark.parametrize("text", WRONG_MAILBOXES, ids=ascii)
def test_a_wrong_mailbox_is_refused_in_every_field(text: str) -> None:
    assert wrong_field({"recipient": text}) == "recipient"
    assert wrong_field(email(**{"from": text})) == "content.from"
    assert wrong_field(email(reply_to=text)) == "content.reply_to"
    names = {wrong_field(email(cc=["b@example.com", text])), wrong_field(email(bcc=[text]))}
    assert names <= {"content.cc.1", "content.bcc.0", "content.cc", "content.bcc"}


def test_there_are_more_than_fifty_wrong_mailboxes() -> None:
    assert len(set(WRONG_MAILBOXES)) > 50


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("Ada <ada@example.com>", "Ada", "ada@example.com"),
        ('"Lovelace, Ada" <ada@example.com>', "Lovelace, Ada", "ada@example.com"),
        (r'"a \"b\" \\" <ada@example.com>', r'a "b" \ '.strip(), "ada@example.com"),
        ("J. R. O'Neill<a@bücher.example>", "J. R. O'Neill", "a@xn--bcher-kva.example"),
        ("Åda 愛 <ada@example.com>", "Åda 愛", "ada@example.com"),
        ("<ada@example.com>", "", "ada@example.com"),
    ],
)
def test_the_name_of_a_mailbox_is_kept_apart(text: str, name: str, address: str) -> None:
    new = validate(recipient=text)
    assert new.recipient == address
    assert json.loads(new.content).get("recipient_name", "") == name
    written = stored(cc=text)["cc"]
    assert written == [str(NamedAddress(name, address))]
    assert stored(cc=written)["cc"] == written


@pytest.mark.parametrize(
    "value",
    [*ENDS_OF_LINES, *TURNED, *SURROGATES, "", " ", " a", "a ", "x" * 901, "\t", "a\r\n\tb"],
    ids=ascii,
)
def test_a_wrong_value_of_a_header_is_refused(value: str) -> None:
    assert wrong_field(email(headers={"X-Shop": value})).startswith("content.headers")
    for name in ("In-Reply-To", "References", "Auto-Submitted", "List-Id", "precedence"):
        assert wrong_field(email(headers={name: value})).startswith("content.headers")


WRONG_STRUCTURED = [
    *(("In-Reply-To", value) for value in ("a@b", "<a b@c>", "<a>,<b>", "<é@b>", "<>", "<a><b>")),
    *(("References", value) for value in ("<a@b>  <c@d>", "<a@b", "text <a@b>", f"<{'x' * 251}>")),
    *(("Auto-Submitted", value) for value in ("yes", "auto", "no no", "auto-generated\u00a0")),
    *(("List-Id", value) for value in ("news", "<a b>", "é <a.b>", "<a> <b>", "<@>")),
]


@pytest.mark.parametrize(("name", "value"), WRONG_STRUCTURED)
def test_a_header_with_a_syntax_must_follow_it(name: str, value: str) -> None:
    assert wrong_field(email(headers={name: value})) == f"content.headers.{name}"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Subject",
            "From",
            "To",
            "Bcc",
            "Sender",
            "Date",
            "Message-ID",
            "Content-Type",
            "Received",
        ),
        *(
            "X-",
            "x-notifier-claim",
            "X-Notifier-Tag",
            "X A",
            "X:A",
            "X-A:",
            "X-Ä",
            "X-A\r\nBcc",
            "",
        ),
        *("X-\0", "X_A", "-X", "X-" + "a" * 75, "\u202eX-A", "DKIM-Signature", "MIME-Version"),
        *("Return-Path", "Resent-To", "X-A ", " X-A", "X-A;", "X-(a)", "List-Unsubscribe", "Xa"),
    ],
    ids=ascii,
)
def test_another_header_is_refused(name: str) -> None:
    assert wrong_field(email(headers={name: "a"})) == "content.headers"


def test_a_name_of_a_header_counts_once_whatever_its_case() -> None:
    assert wrong_field(email(headers={"X-A": "1", "x-a": "2"})) == "content.headers"
    assert wrong_field(email(headers={f"X-{n}": "1" for n in range(21)})) == "content.headers"


def test_headers_are_stored_as_given() -> None:
    headers = {
        "X-Shop": "Grüße",
        "In-Reply-To": "<a@example.com>",
        "References": "<a@example.com> <b@example.com>",
        "Auto-Submitted": "auto-generated; owner=shop",
        "List-Id": "News of the shop <news.example.com>",
        "precedence": "bulk",
    }
    assert stored(headers=headers)["headers"] == headers


def test_cc_and_bcc_together_have_at_most_twenty_addresses() -> None:
    boxes = [f"a{n}@example.com" for n in range(20)]
    assert stored(cc=boxes[:10], bcc=boxes[10:])["bcc"] == boxes[10:]
    assert wrong_field(email(cc=boxes, bcc="b@example.com")) == "content.bcc"
    assert wrong_field(email(cc=[*boxes, "b@example.com"])) == "content.cc"


@pytest.mark.parametrize("field", ["reply_to", "cc", "bcc", "headers"])
def test_only_emails_have_mailboxes_and_headers(field: str) -> None:
    value = {"X-A": "1"} if field == "headers" else "a@example.com"
    assert wrong_field({**SMS, "content": {"body": "b", field: value}}) == f"content.{field}"


@pytest.mark.parametrize("sender", ["+15005550001", "12345", "Shop 24"])
def test_a_text_message_may_name_its_sender(sender: str) -> None:
    new = validate(**SMS, content={"body": "b", "from": sender})
    assert json.loads(new.content)["from"] == sender


@pytest.mark.parametrize("sender", ["", "a\nb", "Twelve chars", "é", "1", "+0123", "a@b.example"])
def test_a_wrong_sender_of_a_text_message_is_refused(sender: str) -> None:
    assert wrong_field({**SMS, "content": {"body": "b", "from": sender}}) == "content.from"


def test_a_push_has_no_sender() -> None:
    push: dict[str, object] = {
        "channel": "push",
        "recipient": "t",
        "content": {"body": "b", "from": "a"},
    }
    assert wrong_field(push) == "content.from"


def test_plain_content_is_stored_as_before() -> None:
    assert stored() == {"subject": "s", "body": "b"}
