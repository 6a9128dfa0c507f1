"""The acceptor: where the API sends validated notifications to be stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from notifier.domain.errors import FeatureUnavailable, IdempotencyKeyReused, StoreRejected
from notifier.domain.idempotency import IdempotencyKey
from notifier.domain.notification import NewNotification, NotificationId, Status


class Suppressed(NamedTuple):
    """The recipient is suppressed for this reason: the notification is stored and never sent."""

    reason: str


class Replayed(NamedTuple):
    """The answer to an earlier submit with the same idempotency key; nothing was stored now.

    `reason` is that of a suppressed one.
    """

    id: NotificationId
    status: Status
    reason: str | None = None


Reply = Status | Suppressed | Replayed | IdempotencyKeyReused
Refusal = StoreRejected | IdempotencyKeyReused | FeatureUnavailable


class Acceptor(Protocol):
    """Stores notifications; implemented by delivery/accept.py."""

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Reply | Refusal]:
        """Store all; returns for each its status, its earlier answer, or why it was not stored.

        FeatureUnavailable is decided before keys are looked up: the repeat of a stored submit may
        get it. Returns after the commit. Raises StoreUnavailable if the deadline passes first (some
        items may be stored then), IdempotencyKeyInFlight if it passes while this process writes
        another submit with one of the keys, and Overloaded at once if the process or the deployment
        is full.
        """
        ...

    async def earlier(self, key: IdempotencyKey) -> Replayed | IdempotencyKeyReused | None:
        """Return the answer of an earlier submit with this key, None if there was none.

        Raises StoreUnavailable.
        """
        ...
