"""Which notifications this worker has in its hands: the judge of what is an orphan.

What it asked for enters before the claim is asked and leaves when its record or release is
confirmed. What was sent and could not be recorded never leaves: to whoever takes this worker for
dead it is Ambiguous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notifier.domain.notification import NotificationId
    from notifier.ports.store import ClaimRequest


class InFlightClaims:
    """The claims asked for, by id: two copies of a pointer are never in hand at once."""

    def __init__(self) -> None:
        self._held: dict[NotificationId, set[int]] = {}
        self._kept: set[ClaimRequest] = set()

    def __contains__(self, id_: object) -> bool:
        return id_ in self._held

    def ids(self) -> frozenset[NotificationId]:
        """What is in hand now."""
        return frozenset(self._held)

    def has(self, ask: ClaimRequest) -> bool:
        """Whether a copy of this pointer is in hand."""
        return ask.claim in self._held.get(ask.id, ())

    def keep(self, ask: ClaimRequest) -> None:
        """Leave it in the set for good."""
        self._kept.add(ask)

    def enter(self, ask: ClaimRequest) -> None:
        """Put it into the set; it must not be in it yet."""
        self._held.setdefault(ask.id, set()).add(ask.claim)

    def leave(self, ask: ClaimRequest) -> None:
        """Take it out, unless it is kept."""
        if self._kept and ask in self._kept:
            return
        claims = self._held[ask.id]
        claims.remove(ask.claim)
        if not claims:
            del self._held[ask.id]
