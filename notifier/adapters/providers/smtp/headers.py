"""Headers of a mail as folded lines of ASCII (RFC 5322, 2.2.3), encoded by RFC 2047."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.header import Header
from email.utils import formataddr
from typing import Final

from notifier.adapters.providers.smtp.addresses import CONTROL, Mailbox, Unsendable

MAX_LINE_LENGTH: Final = 78  # RFC 5322, section 2.1.1: some relays break lines that are much longer
MAX_TEXT_LENGTH: Final = 998
"""Characters. No header line may be longer (RFC 5322 2.1.1), and encoding a longer text is slow."""
_NEXT_LINE: Final = "\r\n "
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_FOLD_POINT: Final = re.compile(r"(?=(?<! ) +[^ ])")


def text_header(name: str, value: str, *, is_structured: bool = False) -> bytes:
    """Return the header with its line break. Raises Unsendable.

    A structured value must be ASCII, and is folded but never encoded.
    """
    field = name.lower()
    if len(value) > MAX_TEXT_LENGTH:
        raise Unsendable("header", f"{field}: expected at most {MAX_TEXT_LENGTH} characters")
    if CONTROL.search(value):
        raise Unsendable(
            "header", f"{field}: a header must not contain line breaks or control characters"
        )
    is_plain = _PLAIN.fullmatch(value) is not None and (is_structured or "=?" not in value)
    if is_plain and len(name) + len(": ") + len(value) <= MAX_LINE_LENGTH:
        return f"{name}: {value}\r\n".encode()
    if is_plain and (folded := _folded(name, value)) is not None:
        return f"{folded}\r\n".encode()
    if is_structured:
        raise Unsendable("header", f"{field}: expected ASCII in words of less than a line")
    return f"{name}: {_encoded(name, value)}\r\n".encode()


def address_header(name: str, mailboxes: Sequence[Mailbox]) -> bytes:
    """Return the header with one line or more for each mailbox."""
    named = f",{_NEXT_LINE}".join([_named(name, mailbox) for mailbox in mailboxes])
    return f"{name}: {named}\r\n".encode()


def _named(header: str, mailbox: Mailbox) -> str:
    name, spec = mailbox.name, mailbox.spec
    if not name:
        return spec
    # formataddr would refuse an address in UTF-8.
    phrase = formataddr((name, "a")).removesuffix(" <a>") if name.isascii() else ""
    if not phrase or "=?" in name:
        phrase = _encoded(header, name)
    last_line = f"{header}: {phrase}".rpartition("\r\n")[2]
    fits = len(last_line) + len(spec) + len(" <>,") <= MAX_LINE_LENGTH
    return f"{phrase}{' ' if fits else _NEXT_LINE}<{spec}>"


def _folded(name: str, value: str) -> str | None:
    """The header in lines, broken before spaces (RFC 5322, 2.2.3); None if it cannot be.

    A receiver that removes the line breaks has the text as it was. A word that is longer than a
    line stays whole, up to the 998 characters that a line may have.
    """
    lines = [f"{name}: "]
    for word in _FOLD_POINT.split(value):
        has_text = len(lines) > 1 or len(lines[0]) > len(name) + len(": ")
        if has_text and len(lines[-1]) + len(word) > MAX_LINE_LENGTH:
            lines.append(word)
        else:
            lines[-1] += word
    is_valid = all(line.strip() and len(line) <= MAX_TEXT_LENGTH for line in lines)
    return "\r\n".join(lines) if is_valid else None


def _encoded(name: str, value: str) -> str:
    """RFC 2047 encoded words, folded.

    The newer `email.policy` would fold long words into lines of one space.
    """
    return Header(value, "utf-8", header_name=name).encode(linesep="\r\n")
