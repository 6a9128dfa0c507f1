"""No part of a content becomes a header, a command, a field or a template at a provider."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Mapping
from urllib.parse import parse_qs

import pytest

from notifier.adapters.providers.fcm.settings import FcmSettings
from notifier.adapters.providers.http.request import Templates, Unrenderable
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.sandboxed import twilio
from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Accepted, Outcome, Refused
from notifier.ports.provider import Envelope
from tests.builders import new_id
from tests.integration.raw_servers import RawServer, open_smtp_script

TEMPLATES = (
    "{{ recipient }} {{ 7 * 7 }} {% for i in range(9) %}x{% endfor %}{# gone #}",
    "${7*7} #{7*7} %(body)s %s {0} {body} $body <%= 7 %>",
)
LINE_BREAKS = ("\r\n", "\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0")
SMUGGLED_COMMAND = "MAIL FROM:<eve@example.com>"
ACCEPTED_REPLY = "250 2.0.0 accepted"


def envelope(content: Mapping[str, object], recipient: str, queue: str = "sms.high") -> Envelope:
    return Envelope(
        id=new_id(), claim=1, queue=QueueKey.parse(queue), recipient=recipient, content=content
    )


async def send_mail(content: Mapping[str, object], recipient: str) -> tuple[Outcome, RawServer]:
    async with open_smtp_script({".": ACCEPTED_REPLY}) as server:
        settings = SmtpSettings(host="127.0.0.1", port=server.port)
        async with open_smtp("smtp", settings) as provider:
            return await provider.send(envelope(content, recipient, "email.high")), server


@pytest.mark.parametrize("text", TEMPLATES)
async def test_a_mail_contains_template_syntax_unchanged(text: str) -> None:
    outcome, server = await send_mail(
        {"subject": text, "body": text, "html": text}, "a@example.com"
    )
    assert isinstance(outcome, Accepted)
    mail = email.message_from_string(server.seen[-1], policy=email.policy.default)
    parts = [part.get_content().strip().removesuffix("\n.") for part in mail.iter_parts()]
    assert mail["Subject"] == text
    assert parts == [text, text]


def bodies_with(text: str) -> tuple[bytes, bytes]:
    """Return an SMS form and a push document with this text as recipient and content."""
    sent = envelope({"subject": text, "body": text, "data": {text: text}}, text)
    form = Templates("sms", twilio("https://api.example.com/", account="A")).render(sent)
    document = Templates("push", FcmSettings().requests("p")).render(sent)
    return form.body or b"", document.body or b""


@pytest.mark.parametrize("text", TEMPLATES)
def test_a_request_contains_template_syntax_unchanged(text: str) -> None:
    form, document = bodies_with(text)
    assert parse_qs(form.decode())["Body"] == [text]
    message = json.loads(document)["message"]
    assert message["token"] == text
    assert message["notification"] == {"title": text, "body": text}
    assert message["data"] == {text: text}


@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
async def test_a_body_cannot_end_its_mail_and_start_another(line_end: str) -> None:
    lines = ("hello", ".", SMUGGLED_COMMAND, "RCPT TO:<eve@example.com>", "DATA")
    body = line_end.join(lines)
    outcome, server = await send_mail({"subject": "s", "body": body}, "a@example.com")
    assert isinstance(outcome, Accepted)
    assert [line.split(" ")[0] for line in server.seen[:-1]] == ["EHLO", "MAIL", "RCPT", "DATA"]
    assert f"\r\n..\r\n{SMUGGLED_COMMAND}\r\n" in server.seen[-1], (
        "a doubled dot does not end the mail"
    )


@pytest.mark.parametrize("line_break", LINE_BREAKS)
async def test_no_line_break_reaches_the_headers_of_a_mail(line_break: str) -> None:
    bcc = f"{line_break}Bcc: eve@example.com"
    for content, recipient in (
        ({"subject": f"s{bcc}", "body": "b"}, "a@example.com"),
        ({"subject": "s", "body": "b"}, f"a@example.com{bcc}"),
        ({"subject": "s", "body": "b"}, f"a{bcc}@example.com"),
    ):
        outcome, server = await send_mail(content, recipient)
        assert isinstance(outcome, Refused), outcome
        assert not [line for line in server.seen if "eve" in line]


@pytest.mark.parametrize("line_break", LINE_BREAKS[:3] + LINE_BREAKS[-1:])
def test_no_line_break_of_the_content_reaches_a_request_header(line_break: str) -> None:
    settings = HttpSettings(url="https://x.example/", headers={"X-Title": "{{ content.subject }}"})
    with pytest.raises(Unrenderable, match=r"headers\.\S+: "):
        Templates("sms", settings).render(
            envelope({"subject": f"s{line_break}Authorization: Basic eve"}, "+15005550006")
        )


HOSTILE = ('", "to": "eve', '"}, "token": "eve"}//', "&To=eve", "%26To%3Deve", "a;To=eve", "\\")


@pytest.mark.parametrize("text", HOSTILE)
def test_content_adds_no_field_to_a_form_or_a_document(text: str) -> None:
    form, document = bodies_with(text)
    fields = parse_qs(form.decode(), strict_parsing=True)
    assert (set(fields), fields["To"], fields["Body"]) == ({"To", "From", "Body"}, [text], [text])
    message = json.loads(document)
    assert message == {
        "message": {
            "token": text,
            "notification": {"title": text, "body": text},
            "data": {text: text},
        }
    }
