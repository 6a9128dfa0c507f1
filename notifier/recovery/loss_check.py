"""The loss check: looks for notifications that neither wait nor have ended.

No statement leaves one behind; the check would show a fault of Notifier or of the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError

if TYPE_CHECKING:
    from notifier.ports.observer import LossObserver
    from notifier.ports.store import UpkeepStore

LOSS_CHECK_INTERVAL_S: Final = 300.0

log = structlog.get_logger(__name__)


class LossCheck:
    """Every process runs one. It changes nothing."""

    def __init__(self, *, store: UpkeepStore, observer: LossObserver) -> None:
        self._store = store
        self._observer = observer

    async def run_once(self) -> None:
        """Report how many of the newest notifications are lost."""
        try:
            found = await self._store.find_lost()
        except StoreError as error:
            log.warning("loss_check_failed", reason=str(error))
            return
        self._observer.lost_counted(found.lost)
        if found.lost:
            log.error("notifications_lost", count=found.lost, newest=str(found.newest))
