"""What a process and its renderer say to each other: a length of four bytes, then MessagePack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from notifier.domain.templates import TemplateFault

HEADER_BYTES: Final = 4
BYTE_ORDER: Final = "big"


class Render(msgspec.Struct, tag="render", frozen=True):
    """Render the encoded parts with the encoded variables."""

    parts: bytes
    variables: bytes
    max_bytes: int
    schema: bytes
    is_accepted: bool


class Compile(msgspec.Struct, tag="compile", frozen=True):
    """Check an encoded document, and replace its MJML by HTML."""

    document: bytes


class Reply(msgspec.Struct, frozen=True):
    """The encoded result, or what is wrong."""

    result: bytes = b""
    faults: Sequence[TemplateFault] = ()


Request = Render | Compile
decode_request: Final = msgspec.msgpack.Decoder(Request).decode
decode_reply: Final = msgspec.msgpack.Decoder(Reply).decode


def framed(message: Request | Reply) -> bytes:
    """Encode a message with its length."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(HEADER_BYTES, BYTE_ORDER) + body
