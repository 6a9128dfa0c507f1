"""Composes an Envelope as one mail. Its content cannot add a header or a second recipient.

Headers and parts are written directly, from checked ASCII and the standard library's codecs. The
email package parses its own output, which took most of the time of a send.
"""

from __future__ import annotations

import re
import secrets
from binascii import b2a_qp
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import base64mime
from email.header import Header
from email.utils import format_datetime, formataddr, parseaddr
from functools import lru_cache
from typing import Final

from notifier.domain.domain_names import InvalidDomain, ascii_domain
from notifier.ports.provider import Envelope

_MIME: Final = b"MIME-Version: 1.0\r\n"
_MAX_LINE_LENGTH: Final = (
    78  # RFC 5322, section 2.1.1: some relays break lines that are much longer
)
_MAX_QUOTED_LENGTH: Final = 76  # RFC 2045, section 6.7
MAX_SUBJECT_LENGTH: Final = 998
"""Characters. No header line may be longer (RFC 5322 2.1.1), and encoding a longer subject is slow.
"""
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_MAX_SUBJECT_LINE: Final = _MAX_LINE_LENGTH - len("Subject: ")
_FOLD_POINT: Final = re.compile(r"(?=(?<! ) +[^ ])")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_LOCAL: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\u00a1-\u2027\u202a-\ud7ff\ue000-\U0010ffff-]{1,64}"
)
_DOMAIN: Final = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[A-Za-z0-9.:]{1,64}\]")


class Unsendable(Exception):
    """This notification can never be sent as a mail; `code` names the reason."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address whose characters are safe in a command and in a header without quotes.

    The domain is in its ASCII form.
    """

    local: str
    domain: str

    @property
    def spec(self) -> str:
        """`local@domain`."""
        return f"{self.local}@{self.domain}"

    @property
    def is_utf8(self) -> bool:
        """Whether it needs SMTPUTF8 (RFC 6531). The domain never does: it has an ASCII form."""
        return not self.local.isascii()

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Parse `local@domain`. Raises Unsendable for anything else."""
        local, _, domain = text.rpartition("@")
        try:
            domain = ascii_domain(domain)
        except InvalidDomain as error:
            raise Unsendable("address", str(error)) from error
        if not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
            raise Unsendable("address", "expected an address like user@example.com")
        return cls(local, domain)


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender: its address, the From header as bytes, and the domain of the Message-ID."""

    mailbox: Mailbox
    header: bytes
    domain: str

    @classmethod
    def parse(cls, text: str, domain: str) -> Sender:
        """Parse `Name <local@domain>`. Raises Unsendable for anything else."""
        if _CONTROL.search(text):
            raise Unsendable("header", "a name must not contain line breaks or control characters")
        name, address = parseaddr(text)
        mailbox = Mailbox.parse(address)
        if domain and not _DOMAIN.fullmatch(domain):
            raise Unsendable("domain", "expected a name like mail.example.com, in ASCII")
        return cls(mailbox, _from(name, mailbox), domain or mailbox.domain)


def compose(envelope: Envelope, to: Mailbox, sender: Sender, at: datetime) -> bytes:
    """The mail for DATA, without dot-stuffing. Raises Unsendable.

    The Message-ID is the same for every attempt, so that a receiver may discard a duplicate.
    """
    try:
        headers = _headers(envelope, to, sender, at)
        return headers + _parts(_text(envelope.content, "body"), _text(envelope.content, "html"))
    except UnicodeError as error:
        raise Unsendable("content", f"{type(error).__name__}: {error}") from error


def _headers(envelope: Envelope, to: Mailbox, sender: Sender, at: datetime) -> bytes:
    plain = (
        f"To: {to.spec}",
        f"Date: {_date(int(at.timestamp()))}",
        f"Message-ID: <{envelope.id}@{sender.domain}>",
        f"X-Notifier-Claim: {envelope.claim}",
        "",
    )
    return sender.header + _subject(envelope.content) + "\r\n".join(plain).encode()


@lru_cache(maxsize=2)
def _date(seconds: int) -> str:
    """The Date header of an instant. Mails of one second have the same."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def _from(name: str, mailbox: Mailbox) -> bytes:
    if name.isascii() and mailbox.spec.isascii():
        return f"From: {formataddr((name, mailbox.spec))}\r\n".encode()
    return f"From: {_encoded('From', name)} <{mailbox.spec}>\r\n".encode()


def _subject(content: Mapping[str, object]) -> bytes:
    subject = _text(content, "subject") or ""
    if len(subject) > MAX_SUBJECT_LENGTH:
        raise Unsendable("header", f"subject: expected at most {MAX_SUBJECT_LENGTH} characters")
    if _CONTROL.search(subject):
        raise Unsendable(
            "header", "subject: a header must not contain line breaks or control characters"
        )
    if _PLAIN.fullmatch(subject) and "=?" not in subject:
        if len(subject) <= _MAX_SUBJECT_LINE:
            return f"Subject: {subject}\r\n".encode()
        if (folded := _folded(subject)) is not None:
            return f"{folded}\r\n".encode()
    return f"Subject: {_encoded('Subject', subject)}\r\n".encode()


def _folded(subject: str) -> str | None:
    """The subject in lines, broken before spaces (RFC 5322, 2.2.3); None if it cannot be.

    A receiver that removes the line breaks has the subject as it was. A word that is longer than a
    line stays whole, up to the 998 characters that a line may have.
    """
    lines = ["Subject: "]
    for word in _FOLD_POINT.split(subject):
        has_text = len(lines) > 1 or len(lines[0]) > len("Subject: ")
        if has_text and len(lines[-1]) + len(word) > _MAX_LINE_LENGTH:
            lines.append(word)
        else:
            lines[-1] += word
    is_valid = all(line.strip() and len(line) <= MAX_SUBJECT_LENGTH for line in lines)
    return "\r\n".join(lines) if is_valid else None


def _encoded(name: str, value: str) -> str:
    """RFC 2047 encoded words, folded.

    The newer `email.policy` would fold long words into lines of one space.
    """
    return Header(value, "utf-8", header_name=name).encode(linesep="\r\n")


def _parts(body: str | None, html: str | None) -> bytes:
    """The only part, or both as alternatives, the richer one last (RFC 2046, section 5.1.4)."""
    if html is None:
        return _MIME + _part("plain", body or "")
    if body is None:
        return _MIME + _part("html", html)
    # Random: with a predictable boundary a text could end its part.
    boundary = b"=_" + secrets.token_hex(16).encode()
    return b"\r\n".join(
        [
            _MIME + b'Content-Type: multipart/alternative;\r\n boundary="%b"\r\n' % boundary,
            b"--%b" % boundary,
            _part("plain", body),
            b"--%b" % boundary,
            _part("html", html),
            b"--%b--\r\n" % boundary,
        ]
    )


def _part(subtype: str, text: str) -> bytes:
    """One part as short lines of 7-bit text, so that the server need not offer 8BITMIME.

    Other text is encoded as quoted-printable or base64 (RFC 2045, section 6), the shorter of both.
    """
    lines = text.encode().splitlines() or [b""]
    content = b"\r\n".join(lines) + b"\r\n"
    encoding = "7bit"
    if not text.isascii() or "\0" in text or max(map(len, lines)) > _MAX_LINE_LENGTH:
        encoding, content = _encoded_body(content)
    head = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}'
    return f"{head}\r\n\r\n".encode() + content


def _encoded_body(content: bytes) -> tuple[str, bytes]:
    quoted = b2a_qp(content)
    in_base64 = base64mime.body_encode(content, eol="\r\n").encode()
    is_short = (
        # b2a_qp may put a last space beyond the limit.
        max(map(len, quoted.split(b"\r\n"))) <= _MAX_QUOTED_LENGTH
    )
    if is_short and len(quoted) <= len(in_base64):
        return "quoted-printable", quoted
    return "base64", in_base64


def _text(content: Mapping[str, object], key: str) -> str | None:
    value = content.get(key)
    if value is None or isinstance(value, str):
        return value
    raise Unsendable("content", f"{key}: expected a string")
