"""Ends notifications that newer ones replaced while they were being sent, or whose API died."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.delivery.replaced import report_replaced
from notifier.domain.errors import StoreError

if TYPE_CHECKING:
    from notifier.ports.observer import FinishObserver
    from notifier.ports.store import CollapseStore

COLLAPSE_INTERVAL_S: Final = 5.0

log = structlog.get_logger(__name__)


class Collapser:
    """Every process runs one; concurrent passes do no harm."""

    def __init__(self, *, store: CollapseStore, observer: FinishObserver) -> None:
        self._store = store
        self._observer = observer

    async def run_once(self) -> int:
        """End a batch of replaced rows that wait; returns how many."""
        try:
            ended = await self._store.collapse()
        except StoreError as error:
            log.warning("collapse_failed", reason=str(error))
            return 0
        report_replaced(self._observer, ended)
        if ended:
            log.info("notifications_collapsed", count=len(ended))
        return len(ended)
