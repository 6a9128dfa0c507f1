"""The sweeper: expires notifications that were not sent within their time to live."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from notifier.delivery.batch_write import write_batch
from notifier.domain.errors import StoreError, StoreRejected
from notifier.domain.notification import Status
from notifier.lifecycle import wait
from notifier.ports.store import ExpiredRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.notification import NotificationId
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
        """Expire a batch of rows past their time; returns how many.

        A row that Postgres refuses to expire stays.
        """
        expired = 0
        try:
            ids = await self._store.find_expired()
            replies = await write_batch("sweep", ids, self._sweep) if ids else []
            for id_, reply in zip(ids, replies, strict=True):
                if isinstance(reply, ExpiredRow):
                    expired += 1
                    if reply.queue is not None:
                        self._observer.finished(reply.queue, Status.EXPIRED, reply.age_s)
                elif isinstance(reply, StoreRejected):
                    log.warning("expiry_rejected", id=str(id_), reason=str(reply))
                elif reply is not None:
                    raise reply
        except StoreError as error:
            log.warning("sweep_failed", reason=str(error))
        if expired:
            log.info("notifications_expired", count=expired)
        return expired

    async def _sweep(self, ids: Sequence[NotificationId]) -> Sequence[ExpiredRow | None]:
        expired = {row.id: row for row in await self._store.sweep(ids)}
        return [expired.get(id_) for id_ in ids]
