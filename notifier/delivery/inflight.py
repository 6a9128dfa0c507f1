"""Which notifications this worker has in its hands: the judge of what is an orphan.

What it asked for enters before the claim is asked and leaves when its record or release is
confirmed. What was sent and could not be recorded never leaves: to whoever takes this worker for
dead it is Ambiguous.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notifier.domain.notification import NotificationId
    from notifier.ports import ClaimAsk


class InFlight:
    """The claims asked for, by id: two copies of a pointer are never in hand at once."""

    def __init__(self) -> None:
        self._held: dict[NotificationId, set[int]] = {}
        self._kept: set[ClaimAsk] = set()

    def __contains__(self, id_: object) -> bool:
        return id_ in self._held

    def ids(self) -> frozenset[NotificationId]:
        """What is in hand now."""
        return frozenset(self._held)

    def has(self, ask: ClaimAsk) -> bool:
        """Whether a copy of this pointer is in hand."""
        return ask.claim in self._held.get(ask.id, ())

    def keep(self, ask: ClaimAsk) -> None:
        """Leave it in the set for good."""
        self._kept.add(ask)

    @contextmanager
    def holding(self, ask: ClaimAsk) -> Iterator[None]:
        """In the set for the length of the block, or for good; it must not be in it yet."""
        self._held.setdefault(ask.id, set()).add(ask.claim)
        try:
            yield
        finally:
            if ask not in self._kept:
                self._remove(ask)

    def _remove(self, ask: ClaimAsk) -> None:
        self._held[ask.id].remove(ask.claim)
        if not self._held[ask.id]:
            del self._held[ask.id]
