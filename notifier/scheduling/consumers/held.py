"""Messages that a lane holds, and the pointers in them that are not settled yet."""

from __future__ import annotations

from typing import Protocol

from notifier.ports.broker import Message, Pointer


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


class LanePointer:
    """Implements ports.attempts.HeldPointer: one pointer of a held message.

    `is_claimed` means that its row is claimed or being claimed.
    """

    __slots__ = ("_has_begun", "is_claimed", "message", "owner", "pointer")

    def __init__(self, pointer: Pointer, message: HeldMessage, owner: PointerOwner) -> None:
        self.pointer = pointer
        self.message = message
        self.owner = owner
        self.is_claimed = False
        self._has_begun = False

    def begin(self, at: float) -> None:
        """See ports.attempts.HeldPointer.begin."""
        self._has_begun = True
        self.message.unbegun -= 1
        self.message.begun_at = at

    def settle(self) -> None:
        """See ports.attempts.HeldPointer.settle."""
        if not self._has_begun:
            self.message.unbegun -= 1
        self.owner.settled(self)
