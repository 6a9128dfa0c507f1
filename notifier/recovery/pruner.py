"""The pruner: makes the days to come and drops those that are over, whole, when all is final."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from datetime import date

    from notifier.ports.observer import PrunerObserver
    from notifier.ports.store import UpkeepStore

PRUNE_INTERVAL_S: Final = 600.0

log = structlog.get_logger(__name__)


class Pruner:
    """Any process may run one; several do no harm."""

    def __init__(
        self, *, store: UpkeepStore, observer: PrunerObserver, retention: timedelta
    ) -> None:
        self._store = store
        self._observer = observer
        self._retention = retention

    async def run_once(self) -> list[str]:
        """One pass; the days it dropped, as YYYYMMDD."""
        done: dict[str, str] = {}
        try:
            await self._store.ensure_days()
            await self._store.forget_processes()
            today = datetime.fromtimestamp(await self._store.database_now(), UTC).date()
            for day in await self._store.days():
                if _date(day) < today - self._retention:
                    done[day] = await self._drop(day)
            self._observer.partitions_kept(sum(what == "kept" for what in done.values()))
        except StoreUnavailable as error:
            log.warning("prune_failed", reason=str(error))
        return [day for day, what in done.items() if what == "dropped"]

    async def _drop(self, day: str) -> str:
        try:
            what = await self._store.drop_day(_date(day))
        except StoreUnavailable as error:  # no lock in 200 ms: the next pass tries again
            log.info("partition_drop_postponed", day=day, reason=str(error))
            return "locked"
        if what == "kept":
            log.warning("partition_kept", day=day, reason="some of its notifications are not final")
        return what


def _date(day: str) -> date:
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).date()
