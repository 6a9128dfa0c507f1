"""Composes an Envelope as one mail. Its content cannot add a header or a second recipient.

Headers and parts are written directly, from checked ASCII and the standard library's codecs. The
email package parses its own output, which took most of the time of a send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

import msgspec

from notifier.adapters.providers.smtp.addresses import DOMAIN, Mailbox, Unsendable
from notifier.adapters.providers.smtp.headers import address_header, text_header
from notifier.adapters.providers.smtp.mail_text import MailText
from notifier.adapters.providers.smtp.parts import Attachment, mime_body
from notifier.domain.blobs import ATTACHMENTS
from notifier.domain.features import SUPPRESSED_COPIES
from notifier.domain.mail_files import (
    FileDocument,
    checked_content_id,
    checked_content_type,
    checked_filename,
)
from notifier.domain.mail_headers import is_structured
from notifier.ports.provider import Envelope


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender: its address, the From header as bytes, and the domain of the Message-ID."""

    mailbox: Mailbox
    header: bytes
    domain: str

    @staticmethod
    @lru_cache(maxsize=256)
    def parse(text: str, domain: str) -> Sender:
        """Parse `Name <local@domain>`. Raises Unsendable for anything else."""
        mailbox = Mailbox.parse_named(text)
        if domain and not DOMAIN.fullmatch(domain):
            raise Unsendable("domain", "expected a name like mail.example.com, in ASCII")
        return Sender(mailbox, address_header("From", [mailbox]), domain or mailbox.domain)


@dataclass(frozen=True, slots=True)
class Recipients:
    """Who gets a mail: its recipient, and the copies, of which no header names those of `bcc`."""

    to: Mailbox
    cc: Sequence[Mailbox] = ()
    bcc: Sequence[Mailbox] = ()

    @classmethod
    def of(cls, envelope: Envelope) -> Recipients:
        """Return those of an envelope. Raises Unsendable."""
        content = envelope.content
        name = _text(content, "recipient_name") or ""
        to = Mailbox.parse_named(envelope.recipient, name)
        if "cc" not in content and "bcc" not in content:
            return cls(to)
        return cls(to, _mailboxes(content, "cc"), _mailboxes(content, "bcc"))

    @property
    def copies(self) -> Sequence[Mailbox]:
        """Those beside the recipient, each address once."""
        by_spec = {mailbox.spec: mailbox for mailbox in (*self.cc, *self.bcc)}
        by_spec.pop(self.to.spec, None)
        return list(by_spec.values())


def compose(envelope: Envelope, recipients: Recipients, sender: Sender, at: datetime) -> MailText:
    """The mail for DATA. Raises Unsendable.

    The Message-ID is the same for every attempt, so that a receiver may discard a duplicate.
    """
    content = envelope.content
    try:
        headers = _headers(envelope, recipients, sender, at)
        body, html = _text(content, "body"), _text(content, "html")
        files = _attachments(envelope) if ATTACHMENTS in content else ()
        return MailText([headers, *mime_body(body, html, files)])
    except UnicodeError as error:
        raise Unsendable("content", f"{type(error).__name__}: {error}") from error


def _headers(envelope: Envelope, recipients: Recipients, sender: Sender, at: datetime) -> bytes:
    plain = (
        f"Date: {_date(int(at.timestamp()))}",
        f"Message-ID: <{envelope.id}@{sender.domain}>",
        f"X-Notifier-Claim: {envelope.claim}",
        "",
    )
    return b"".join(
        [
            sender.header,
            text_header("Subject", _text(envelope.content, "subject") or ""),
            address_header("To", [recipients.to]),
            *_added_headers(envelope.content, recipients),
            "\r\n".join(plain).encode(),
        ]
    )


def _added_headers(content: Mapping[str, object], recipients: Recipients) -> Sequence[bytes]:
    """The headers that only some mails have."""
    lines: list[bytes] = []
    if recipients.cc:
        lines.append(address_header("Cc", recipients.cc))
    if reply_to := _mailboxes(content, "reply_to"):
        lines.append(address_header("Reply-To", reply_to))
    return [*lines, *given_headers(content).values()]


def given_headers(content: Mapping[str, object]) -> Mapping[str, bytes]:
    """The headers in a content, by their names in lower case. Raises Unsendable."""
    headers = content.get("headers") or {}
    if not isinstance(headers, dict):
        raise Unsendable("content", "headers: expected an object")
    return {
        name.lower(): text_header(
            name, _text(headers, name) or "", is_structured=is_structured(name)
        )
        for name in headers
    }


@lru_cache(maxsize=2)
def _date(seconds: int) -> str:
    """The Date header of an instant. Mails of one second have the same."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def suppressed_copies(content: Mapping[str, object]) -> Sequence[str]:
    """Return the copies that accept left out. Raises Unsendable."""
    texts = content.get(SUPPRESSED_COPIES) or ()
    if not texts:
        return ()
    if not isinstance(texts, list):
        raise Unsendable("content", f"{SUPPRESSED_COPIES}: expected an array of strings")
    return [str(text) for text in texts]


def sender_of(content: Mapping[str, object], default: Sender, domain: str) -> Sender:
    """Return the sender that the content names, or the default. Raises Unsendable."""
    text = _text(content, "from")
    return default if text is None else Sender.parse(text, domain)


def _attachments(envelope: Envelope) -> Sequence[Attachment]:
    try:
        return [
            Attachment(
                filename=checked_filename(each.filename),
                content_type=checked_content_type(each.content_type),
                data=file_of(envelope, each.blob),
                content_id=checked_content_id(each.content_id or ""),
            )
            for each in msgspec.convert(envelope.content[ATTACHMENTS], list[FileDocument])
        ]
    except ValueError as error:  # also msgspec's
        raise Unsendable("content", f"attachments: {error}") from error


def file_of(envelope: Envelope, blob: str) -> bytes:
    """Return the bytes of a blob. Raises Unsendable."""
    data = envelope.files.get(blob)
    if data is None:
        raise Unsendable("blob_missing", "a file of the mail was not loaded")
    return data


def _mailboxes(content: Mapping[str, object], key: str) -> Sequence[Mailbox]:
    texts = content.get(key) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Unsendable("content", f"{key}: expected an array of strings")
    return [Mailbox.parse_named(text) for text in texts]


def _text(content: Mapping[str, object], key: str) -> str | None:
    value = content.get(key)
    if value is None or isinstance(value, str):
        return value
    raise Unsendable("content", f"{key}: expected a string")
