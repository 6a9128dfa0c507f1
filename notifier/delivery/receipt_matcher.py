"""Gives receipts to their notifications, as soon as both are stored.

A receipt may come before the record of its own send, and after its notification was dropped. So one
without a notification is tried again for days, and only then given up.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError, StoreRejected
from notifier.domain.receipts import ReceiptResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.ports.observer import ReceiptObserver
    from notifier.ports.receipts import MatchedReceipt, ReceiptMatching

MATCH_INTERVAL_S: Final = 1.0
MAX_MATCHED: Final = 500
"""How many receipts one transaction takes."""
MAX_STEPS: Final = 100
"""How many transactions a pass has at most: a stop must not wait for a large backlog."""

log = structlog.get_logger(__name__)


class ReceiptMatcher:
    """Every process with an API runs one; they share the receipts."""

    def __init__(self, *, store: ReceiptMatching, observer: ReceiptObserver) -> None:
        self._store = store
        self._observer = observer

    async def run_once(self) -> int:
        """Match the receipts that are due; returns how many are done.

        A failure of the store is logged: the next pass goes on.
        """
        done, limit = 0, MAX_MATCHED
        try:
            for _ in range(MAX_STEPS):
                try:
                    step = await self._store.match(limit)
                except StoreRejected as error:
                    if limit == 1:
                        log.warning("receipt_rejected", reason=str(error))
                        await self._store.put_off()
                    limit = 1  # all but the one that Postgres rejects
                    continue
                self._report(step.ended)
                done += len(step.ended)
                if step.suppressions:
                    log.info("recipients_suppressed_by_receipts", count=len(step.suppressions))
                if step.found < limit:
                    break
        except StoreError as error:
            log.warning("receipts_failed", reason=str(error))
        return done

    def _report(self, ended: Sequence[MatchedReceipt]) -> None:
        for receipt in ended:
            self._observer.receipt_ended(receipt.provider, receipt.result)
        given_up = Counter(
            receipt.provider for receipt in ended if receipt.result is ReceiptResult.UNMATCHED
        )
        for provider, count in sorted(given_up.items()):
            log.warning("receipts_given_up", provider=provider, count=count)
