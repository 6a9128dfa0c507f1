"""The body of a message: the ids and claims of some rows, and the time of their publish."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from notifier.domain.notification import NotificationId, QueueKey
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE, Pointer

_MAX_CLAIM: Final = 2**31 - 1  # Postgres's integer: a larger number would fail a batch of claims
_MAX_INSTANT: Final = 253402300800.0  # the year 10000


class UnreadableMessage(Exception):
    """A message that is not one of ours. Its text never quotes the body."""


_Claim = Annotated[int, msgspec.Meta(ge=0, le=_MAX_CLAIM)]


class _Body(msgspec.Struct, frozen=True):
    pointers: Annotated[
        list[tuple[uuid.UUID, _Claim]],
        msgspec.Meta(min_length=1, max_length=MAX_POINTERS_PER_MESSAGE),
    ]
    published_at: Annotated[float, msgspec.Meta(ge=0, le=_MAX_INSTANT)]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Body)


def encode(pointers: Sequence[Pointer]) -> bytes:
    """Encode pointers of one queue and one `published_at`. The queue is in the routing key."""
    return _encoder.encode(
        _Body(
            pointers=[(pointer.id, pointer.claim) for pointer in pointers],
            published_at=pointers[0].published_at,
        )
    )


def decode(body: bytes, *, routing_key: str | None, queue: QueueKey) -> list[Pointer]:
    """Decode a message that arrived in `queue`. Raises UnreadableMessage."""
    if routing_key != str(queue):
        raise UnreadableMessage("routing key of another queue")
    try:
        decoded = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableMessage(type(error).__name__) from error
    return [
        Pointer(queue=queue, id=NotificationId(id_), claim=claim, published_at=decoded.published_at)
        for id_, claim in decoded.pointers
    ]
