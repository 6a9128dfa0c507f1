"""Parks claimed rows that may not be sent now: see domain/holds.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from notifier.delivery.group_commit import GroupCommit
from notifier.domain.errors import StoreRejected
from notifier.domain.holds import Parking
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

    async def park_held(self, rows: Sequence[ClaimedRow], holds: Holds) -> Sequence[ClaimedRow]:
        """Park the rows that are held; returns the others once that is confirmed.

        The parked ones are settled. Cancelled, it leaves what is not confirmed in flight.
        """
        now = datetime.now(UTC)
        free: list[ClaimedRow] = []
        held: list[tuple[ClaimedRow, Parking]] = []
        for row in rows:
            parking = holds.parking(row.claimed, now, self._random.random())
            if parking is None:
                free.append(row)
            else:
                held.append((row, parking))
        if held:
            await self._park(held)
        return free

    async def park(self, row: ClaimedRow, after_s: float) -> None:
        """Park a row that no hold concerns, until its provider may be called for it.

        It is settled once that is confirmed. Cancelled, it leaves the row in flight.
        """
        await self._park([(row, Parking(after_s, None))])

    async def _park(self, held: Sequence[tuple[ClaimedRow, Parking]]) -> None:
        writes = [(row, self._batches.put(_request(row, parking))) for row, parking in held]
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


def _request(row: ClaimedRow, parking: Parking) -> ParkRequest:
    claimed = row.claimed
    return ParkRequest(
        id=claimed.id, claim=claimed.claim, after_s=parking.after_s, scope=parking.scope
    )
