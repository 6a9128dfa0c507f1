"""The body of a message: pointers to rows of one queue, published at the same time.

Processes of other versions read and write it too. A field of a later version is ignored; one that
an earlier version does not write has a default.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec

from notifier.domain.notification import NotificationId, QueueKey
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE, Pointer

_MAX_CLAIM: Final = 2**31 - 1  # Postgres's integer: a larger number would fail a batch of claims
_MAX_SIZE: Final = 2**31 - 1  # above the largest content that Postgres can store
_MAX_DEATHS: Final = 2**15 - 1  # Postgres's smallint
_MAX_INSTANT: Final = 253402300800.0  # the year 10000


class UnreadableMessage(Exception):
    """A message that is not one of ours. Its text never quotes the body."""


_Claim = Annotated[int, msgspec.Meta(ge=0, le=_MAX_CLAIM)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=_MAX_SIZE)]


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """`sizes` has one item per pointer, or none if they are unknown. `deaths` applies to each."""

    pointers: Annotated[
        list[tuple[uuid.UUID, _Claim]],
        msgspec.Meta(min_length=1, max_length=MAX_POINTERS_PER_MESSAGE),
    ]
    published_at: Annotated[float, msgspec.Meta(ge=0, le=_MAX_INSTANT)]
    sizes: Annotated[list[_Size], msgspec.Meta(max_length=MAX_POINTERS_PER_MESSAGE)] = []
    deaths: Annotated[int, msgspec.Meta(ge=0, le=_MAX_DEATHS)] = 0
    deployment: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]{0,64}\Z")] = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Body)


def encode(pointers: Sequence[Pointer], deployment: str = "") -> bytes:
    """Encode pointers with the same queue, `published_at` and deaths.

    The queue is in the routing key. `deployment` is the id of ours, empty if unknown.
    """
    return _encoder.encode(
        _Body(
            pointers=[(pointer.id, pointer.claim) for pointer in pointers],
            published_at=pointers[0].published_at,
            sizes=[pointer.size for pointer in pointers],
            deaths=pointers[0].deaths,
            deployment=deployment,
        )
    )


class Decoded(NamedTuple):
    """The pointers of a message, and the id of the deployment that published it, "" if unknown."""

    pointers: list[Pointer]
    deployment: str


def decode(body: bytes, *, routing_key: str | None, queue: QueueKey) -> Decoded:
    """Decode a message that arrived in `queue`. Raises UnreadableMessage."""
    if routing_key != str(queue):
        raise UnreadableMessage("routing key of another queue")
    try:
        decoded = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableMessage(type(error).__name__) from error
    sizes = decoded.sizes or [0] * len(decoded.pointers)
    if len(sizes) != len(decoded.pointers):
        raise UnreadableMessage("sizes of another number of pointers")
    pointers = [
        Pointer(
            queue=queue,
            id=NotificationId(id_),
            claim=claim,
            published_at=decoded.published_at,
            size=size,
            deaths=decoded.deaths,
        )
        for (id_, claim), size in zip(decoded.pointers, sizes, strict=True)
    ]
    return Decoded(pointers, decoded.deployment)
