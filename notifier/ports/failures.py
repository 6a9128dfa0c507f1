"""Groups of failures, for the people on call."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from notifier.domain.failures import FailureGroups
from notifier.ports.queries import View


class FailureGroupReader(Protocol):
    """Groups failures by reason, provider and code."""

    async def failure_groups(
        self, begin: datetime, channels: Collection[str], view: View
    ) -> FailureGroups:
        """Return the groups of what failed at or after `begin` and has not been sent again.

        `channels` are those of the submits. Empty: all but those of calls of webhooks and of
        inboxes. Reads a bounded number of failures, those of the newest notifications. Raises
        StoreUnavailable.
        """
        ...
