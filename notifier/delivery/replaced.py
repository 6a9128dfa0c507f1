"""Reports the notifications that newer ones with the same collapse key have replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.domain.notification import EndReason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from notifier.ports.observer import FinishObserver
    from notifier.ports.store import ExpiredRow


def report_replaced(observer: FinishObserver, ended: Iterable[ExpiredRow]) -> None:
    """Report each of these rows as cancelled, but for those whose queue is unknown."""
    for row in ended:
        if row.queue is not None:
            observer.finished(row.queue, Status.CANCELLED, row.age_s, EndReason.COLLAPSED)
