"""Marks submits to recipients that have had as many notifications on this day as they may get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from notifier.domain.notification import EndReason
from notifier.domain.recipient_caps import capped_recipient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.notification import NewNotification
    from notifier.domain.recipient_caps import RecipientCaps
    from notifier.ports.store import RecipientCounts


class RecipientCapCheck:
    """Implements accept.SubmitStep. Without caps it reads nothing.

    What is stored is counted in the statement that stores it (`is_counted`). Two processes that
    accept at the same moment may exceed a cap by what both accept then.
    """

    def __init__(self, store: RecipientCounts, caps: RecipientCaps) -> None:
        self._store = store
        self._caps = caps

    async def apply(self, items: Sequence[NewNotification]) -> Sequence[NewNotification]:
        """Return the items, those beyond the cap as suppressed. Raises StoreError."""
        if not self._caps:
            return items
        capped = {
            item.id: capped_recipient(item)
            for item in items
            if item.queue.channel in self._caps and item.suppressed is None
        }
        if not capped:
            return items
        counts = dict(await self._store.recipient_counts(set(capped.values())))
        checked: list[NewNotification] = []
        for item in items:
            recipient = capped.get(item.id)
            if recipient is None:
                checked.append(item)
                continue
            count = counts.get(recipient, 0)
            if count >= self._caps[item.queue.channel]:
                checked.append(replace(item, suppressed=EndReason.RECIPIENT_CAP))
            else:
                counts[recipient] = count + 1
                checked.append(replace(item, is_counted=True))
        return checked
