"""Reads the replies of an SMTP server (RFC 5321, section 4.2) from the bytes that arrive."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_REPLY_BYTES: Final = 1 << 20
"""A server that sends more without ending its reply does not speak SMTP."""
MAX_TEXT_BYTES: Final = 4096
"""How much text is kept of a reply. The rest is read and discarded."""

_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_MAX_SHOWN: Final = 200


class Reply(NamedTuple):
    """A reply: its code and its text, whose lines are joined by line breaks."""

    code: int
    text: str

    @property
    def is_positive(self) -> bool:
        """Whether the command was completed (2yz)."""
        return 200 <= self.code < 300  # noqa: PLR2004 RFC 5321 4.2.1, the first digit


class ProtocolError(Exception):
    """The server sent something that is no SMTP reply."""


class ReplyReader:
    """Collects bytes and returns the replies that they complete.

    It accepts bare line feeds, lines of any length and bytes that are no UTF-8.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._text = b""
        self._size = 0

    @property
    def is_empty(self) -> bool:
        """Whether no reply has begun."""
        return not self._size

    def feed(self, data: bytes) -> list[Reply]:
        """Add bytes; returns the replies that are now complete. Raises ProtocolError."""
        replies: list[Reply] = []
        lines = (self._pending + data).split(b"\n")
        self._pending = lines.pop()
        self._size += len(data)
        for line in lines:
            if (reply := self._read_line(line)) is not None:
                replies.append(reply)
                self._text, self._size = b"", len(self._pending)
        if self._size > MAX_REPLY_BYTES:
            raise ProtocolError(f"a reply of over {MAX_REPLY_BYTES} bytes")
        if len(self._pending) > 2 * MAX_TEXT_BYTES:
            # The start of the line is all that counts. Only its end is still looked for.
            self._pending = self._pending[:MAX_TEXT_BYTES]
        return replies

    def _read_line(self, line: bytes) -> Reply | None:
        """The reply that this line ends, or None."""
        found = _LINE.fullmatch(line.rstrip(b"\r"))
        if found is None:
            raise ProtocolError(line[:_MAX_SHOWN].decode("utf-8", "replace"))
        code, mark, text = found.groups()
        if len(self._text) < MAX_TEXT_BYTES:
            self._text += (b"\n" if self._text else b"") + (text or b"").strip()
        if mark == b"-":
            return None
        return Reply(int(code), self._text[:MAX_TEXT_BYTES].decode("utf-8", "replace"))
