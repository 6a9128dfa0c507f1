"""Gives rows back without spending a try: what was claimed or held and may not be sent here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from notifier.delivery.group_commit import GroupCommit
from notifier.domain.errors import StoreRejected
from notifier.domain.notification import Status
from notifier.ports.store import ClaimRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.delivery.in_flight import InFlightClaims
    from notifier.ports.attempts import ClaimedRow, HeldPointer
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptStore

log = structlog.get_logger(__name__)


class Releases:
    """Writes returns in batches and finds this worker's own orphans."""

    def __init__(
        self, *, store: AttemptStore, observer: AttemptObserver, in_flight: InFlightClaims
    ) -> None:
        self._store = store
        self._observer = observer
        self._in_flight = in_flight
        self._returns = GroupCommit("give_back", self._write)

    async def run(self) -> None:
        """Write returns until closed and empty."""
        await self._returns.run()

    def close(self) -> None:
        """Let `run` end once everything is written; nothing may be given back after."""
        self._returns.close()

    async def give_back(
        self, rows: Sequence[ClaimedRow], pointers: Sequence[HeldPointer] = ()
    ) -> None:
        """See ports.attempts.AttemptRunner.give_back."""
        claims = [claim_request(row.held) for row in rows]
        try:
            await self.give_back_requests([*claims, *(buffered_request(held) for held in pointers)])
        finally:  # cancelled, it leaves the rows to the release of orphans
            for request in claims:
                self._in_flight.remove(request)
        for held in (*(row.held for row in rows), *pointers):
            held.settle()

    async def give_back_requests(self, requests: Sequence[ClaimRequest]) -> None:
        """Make rows due again; returns when Postgres has confirmed it.

        A row that Postgres rejects is left as it is and logged.
        """
        futures = [self._returns.put(request) for request in requests]
        try:
            for request, future in zip(requests, futures, strict=True):
                try:
                    await future
                except StoreRejected as error:
                    log.warning("give_back_rejected", id=str(request.id), reason=str(error))
        finally:
            for future in futures:
                future.cancel()

    async def release_orphans(self) -> int:
        """Give back rows that this worker claimed in Postgres but does not hold; returns how many.

        The claims in flight are read before and after the rows. A claim is in flight from before
        its request until after its record, so a row that is in neither reading is an orphan.
        """
        before = self._in_flight.ids()
        rows = await self._store.claimed_by_me()
        orphans = [row for row in rows if row.id not in before and row.id not in self._in_flight]
        if orphans:
            log.warning("orphans_released", count=len(orphans))
            await self.give_back_requests(orphans)
        return len(orphans)

    async def _write(self, requests: Sequence[ClaimRequest]) -> Sequence[None]:
        for row in await self._store.give_back(requests):
            if row.status is Status.EXPIRED:
                self._observer.finished(row.queue, row.status, row.age_s)
            else:
                self._observer.released(row.queue, 1)
        return [None] * len(requests)


def claim_request(held: HeldPointer) -> ClaimRequest:
    """The request that claims a pointer's row, and that gives the claimed row back."""
    return ClaimRequest(id=held.pointer.id, claim=held.pointer.claim)


def buffered_request(held: HeldPointer) -> ClaimRequest:
    """The request that gives back a row that was not claimed."""
    return ClaimRequest(id=held.pointer.id, claim=held.pointer.claim, is_buffered=True)
