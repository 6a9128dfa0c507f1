"""The body of a message: which rows, at which claims, published when. Nothing else, ever."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated

import msgspec

from notifier.adapters.rabbitmq.batch_size import MAX_POINTERS_PER_MESSAGE
from notifier.domain.notification import NotificationId, QueueKey
from notifier.ports.broker import Pointer

_MAX_CLAIM = 2**31 - 1  # what Postgres's integer holds: one beyond it would sink a batch of claims
_MAX_INSTANT = 253402300800.0  # the year 10000


class UnreadableMessage(Exception):
    """Not one of our messages. Its text never quotes the body."""


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
    """The JSON of pointers of one queue, which travels as the routing key, taken at one instant."""
    return _encoder.encode(
        _Body(
            pointers=[(one.id, one.claim) for one in pointers],
            published_at=pointers[0].published_at,
        )
    )


def decode(body: bytes, *, routing_key: str | None, queue: QueueKey) -> list[Pointer]:
    """Read a message found in `queue`. Raises UnreadableMessage for all that is none of ours."""
    if routing_key != str(queue):
        raise UnreadableMessage("routing key of another queue")
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableMessage(type(error).__name__) from error
    return [
        Pointer(queue=queue, id=NotificationId(each), claim=claim, published_at=found.published_at)
        for each, claim in found.pointers
    ]
