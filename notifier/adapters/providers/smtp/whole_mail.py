"""A mail that the caller wrote as a whole: its text is sent as it is, with a checked head."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

from notifier.adapters.providers.smtp.addresses import Mailbox, Unsendable
from notifier.adapters.providers.smtp.mail_text import Lines, MailText
from notifier.adapters.providers.smtp.message import file_of, given_headers
from notifier.domain.blobs import MIME
from notifier.domain.whole_mail import parse_mail
from notifier.ports.provider import Envelope


class Whole(NamedTuple):
    """The text of such a mail, and the sender that it names. `is_8bit`: it is not all ASCII."""

    text: MailText
    sender: Mailbox
    is_8bit: bool


def is_whole(content: Mapping[str, object]) -> bool:
    """Whether a content is a whole mail."""
    return MIME in content


def compose_whole(envelope: Envelope, domain: str, at: datetime) -> Whole:
    """Return the mail. Adds a Date and a Message-ID where it has none. Raises Unsendable."""
    data = file_of(envelope, str(envelope.content[MIME]))
    # Those of an email with a topic: its links to unsubscribe.
    headers = given_headers(envelope.content)
    try:
        mail = parse_mail(data, [name.encode() for name in headers])
    except ValueError as error:
        raise Unsendable("content", f"mime: expected {error}") from error
    sender = Mailbox.parse(mail.senders[0])
    added = [f"X-Notifier-Claim: {envelope.claim}\r\n"]
    if b"message-id" not in mail.names:
        added.append(f"Message-ID: <{envelope.id}@{domain or sender.domain}>\r\n")
    if b"date" not in mail.names:
        added.append(f"Date: {format_datetime(at.astimezone(UTC))}\r\n")
    head = b"".join(["".join(added).encode(), *headers.values(), mail.head])
    return Whole(MailText([head, Lines(mail.body)]), sender, is_8bit=not data.isascii())
