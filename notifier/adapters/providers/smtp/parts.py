"""The body of a mail: its texts as MIME parts (RFC 2045, RFC 2046)."""

from __future__ import annotations

import secrets
from binascii import b2a_qp
from email import base64mime
from typing import Final

from notifier.adapters.providers.smtp.headers import MAX_LINE_LENGTH

_MIME: Final = b"MIME-Version: 1.0\r\n"
_MAX_QUOTED_LENGTH: Final = 76  # RFC 2045, section 6.7


def text_parts(body: str | None, html: str | None) -> bytes:
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
