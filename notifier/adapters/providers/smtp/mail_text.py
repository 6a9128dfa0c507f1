"""The text of a mail for DATA, in pieces: files are encoded while they are sent.

So a mail with large files takes no more memory than the files themselves, which several mails may
share.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

CHUNK_BYTES: Final = 57 * 4096
"""Of a file that are encoded at once: whole lines of base64 (RFC 2045, 6.8)."""
LEAST_BYTES: Final = 64 * 1024
"""Of all chunks but the last."""
LINE_BYTES: Final = 57
_LINE: Final = 76


class Piece(Protocol):
    """A part of a text that is made while it is sent. It ends with a line break."""

    def chunks(self) -> Iterator[bytes]:
        """Yield whole lines that end with CRLF."""
        ...

    @property
    def size(self) -> int:
        """About how many bytes it is."""
        ...


class Base64File:
    """A file as lines of base64. Implements Piece."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    @property
    def size(self) -> int:
        return len(self._data) * 78 // LINE_BYTES

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), CHUNK_BYTES):
            encoded = b2a_base64(self._data[start : start + CHUNK_BYTES], newline=False)
            lines = [encoded[at : at + _LINE] for at in range(0, len(encoded), _LINE)]
            yield b"\r\n".join([*lines, b""])
        if not self._data:
            yield b"\r\n"


class Lines:
    """Text whose lines end with LF or CRLF, as lines that end with CRLF. Implements Piece."""

    __slots__ = ("_data",)

    def __init__(self, data: memoryview) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def chunks(self) -> Iterator[bytes]:
        rest = b""
        for start in range(0, len(self._data), CHUNK_BYTES):
            chunk = rest + bytes(self._data[start : start + CHUNK_BYTES])
            lines, end, rest = chunk.rpartition(b"\n")
            if end:
                yield _with_crlf(lines + end)
        if rest:
            yield _with_crlf(rest) + b"\r\n"


class MailText:
    """The text of a mail; all its lines end with CRLF."""

    __slots__ = ("_pieces", "size")

    def __init__(self, pieces: Sequence[bytes | Piece]) -> None:
        self._pieces = pieces
        self.size = sum(
            [len(piece) if isinstance(piece, bytes) else piece.size for piece in pieces]
        )
        """About how many bytes it is."""

    def chunks(self) -> Iterator[bytes]:
        """Yield whole lines, without dot-stuffing."""
        lines: list[bytes] = []
        size = 0
        for chunk in self._small_chunks():
            lines.append(chunk)
            size += len(chunk)
            if size >= LEAST_BYTES:
                yield b"".join(lines)
                lines, size = [], 0
        if lines:
            yield b"".join(lines)

    def _small_chunks(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from piece.chunks()

    def __bytes__(self) -> bytes:
        """Return all of it."""
        return b"".join(self.chunks())


def _with_crlf(lines: bytes) -> bytes:
    return lines.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
