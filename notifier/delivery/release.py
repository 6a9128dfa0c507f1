"""Gives rows back without spending a try: what was claimed or held and may not be sent here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from notifier.delivery.group_commit import GroupCommit
from notifier.domain.errors import StoreRejected
from notifier.ports.store import ClaimRequest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence

    from notifier.ports.attempts import ClaimedRow, HeldPointer
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptStore

log = structlog.get_logger(__name__)


class Releases:
    """Writes returns in batches, and those of this worker's own orphans until they succeed.

    An orphan is a claim that nothing here will begin: its rows may be claimed. It stays in flight
    until Postgres has confirmed its return, so a copy of its pointer is not claimed meanwhile.
    """

    def __init__(
        self, *, store: AttemptStore, observer: AttemptObserver, in_flight: set[ClaimRequest]
    ) -> None:
        self._store = store
        self._observer = observer
        self._in_flight = in_flight
        self._orphans: set[ClaimRequest] = set()
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
        claims = [row.request for row in rows]
        await self.give_back_requests([*claims, *(_buffered_request(held) for held in pointers)])
        for held in (*(row.held for row in rows), *pointers):
            held.settle()

    async def give_back_requests(self, requests: Iterable[ClaimRequest]) -> None:
        """Give rows back; returns when Postgres has confirmed it.

        A claim that Postgres refuses to take back becomes an orphan, and so do those that are not
        confirmed when this is cancelled.
        """
        returns = {request: self._returns.put(request) for request in requests}
        try:
            for request, future in returns.items():
                try:
                    await future
                except StoreRejected as error:
                    log.warning("give_back_rejected", id=str(request.id), reason=str(error))
        finally:
            for request, future in returns.items():
                if _is_confirmed(future):
                    self._in_flight.discard(request)
                    self._orphans.discard(request)
                elif not request.is_buffered:
                    self._orphans.add(request)
                future.cancel()

    def add_orphans(self, requests: Iterable[ClaimRequest]) -> None:
        """Leave these claims to `release_orphans`."""
        self._orphans.update(requests)

    async def release_orphans(self) -> int:
        """Give back the orphans; returns how many Postgres has confirmed.

        Repeat it: what is not confirmed stays an orphan, also when this is cancelled.
        """
        orphans = frozenset(self._orphans)
        if not orphans:
            return 0
        await self.give_back_requests(orphans)
        count = len(orphans - self._orphans)
        if count:
            log.warning("orphans_released", count=count)
        return count

    async def _write(self, requests: Sequence[ClaimRequest]) -> Sequence[None]:
        for queue in await self._store.give_back(requests):
            self._observer.released(queue, 1)
        return [None] * len(requests)


def _buffered_request(held: HeldPointer) -> ClaimRequest:
    """The request that gives back a row that was not claimed."""
    return ClaimRequest(id=held.pointer.id, claim=held.pointer.claim, is_buffered=True)


def _is_confirmed(future: asyncio.Future[None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
