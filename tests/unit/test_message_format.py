"""Messages are read by other versions: the format that commit 1f4a78b wrote is kept."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec

from notifier.adapters.rabbitmq.wire import decode, encode
from notifier.domain.notification import NotificationId
from notifier.ports.broker import Pointer
from tests.builders import EMAIL_HIGH

FIRST = NotificationId(uuid.UUID("01890000-0000-7000-8000-000000000001"))
SECOND = NotificationId(uuid.UUID("01890000-0000-7000-8000-000000000002"))
PREVIOUS_BODY = (
    b'{"pointers":[["01890000-0000-7000-8000-000000000001",0],'
    b'["01890000-0000-7000-8000-000000000002",7]],"published_at":1800000000.25}'
)
"""A message as the previous version wrote it."""


class PreviousBody(msgspec.Struct, frozen=True):
    """The body of the previous version."""

    pointers: Annotated[
        list[tuple[uuid.UUID, Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]]],
        msgspec.Meta(min_length=1, max_length=64),
    ]
    published_at: Annotated[float, msgspec.Meta(ge=0, le=253402300800.0)]


def pointer(id_: NotificationId, claim: int, *, size: int = 0, deaths: int = 0) -> Pointer:
    return Pointer(
        queue=EMAIL_HIGH,
        id=id_,
        claim=claim,
        published_at=1_800_000_000.25,
        size=size,
        deaths=deaths,
    )


def read(body: bytes) -> list[Pointer]:
    return decode(body, routing_key="email.high", queue=EMAIL_HIGH).pointers


def test_the_deployment_is_in_the_message_and_the_previous_version_ignores_it() -> None:
    body = encode([pointer(FIRST, 0)], "0123456789abcdef")
    read_again = decode(body, routing_key="email.high", queue=EMAIL_HIGH)
    assert read_again.deployment == "0123456789abcdef"
    assert msgspec.json.decode(body, type=PreviousBody).pointers == [(FIRST, 0)]
    assert decode(PREVIOUS_BODY, routing_key="email.high", queue=EMAIL_HIGH).deployment == ""


def test_a_message_of_the_previous_version_is_read_without_sizes_and_deaths() -> None:
    assert read(PREVIOUS_BODY) == [pointer(FIRST, 0), pointer(SECOND, 7)]


def test_the_previous_version_reads_a_message_with_sizes_and_deaths() -> None:
    several = encode([pointer(FIRST, 0, size=34), pointer(SECOND, 7, size=262_144)])
    previous = msgspec.json.decode(PREVIOUS_BODY, type=PreviousBody)
    assert msgspec.json.decode(several, type=PreviousBody) == previous
    lone = encode([pointer(SECOND, 7, size=34, deaths=2)])
    assert msgspec.json.decode(lone, type=PreviousBody).pointers == [(SECOND, 7)]


def test_sizes_and_deaths_are_read_as_they_were_written() -> None:
    several = [pointer(FIRST, 0, size=34), pointer(SECOND, 7, size=2**31 - 1)]
    lone = [pointer(SECOND, 7, size=34, deaths=2**15 - 1)]
    assert read(encode(several)) == several
    assert read(encode(lone)) == lone
