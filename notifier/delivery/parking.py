"""Parks claimed rows that quiet hours put off, and those whose provider may not be called yet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from notifier.delivery.group_commit import GroupCommit
from notifier.domain.errors import StoreRejected
from notifier.ports.store import ParkRequest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from random import Random

    from notifier.delivery.release import Releases
    from notifier.domain.holds import Holds
    from notifier.ports.attempts import ClaimedRow
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptStore, ClaimRequest

log = structlog.get_logger(__name__)


class ParkingLot:
    """Writes in batches which rows are parked. What is not confirmed becomes an orphan."""

    def __init__(
        self,
        *,
        store: AttemptStore,
        observer: AttemptObserver,
        in_flight: set[ClaimRequest],
        releases: Releases,
        random: Random,
    ) -> None:
        self._store = store
        self._observer = observer
        self._in_flight = in_flight
        self._releases = releases
        self._random = random
        self._batches = GroupCommit("park", self._write)

    async def run(self) -> None:
        """Write batches until closed and empty."""
        await self._batches.run()

    def close(self) -> None:
        """Let `run` end once everything is written; nothing may be parked after."""
        self._batches.close()

    async def park_quiet(self, rows: Sequence[ClaimedRow], holds: Holds) -> Sequence[ClaimedRow]:
        """Park the rows that quiet hours put off; returns the others once that is confirmed.

        The parked ones are settled. Cancelled, it leaves what is not confirmed in flight.
        """
        now = datetime.now(UTC)
        free: list[ClaimedRow] = []
        quiet: list[tuple[ClaimedRow, float]] = []
        for row in rows:
            after_s = holds.quiet_s(row.claimed, now, self._random.random())
            if after_s is None:
                free.append(row)
            else:
                quiet.append((row, after_s))
        if quiet:
            await self._park(quiet)
        return free

    async def park(self, row: ClaimedRow, after_s: float) -> None:
        """Park a row that no hold concerns, until its provider may be called for it.

        It is settled once that is confirmed. Cancelled, it leaves the row in flight.
        """
        await self._park([(row, after_s)])

    async def _park(self, parked: Sequence[tuple[ClaimedRow, float]]) -> None:
        writes = [(row, self._batches.put(_request(row, after_s))) for row, after_s in parked]
        try:
            for row, future in writes:
                await self._settle(row, future)
        finally:
            for _, future in writes:
                future.cancel()

    async def _settle(self, row: ClaimedRow, future: asyncio.Future[None]) -> None:
        try:
            await future
            self._in_flight.discard(row.request)
        except StoreRejected as error:
            # It is claimed still. Given back, it comes here again.
            log.warning("park_rejected", id=str(row.claimed.id), reason=str(error))
            self._releases.add_orphans([row.request])
        row.held.settle()

    async def _write(self, requests: Sequence[ParkRequest]) -> Sequence[None]:
        for queue in await self._store.park(requests):
            self._observer.parked(queue, 1)
        return [None] * len(requests)


def _request(row: ClaimedRow, after_s: float) -> ParkRequest:
    return ParkRequest(id=row.claimed.id, claim=row.claimed.claim, after_s=after_s)
