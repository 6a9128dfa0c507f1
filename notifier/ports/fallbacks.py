"""Fallbacks: who looks at them, and what submits them. Stores raise StoreUnavailable."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from notifier.domain.fallbacks import DueFallback
from notifier.domain.notification import NotificationId
from notifier.ports.schedules import Submitted


class FallbackResult(NamedTuple):
    """What became of a fallback that was held until `held_until`.

    `look_at` is when it is looked at again, None if it is done; `notification` is what was
    submitted. `may_be_stored`: it is not known whether it was submitted.
    """

    id: NotificationId
    held_until: datetime
    look_at: datetime | None = None
    notification: NotificationId | None = None
    may_be_stored: bool = False


class FallbackStore(Protocol):
    """Gives each fallback to one process at a time."""

    async def take(self, count: int, hold_s: float) -> Sequence[DueFallback]:
        """Take up to `count` fallbacks that are to be looked at, the longest due first.

        No other process gets one of them for `hold_s` seconds, or until it is settled. Those with a
        field that this version does not know are left to others.
        """
        ...

    async def begin(self, fallbacks: Sequence[DueFallback]) -> Collection[NotificationId]:
        """Note that these may be submitted from now on; returns those that are still held.

        What is not noted may not be submitted.
        """
        ...

    async def settle(self, results: Sequence[FallbackResult]) -> Collection[NotificationId]:
        """Store results; returns the fallbacks that this changed.

        One that another process has taken since keeps its state, but that of what was submitted is
        stored in any case. May be repeated.
        """
        ...


class NotSubmitted(NamedTuple):
    """It was not submitted, because of a problem of the type `slug`.

    `is_final`: it never can be. `may_be_stored`: it may have been submitted all the same.
    """

    slug: str
    is_final: bool
    may_be_stored: bool = False


class FallbackSubmitter(Protocol):
    """Submits second notifications; implemented by api/submission/fallback_submits.py."""

    async def submit(self, fallback: DueFallback) -> Submitted | NotSubmitted:
        """Submit the second notification as its tenant would, once for each fallback."""
        ...

    async def earlier(self, fallback: DueFallback) -> NotificationId | None:
        """Return what was submitted for this fallback before, None if nothing was.

        Raises StoreUnavailable.
        """
        ...
