"""The cursor of the events: which transactions a reader has seen.

Transactions become visible in another order than that of their numbers: "everything up to a number"
would pass over those that commit late, and to wait for all earlier ones would stop at any
transaction that is open for long. So a cursor says exactly what was seen, as a snapshot of Postgres
does: all transactions below `beyond`, except for those that were still running.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import sub
from typing import Final

import msgspec

MAX_CURSOR_BYTES: Final = 2048
"""The longest text of a cursor."""
MAX_RUNNING_BYTES: Final = 1400
"""The longest encoded list of running transactions: the rest needs less than 100 bytes."""
_VERSION: Final = 1
_EPOCH_BYTES: Final = 8
_HEAD_BYTES: Final = 1 + _EPOCH_BYTES
_MAX_NUMBER: Final = 2**63 - 1
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LAST_MS: Final = 253_402_300_799_000


class EventCursor(msgspec.Struct, frozen=True, gc=False):
    """What a reader has seen: the transactions below `beyond` but the `running` ones.

    `running` is ascending. `at` is the time up to which it has read, by Postgres's clock. Of the
    transaction `partial`, which is not among the seen ones, it has the first `partial_count`
    events; 0: of none. `epoch` names the line of history that the numbers belong to: after a
    restore they stand for other transactions.
    """

    epoch: int
    at: datetime
    beyond: int
    running: tuple[int, ...] = ()
    partial: int = 0
    partial_count: int = 0

    def sees(self, transaction: int) -> bool:
        """Whether all events of a transaction were read."""
        return transaction < self.beyond and transaction not in self.running

    def has_seen_the_same_as(self, other: EventCursor) -> bool:
        """Whether readers with the two cursors have seen the same; their `at` may differ."""
        return (
            self.partial_count == other.partial_count
            and self.partial == other.partial
            and self.beyond == other.beyond
            and self.running == other.running
            and self.epoch == other.epoch
        )

    def covers(self, other: EventCursor) -> bool:
        """Whether a reader has seen all that the reader with the other cursor has."""
        return (
            self.beyond >= other.beyond
            and (other.partial == 0 or self.sees(other.partial))
            and not any(
                number < other.beyond and number not in other.running for number in self.running
            )
        )


def bounded(cursor: EventCursor, before: EventCursor) -> EventCursor:
    """Return the cursor itself, or one that has seen less and whose text is short enough.

    `before` is the cursor that it follows: whatever that has seen, the result has seen too.
    """
    kept = _fitting(cursor.running)
    if kept == len(cursor.running):
        return cursor
    # Those running below before.beyond are some of before.running, whose text was short enough.
    beyond = max(cursor.running[kept], before.beyond)
    running = tuple(number for number in cursor.running if number < beyond)
    return msgspec.structs.replace(cursor, beyond=beyond, running=running)


def encode_cursor(cursor: EventCursor) -> str:
    """Return a cursor as text of at most MAX_CURSOR_BYTES: letters, digits, - and _."""
    milliseconds = (cursor.at - _START) // _MILLISECOND
    numbers = b"%b%b%b%b%b%b%b" % (
        _head(cursor.epoch),
        _number(max(0, milliseconds)),
        _number(cursor.beyond),
        _number(cursor.partial),
        _number(cursor.partial_count),
        _number(len(cursor.running)),
        _deltas(cursor.running),
    )
    return urlsafe_b64encode(numbers).rstrip(b"=").decode()


def decode_cursor(text: str) -> EventCursor:
    """Return the cursor of a text. Raises ValueError for any text that is none."""
    if len(text) > MAX_CURSOR_BYTES or not text.isascii():
        raise ValueError("not a cursor: too long, or not ASCII")
    encoded = text.encode()
    data = urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    if len(data) < _HEAD_BYTES or data[0] != _VERSION:
        raise ValueError("not a cursor of this version")
    numbers = _numbers(data[_HEAD_BYTES:])
    if len(numbers) < 5 or len(numbers) != 5 + numbers[4]:  # noqa: PLR2004 as encode_cursor puts them
        raise ValueError("not a cursor: it is cut")
    milliseconds, beyond, partial, partial_count, _, *deltas = numbers
    running = _summed(deltas)
    if milliseconds > _LAST_MS or (running and running[-1] >= beyond):
        raise ValueError("not a cursor: its numbers contradict each other")
    return EventCursor(
        epoch=int.from_bytes(data[1:_HEAD_BYTES]),
        at=_START + timedelta(milliseconds=milliseconds),
        beyond=beyond,
        running=running,
        partial=partial,
        partial_count=partial_count,
    )


def _fitting(running: Sequence[int]) -> int:
    """Return how many of these fit into MAX_RUNNING_BYTES."""
    size = before = 0
    for index, number in enumerate(running):
        size += len(_number(number - before))
        if size > MAX_RUNNING_BYTES:
            return index
        before = number
    return len(running)


# The cursors of one read share most of their numbers, so encoded numbers are kept.
@lru_cache
def _head(epoch: int) -> bytes:
    return bytes((_VERSION,)) + (epoch & (1 << 64) - 1).to_bytes(_EPOCH_BYTES)


@lru_cache
def _deltas(running: tuple[int, ...]) -> bytes:
    """Return ascending numbers as what is added to the one before."""
    return b"".join(map(_number, map(sub, running, (0, *running))))


@lru_cache(4096)
def _number(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first (LEB128)."""
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 the largest that fits into one group
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _numbers(data: bytes) -> list[int]:
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            continue
        if number > _MAX_NUMBER:
            raise ValueError("not a cursor: a number is too large")
        numbers.append(number)
        number = shift = 0
    if shift:
        raise ValueError("not a cursor: it is cut")
    return numbers


def _summed(deltas: Sequence[int]) -> tuple[int, ...]:
    running: list[int] = []
    for delta in deltas:
        if delta == 0:
            raise ValueError("not a cursor: a transaction is in it twice")
        running.append(delta + (running[-1] if running else 0))
    if running and running[-1] > _MAX_NUMBER:
        raise ValueError("not a cursor: a number is too large")
    return tuple(running)
