"""The suppressor: ends what waits for recipients who were suppressed after it was accepted.

It looks for the notifications of a suppression at once, after 10 s and after 60 s: a submit that
was being stored at the same time may not have seen it. What was being sent is looked for until it
has ended or waits again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog

from notifier.delivery.batch_write import write_batch
from notifier.domain.errors import StoreError, StoreRejected
from notifier.domain.notification import Status
from notifier.ports.store import ExpiredRow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from notifier.ports.observer import FinishObserver
    from notifier.ports.suppressions import MatchingRow, SuppressionPass, SuppressionPasses

SUPPRESS_INTERVAL_S: Final = 1.0
MAX_ENDED: Final = 500
"""How many notifications one statement ends."""

log = structlog.get_logger(__name__)


class Suppressor:
    """Every process runs one; concurrent passes do no harm."""

    def __init__(self, *, store: SuppressionPasses, observer: FinishObserver) -> None:
        self._store = store
        self._observer = observer

    async def run_once(self) -> int:
        """Make the passes that are due; returns how many notifications ended."""
        ended = 0
        try:
            while passes := await self._store.due():
                ended += await self._pass(passes)
        except StoreError as error:
            log.warning("suppression_failed", reason=str(error))
        return ended

    async def suppress(self, ids: Collection[UUID]) -> None:
        """Make the first passes of new suppressions. Raises StoreError."""
        if passes := await self._store.due(ids):
            await self._pass(passes)

    async def _pass(self, passes: Sequence[SuppressionPass]) -> int:
        valid = [each for each in passes if not each.is_expired]
        ended, left = 0, set[UUID]()
        if valid:
            ended += await self._end(await self._store.find(valid), left)
            after: UUID | None = None
            while True:
                rows, after = await self._store.scan(valid, after)
                ended += await self._end(rows, left)
                if after is None:
                    break
        await self._store.passed(passes, left)
        if ended:
            log.info("notifications_suppressed", count=ended)
        return ended

    async def _end(self, rows: Sequence[MatchingRow], left: set[UUID]) -> int:
        """End rows; adds to `left` the suppressions of those that could not be ended."""
        starts = range(0, len(rows), MAX_ENDED)
        return sum([await self._end_some(rows[n : n + MAX_ENDED], left) for n in starts])

    async def _end_some(self, rows: Sequence[MatchingRow], left: set[UUID]) -> int:
        replies = await write_batch("suppress", rows, self._write)
        ended = 0
        for row, reply in zip(rows, replies, strict=True):
            if isinstance(reply, ExpiredRow):
                ended += 1
                if reply.queue is not None:
                    self._observer.finished(reply.queue, Status.SUPPRESSED, reply.age_s, row.reason)
            elif reply is None:
                left.add(row.suppression)
            elif isinstance(reply, StoreRejected):
                log.warning("suppression_rejected", id=str(row.id), reason=str(reply))
            else:
                raise reply
        return ended

    async def _write(self, rows: Sequence[MatchingRow]) -> Sequence[ExpiredRow | None]:
        ended = {row.id: row for row in await self._store.end(rows)}
        return [ended.get(row.id) for row in rows]
