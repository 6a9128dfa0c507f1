"""The pruner: creates the partitions of the coming days and drops those past retention.

It also removes old events and idempotency keys, expired keys, suppressions and entries of inboxes,
blobs, fallbacks, entries of the audit, and what deleted tenants left. A day is dropped as a whole,
and only when all its notifications are final.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError

if TYPE_CHECKING:
    from datetime import date

    from notifier.ports.observer import PrunerObserver
    from notifier.ports.store import UpkeepStore

PRUNE_INTERVAL_S: Final = 600.0
MAX_BLOB_STEPS: Final = 100
"""How often a pass removes some blobs."""
MAX_INBOX_STEPS: Final = 100
"""How often a pass removes some entries of inboxes."""

log = structlog.get_logger(__name__)


class Pruner:
    """Every process runs one; concurrent passes do no harm."""

    def __init__(
        self,
        *,
        store: UpkeepStore,
        observer: PrunerObserver,
        retention: timedelta,
        audit_retention: timedelta,
        keep_keys: timedelta,
        keep_event_days: int,
    ) -> None:
        self._store = store
        self._observer = observer
        self._retention = retention
        self._audit_retention = audit_retention
        # A key of the last moment of a day is kept for whole days after it.
        self._keep_key_days = ceil(keep_keys / timedelta(days=1))
        self._keep_event_days = keep_event_days

    async def run_once(self) -> list[str]:
        """Run one pass; returns the days it dropped, as YYYYMMDD."""
        results: dict[str, str] = {}
        try:
            await self._store.ensure_days()
            await self._store.forget_processes()
            await self._store.prune_audit(self._audit_retention)
            await self._store.prune_collapse_keys(self._retention)
            await self._store.prune_recipient_counts()
            await self._store.prune_fallbacks(self._retention)
            await self._store.prune_suppressions(self._retention)
            await self._store.prune_keys()
            await self._prune_inbox()
            await self._drop_keys()
            await self._drop_events()
            today = datetime.fromtimestamp(await self._store.database_now(), UTC).date()
            days = await self._store.days()
            for day in days:
                if _date(day) < today - self._retention:
                    results[day] = await self._drop(day)
            self._observer.partitions_kept(sum(result == "kept" for result in results.values()))
            kept = [day for day in days if results.get(day) != "dropped"]
            if kept:
                await self._remove_blobs(_date(kept[0]))
                await self._store.prune_tenants(_date(kept[0]))
                await self._store.prune_operations(_date(kept[0]))
        except StoreError as error:
            log.warning("prune_failed", reason=str(error))
        return [day for day, result in results.items() if result == "dropped"]

    async def _prune_inbox(self) -> None:
        for _ in range(MAX_INBOX_STEPS):
            if not await self._store.prune_inbox():
                break

    async def _drop_keys(self) -> None:
        try:
            await self._store.drop_keys(self._keep_key_days)
        except StoreError as error:  # as in `_drop`
            log.info("key_drop_postponed", reason=str(error))

    async def _drop_events(self) -> None:
        try:
            await self._store.drop_events(self._keep_event_days)
        except StoreError as error:  # as in `_drop`
            log.info("event_drop_postponed", reason=str(error))

    async def _remove_blobs(self, oldest: date) -> None:
        for _ in range(MAX_BLOB_STEPS):
            if not await self._store.prune_blobs(oldest):
                break

    async def _drop(self, day: str) -> str:
        try:
            result = await self._store.drop_day(_date(day))
        except StoreError as error:  # no lock within 200 ms: the next pass tries again
            log.info("partition_drop_postponed", day=day, reason=str(error))
            return "locked"
        if result == "kept":
            log.warning("partition_kept", day=day, reason="some of its notifications are not final")
        return result


def _date(day: str) -> date:
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).date()
