"""Cancels and retries one notification, and reports what ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.control.operation_runner import report_cancelled

if TYPE_CHECKING:
    from notifier.domain.notification import NotificationView
    from notifier.ports.keys import Author
    from notifier.ports.observer import FinishObserver
    from notifier.ports.operations import NotificationControl, Retried
    from notifier.ports.store import ExpiredRow


class NotificationChanges:
    """Implements ports.operations.NotificationControl."""

    def __init__(self, *, store: NotificationControl, observer: FinishObserver) -> None:
        self._store = store
        self._observer = observer

    async def cancel(
        self, notification: NotificationView, note: str, author: Author
    ) -> ExpiredRow | None:
        ended = await self._store.cancel(notification, note, author)
        if ended is not None:
            report_cancelled(self._observer, [ended])
        return ended

    async def retry(self, notification: NotificationView, note: str, author: Author) -> Retried:
        return await self._store.retry(notification, note, author)
