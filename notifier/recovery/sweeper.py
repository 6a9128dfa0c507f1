"""The sweeper: expires notifications that were not sent within their time to live."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError
from notifier.domain.notification import Status
from notifier.lifecycle import wait

if TYPE_CHECKING:
    from notifier.ports.observer import FinishObserver
    from notifier.ports.store import UpkeepStore

SWEEP_INTERVAL_S: Final = 60.0

log = structlog.get_logger(__name__)


class Sweeper:
    """Every process runs one; concurrent passes do no harm."""

    def __init__(self, *, store: UpkeepStore, observer: FinishObserver) -> None:
        self._store = store
        self._observer = observer

    async def run(self, stop: asyncio.Event) -> None:
        """Run a pass every minute until `stop`, and the next one at once while rows are found."""
        while not stop.is_set():
            if not await self.run_once():
                await wait(stop, SWEEP_INTERVAL_S)

    async def run_once(self) -> int:
        """Expire a batch of rows past their time; returns how many."""
        try:
            expired = await self._store.sweep()
        except StoreError as error:
            log.warning("sweep_failed", reason=str(error))
            return 0
        for queue, age_s in expired:
            self._observer.finished(queue, Status.EXPIRED, age_s)
        if expired:
            log.info("notifications_expired", count=len(expired))
        return len(expired)
