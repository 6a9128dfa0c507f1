"""The body of a mail: its texts and files as MIME parts (RFC 2045, RFC 2046)."""

from __future__ import annotations

import re
import secrets
from binascii import b2a_qp
from collections.abc import Sequence
from dataclasses import dataclass
from email import base64mime
from typing import Final
from urllib.parse import quote

from notifier.adapters.providers.smtp.headers import MAX_LINE_LENGTH
from notifier.adapters.providers.smtp.mail_text import Base64File, Piece

_Pieces = list[bytes | Piece]
_PLAIN_FILENAME: Final = re.compile(r"[A-Za-z0-9 ._()-]{1,60}")
_MAX_SECTION_LENGTH: Final = 50
_NEXT: Final = "\r\n "
_MIME: Final = b"MIME-Version: 1.0\r\n"
_MAX_QUOTED_LENGTH: Final = 76  # RFC 2045, section 6.7


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a mail. One with a `content_id` is shown inside the HTML, which refers to it."""

    filename: str
    content_type: str
    data: bytes
    content_id: str = ""


def mime_body(
    body: str | None, html: str | None, attachments: Sequence[Attachment] = ()
) -> list[bytes | Piece]:
    """Return the headers that describe the content, and the content.

    Body and HTML are alternatives, the richer one last (RFC 2046, section 5.1.4). Files of the HTML
    stand beside it (RFC 2387), all others behind the text.
    """
    inside = [each for each in attachments if each.content_id and html is not None]
    others = [each for each in attachments if each not in inside]
    part = _text_parts(body, html, [_file(each, "inline") for each in inside])
    if others:
        part = _multipart("mixed", [part, *(_file(each, "attachment") for each in others)])
    return [_MIME, *part]


def _text_parts(body: str | None, html: str | None, inside: Sequence[_Pieces]) -> _Pieces:
    if html is None:
        return [_part("plain", body or "")]
    rich: _Pieces = [_part("html", html)]
    if inside:
        rich = _multipart("related", [rich, *inside], b';\r\n type="text/html"')
    if body is None:
        return rich
    plain: _Pieces = [_part("plain", body)]
    return _multipart("alternative", [plain, rich])


def _multipart(subtype: str, parts: Sequence[_Pieces], parameters: bytes = b"") -> _Pieces:
    # Random: with a predictable boundary a text could end its part.
    boundary = b"=_" + secrets.token_hex(16).encode()
    head = b'Content-Type: multipart/%b%b;\r\n boundary="%b"\r\n' % (
        subtype.encode(),
        parameters,
        boundary,
    )
    pieces: _Pieces = [head, b"\r\n"]
    for part in parts:
        pieces += [b"--%b\r\n" % boundary, *part, b"\r\n"]
    return [*pieces, b"--%b--\r\n" % boundary]


def _file(attachment: Attachment, disposition: str) -> _Pieces:
    head = [
        f"Content-Type: {attachment.content_type}",
        "Content-Transfer-Encoding: base64",
        f"Content-Disposition: {disposition};{_NEXT}{_filename(attachment.filename)}",
    ]
    if attachment.content_id:
        head.append(f"Content-ID: <{attachment.content_id}>")
    return ["\r\n".join([*head, "", ""]).encode(), Base64File(attachment.data)]


def _filename(name: str) -> str:
    """Return the parameter, in several sections if it is long or not ASCII (RFC 2231)."""
    if _PLAIN_FILENAME.fullmatch(name):
        return f'filename="{name}"'
    sections: list[str] = [""]
    for character in name:
        encoded = quote(character, safe="")
        if len(sections[-1]) + len(encoded) > _MAX_SECTION_LENGTH:
            sections.append("")
        sections[-1] += encoded
    sections[0] = f"utf-8''{sections[0]}"
    if len(sections) == 1:
        return f"filename*={sections[0]}"
    return f";{_NEXT}".join(f"filename*{n}*={text}" for n, text in enumerate(sections))


def _part(subtype: str, text: str) -> bytes:
    """One part as short lines of 7-bit text, so that the server need not offer 8BITMIME.

    Other text is encoded as quoted-printable or base64 (RFC 2045, section 6), the shorter of both.
    """
    lines = text.encode().splitlines() or [b""]
    content = b"\r\n".join(lines) + b"\r\n"
    encoding = "7bit"
    if not text.isascii() or "\0" in text or max(map(len, lines)) > MAX_LINE_LENGTH:
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
