"""Removes the contents of notifications that have been final for long enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from notifier.domain.notification import Priority


class Scrubbed(NamedTuple):
    """How many contents were removed, and whether others may be due."""

    removed: int
    is_behind: bool


class ContentStore(Protocol):
    """Removes contents. Several processes may do so at once. Raises StoreError."""

    async def scrub(self, keep_s: Mapping[Priority, float]) -> Scrubbed:
        """Remove a few hundred contents that are due, the oldest first.

        `keep_s` is for how many seconds the contents of a priority are kept after the notification
        is final.
        """
        ...
