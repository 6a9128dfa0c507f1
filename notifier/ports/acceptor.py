"""The acceptor: where the API sends validated notifications to be stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from notifier.domain.errors import StoreRejected
from notifier.domain.notification import NewNotification, Status


class Acceptor(Protocol):
    """Stores notifications; implemented by delivery/accept.py."""

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Status | StoreRejected]:
        """Store all; returns for each its status, or why Postgres refused that one.

        Returns after the commit. Raises StoreUnavailable if the deadline passes first (some items
        may be stored then), and Overloaded at once if the process or the deployment is full.
        """
        ...
