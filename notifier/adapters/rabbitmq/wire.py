"""The body of a message: which row, at which claim, published when. Nothing else, ever."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec

from notifier.domain.notification import NotificationId, QueueKey
from notifier.ports import Pointer

_MAX_CLAIM = 2**31 - 1  # what Postgres's integer holds: one beyond it would sink a batch of claims
_MAX_INSTANT = 253402300800.0  # the year 10000


class UnreadableMessage(Exception):
    """Not one of our pointers. Its text never quotes the body."""


class _Body(msgspec.Struct, frozen=True):
    id: uuid.UUID
    claim: Annotated[int, msgspec.Meta(ge=0, le=_MAX_CLAIM)]
    published_at: Annotated[float, msgspec.Meta(ge=0, le=_MAX_INSTANT)]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Body)


def encode(pointer: Pointer) -> bytes:
    """The JSON of a pointer; its queue travels as the routing key."""
    return _encoder.encode(
        _Body(id=pointer.id, claim=pointer.claim, published_at=pointer.published_at)
    )


def decode(body: bytes, *, routing_key: str | None, queue: QueueKey) -> Pointer:
    """Read a message found in `queue`. Raises UnreadableMessage for all that is not a pointer."""
    if routing_key != str(queue):
        raise UnreadableMessage("routing key of another queue")
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableMessage(type(error).__name__) from error
    return Pointer(
        queue=queue,
        id=NotificationId(found.id),
        claim=found.claim,
        published_at=found.published_at,
    )
