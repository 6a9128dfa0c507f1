"""The claims that this worker has in flight; decides which claimed rows are orphans.

A claim is added before it is requested and removed once its result or its return is confirmed.
A claim that was sent but could not be recorded is retained for good: the process that finds this
worker dead treats it as Ambiguous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notifier.domain.notification import NotificationId
    from notifier.ports.store import ClaimRequest


class InFlightClaims:
    """The requested claims by notification id; no claim is in flight twice."""

    def __init__(self) -> None:
        self._claims: dict[NotificationId, set[int]] = {}
        self._retained: set[ClaimRequest] = set()
        self.is_unused = True
        """Whether nothing was ever claimed."""

    def __contains__(self, id_: object) -> bool:
        return id_ in self._claims

    def ids(self) -> frozenset[NotificationId]:
        """Return the ids of all notifications in flight."""
        return frozenset(self._claims)

    def has(self, request: ClaimRequest) -> bool:
        """Return whether this very claim is in flight."""
        return request.claim in self._claims.get(request.id, ())

    def add(self, request: ClaimRequest) -> None:
        """Add a claim that is not in flight yet."""
        self.is_unused = False
        self._claims.setdefault(request.id, set()).add(request.claim)

    def retain(self, request: ClaimRequest) -> None:
        """Keep the claim for good: `remove` then does nothing."""
        self._retained.add(request)

    def remove(self, request: ClaimRequest) -> None:
        """Remove a claim, unless it is retained. Does nothing if it is not in flight."""
        if self._retained and request in self._retained:
            return
        claims = self._claims.get(request.id)
        if claims is None:
            return
        claims.discard(request.claim)
        if not claims:
            del self._claims[request.id]
