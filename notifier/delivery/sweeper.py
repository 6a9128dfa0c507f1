"""The sweeper: expires what waited past its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Status

if TYPE_CHECKING:
    from notifier.ports import Observer, Store

EVERY_S: Final = 60.0

log = structlog.get_logger()


class Sweeper:
    """Any process may run one; several do no harm."""

    def __init__(self, *, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer

    async def run_once(self) -> int:
        """Expire all waiting rows past their time; how many that were."""
        total = 0
        try:
            while expired := await self._store.sweep():
                for queue, age in expired:
                    self._observer.finished(queue, Status.EXPIRED, age.total_seconds())
                total += len(expired)
        except StoreUnavailable as error:
            log.warning("sweeper_waits", reason=str(error))
        if total:
            log.info("expired", count=total)
        return total
