"""Messages that a lane holds, and the pointers in them that are not settled yet."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from notifier.ports.broker import Message, Pointer
from notifier.scheduling.consumers.prefetch import MessageSize

TAIL_AFTER_S: Final = 0.25
"""A message whose last call began this long ago, and is not settled, waits for slow calls."""


class PointerOwner(Protocol):
    """Is told when a pointer is settled. Implemented by scheduling.consumers.lane.Lane."""

    def settled(self, held: LanePointer) -> None:
        """Nothing is left to do for this pointer."""
        ...


class HeldMessage:
    """One message, from its delivery until its last pointer is settled.

    `unbegun` counts the pointers whose attempt may still begin. `received_at` and `begun_at`, when
    the last attempt began, are on the lane's clock.
    """

    __slots__ = ("begun_at", "message", "received_at", "unbegun", "unsettled")

    def __init__(self, message: Message, received_at: float) -> None:
        self.message = message
        self.received_at = received_at
        self.begun_at = received_at
        self.unbegun = self.unsettled = len(message.pointers)


class LanePointer(msgspec.Struct, eq=False):
    """Implements ports.attempts.HeldPointer: one pointer of a held message.

    `is_claimed` means that its row is claimed or being claimed, `has_begun` that its attempt has
    begun.
    """

    pointer: Pointer
    message: HeldMessage
    owner: PointerOwner
    is_claimed: bool = False
    has_begun: bool = False

    def begin(self, at: float) -> None:
        """See ports.attempts.HeldPointer.begin."""
        self.has_begun = True
        self.message.unbegun -= 1
        self.message.begun_at = at

    def settle(self) -> None:
        """See ports.attempts.HeldPointer.settle."""
        if not self.has_begun:
            self.message.unbegun -= 1
        self.owner.settled(self)


class HeldMessages:
    """The messages of one lane that are not acked."""

    def __init__(self) -> None:
        self.pointers = 0
        """The number of pointers in them that are not settled."""
        self.size = MessageSize()
        self._messages: dict[HeldMessage, None] = {}

    def __len__(self) -> int:
        """The number of messages."""
        return len(self._messages)

    def add(self, message: Message, now: float, owner: PointerOwner) -> list[LanePointer]:
        """Take in a message; returns its pointers."""
        held = HeldMessage(message, now)
        self._messages[held] = None
        self.pointers += len(message.pointers)
        self.size.record(len(message.pointers))
        return [LanePointer(pointer, held, owner) for pointer in message.pointers]

    def settle(self, held: LanePointer) -> Message | None:
        """Count a pointer as settled; returns its message if that is to be acked now."""
        message = held.message
        message.unsettled -= 1
        if message not in self._messages:  # its connection is lost: it cannot be acked
            return None
        self.pointers -= 1
        if message.unsettled:
            return None
        del self._messages[message]
        return message.message

    def clear(self) -> None:
        """Forget all messages: the connection that carried them is lost."""
        self._messages.clear()
        self.pointers = 0

    @property
    def published_since(self) -> float | None:
        """The earliest time of publishing, on Postgres's clock; None without a message."""
        return min((held.message.published_at for held in self._messages), default=None)

    def tails(self, now: float, *, consumers_wait: bool) -> int:
        """The messages that have nothing left to begin and wait for slow calls.

        If consumers wait while no message has anything left, all messages count, also young ones.
        """
        begun = [held for held in self._messages if not held.unbegun]
        if len(begun) == len(self._messages) and consumers_wait:
            return len(begun)
        return sum(now - held.begun_at > TAIL_AFTER_S for held in begun)
