"""A whole mail (RFC 5322) that a caller wrote: what it may be, and what of it is sent.

It is sent as it is, but for its envelope: fields that must not be sent are removed, and those that
every mail needs are added if they are missing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from email.utils import getaddresses
from typing import Final, NamedTuple

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 998
"""Without the line break (RFC 5322, 2.1.1)."""
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_LONG_LINE: Final = re.compile(rb"[^\r\n]{%d}" % (MAX_LINE_BYTES + 1))
_FIELD: Final = re.compile(rb"([!-9;-~]{1,76}):[ -~\t]*(?:\r?\n[ \t][ -~\t]*)*(?:\r?\n|$)")
_ONCE: Final = frozenset(
    {
        *(b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"date", b"message-id"),
        *(b"in-reply-to", b"references", b"subject", b"mime-version", b"content-type"),
        b"content-transfer-encoding",
    }
)
"""RFC 5322, 3.6, and RFC 2045."""
_SENDERS: Final = (b"from", b"sender", b"resent-from", b"resent-sender")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_NOT_SENT: Final = frozenset({b"bcc", b"return-path", b"resent-bcc", b"x-notifier-claim"})


class WholeMail(NamedTuple):
    """A mail to be sent: its fields with their line breaks, the names that it has, and its body.

    The body begins with the empty line that ends the head, if there is one.
    """

    head: bytes
    names: frozenset[bytes]
    body: memoryview
    senders: Sequence[str]
    """The addresses in the fields that name who sends the mail, those in From first."""


def check_mail(data: bytes) -> Sequence[str]:
    """Return the addresses of those who send a mail, at least one.

    Raises ValueError, which says what was expected, if this is no mail that can be sent.
    """
    if b"\0" in data:
        raise ValueError("a mail without NUL characters")
    if data.count(b"\r") != data.count(b"\r\n"):
        raise ValueError("lines that end with CRLF or LF, and no CR elsewhere (RFC 5322, 2.3)")
    if _LONG_LINE.search(data):
        raise ValueError(f"lines of at most {MAX_LINE_BYTES} bytes (RFC 5322, 2.1.1)")
    return parse_mail(data).senders


def parse_mail(data: bytes, replaced: Collection[bytes] = ()) -> WholeMail:
    """Separate head and body, without the fields `replaced`, whose names are in lower case.

    Raises ValueError, which says what was expected.
    """
    end = _END_OF_HEAD.search(data, 0, MAX_HEAD_BYTES + 4)
    size = len(data) if end is None else end.start() + len(end[0].splitlines(keepends=True)[0])
    if size > MAX_HEAD_BYTES:
        raise ValueError(f"a head of at most {MAX_HEAD_BYTES:,} bytes, and an empty line after it")
    fields = _fields(data[:size])
    names = [name for name, _ in fields]
    if twice := sorted(name for name in _ONCE if names.count(name) > 1):
        raise ValueError(f"the field {twice[0].decode()} once")
    if b"from" not in names:
        raise ValueError("the field From")
    sent = [(name, field) for name, field in fields if name not in {*_NOT_SENT, *replaced}]
    return WholeMail(
        head=b"".join([_with_crlf(field) for _, field in sent]),
        names=frozenset(name for name, _ in sent),
        body=memoryview(data)[size:],
        senders=_senders(fields),
    )


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(head):
        match = _FIELD.match(head, at)
        if match is None:
            line = head.count(b"\n", 0, at) + 1
            raise ValueError(
                "fields such as Subject: text in printable ASCII (RFC 2047 encodes other text), "
                f"and an empty line after them; line {line} is none"
            )
        fields.append((match[1].lower(), match[0]))
        at = match.end()
    return fields


def _with_crlf(field: bytes) -> bytes:
    return b"".join([line.rstrip(b"\r\n") + b"\r\n" for line in field.splitlines(keepends=True)])


def _senders(fields: Sequence[tuple[bytes, bytes]]) -> Sequence[str]:
    """Return the addresses in From, and in the other fields that readers show as the sender."""
    return [
        address
        for wanted in _SENDERS
        for name, field in fields
        if name == wanted
        for address in _addresses(field)
    ]


def _addresses(field: bytes) -> Sequence[str]:
    """Return the addresses. The newer parser of the standard library fails on odd ones."""
    name, _, value = field.decode("ascii").replace("\r", "").replace("\n", "").partition(":")
    try:
        addresses = [address for _, address in getaddresses([value])]
    except RecursionError:  # comments within comments
        addresses = []
    bare = _QUOTED.sub("", value)
    # A route or an open comment: other software may read another address there.
    is_odd = "<@" in bare.replace(" ", "") or bare.count("(") != bare.count(")")
    if is_odd or not addresses or not all("@" in address.strip("@") for address in addresses):
        raise ValueError(f"the field {name} with an address such as Shop <shop@example.com>")
    return addresses
