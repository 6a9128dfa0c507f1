"""Claims rows in batches, settles the pointers whose rows are not claimed or are parked."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from notifier.delivery.batch_write import write_batch
from notifier.domain.errors import StoreRejected, StoreUnavailable
from notifier.domain.notification import Claimed, QueueKey
from notifier.lifecycle import rest, uptime_s
from notifier.ports.attempts import ClaimedRow
from notifier.ports.store import ClaimRequest, NotClaimed, Parked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from notifier.delivery.delivery_rules import DeliveryRules
    from notifier.delivery.parking import ParkingLot
    from notifier.delivery.release import Releases
    from notifier.ports.attempts import HeldPointer
    from notifier.ports.controls import HoldSource
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptStore, ClaimReply

MOVED_ON: Final = NotClaimed()
REST: Final = 2.0
MAX_REST_S: Final = 0.05
"""How long claims that only park rest after each, compared with the claim, and at most."""

log = structlog.get_logger(__name__)


class Claims:
    """Claims rows for one worker. A claim is in flight from before its request."""

    def __init__(
        self,
        *,
        store: AttemptStore,
        observer: AttemptObserver,
        in_flight: set[ClaimRequest],
        releases: Releases,
        parking: ParkingLot,
        holds: HoldSource,
        rules: DeliveryRules,
        random: Random,
    ) -> None:
        self._store = store
        self._observer = observer
        self._in_flight = in_flight
        self._releases = releases
        self._parking = parking
        self._random = random
        self._holds = holds
        self._rules = rules

    async def claim(
        self, pointers: Sequence[HeldPointer], *, is_urgent: bool
    ) -> Sequence[ClaimedRow]:
        """See ports.attempts.AttemptRunner.claim."""
        requested_at = uptime_s()
        wanted = self._without_copies(pointers)
        if not wanted:
            return []
        store_claim = self._store.claim_urgent if is_urgent else self._store.claim
        holds = self._holds.holds()
        try:
            if not holds:
                replies = await write_batch("claim", list(wanted), store_claim)
                return await self._sort(wanted, replies, requested_at)
            pauses = holds.pause_parkings(datetime.now(UTC), self._random.random())
            replies = await write_batch("claim", list(wanted), partial(store_claim, pauses=pauses))
            is_backlog_of_pause = self._settle_parked(wanted, replies) == len(wanted)
            rows = await self._sort(wanted, replies, requested_at)
            if is_backlog_of_pause and not is_urgent:
                # No provider slows these claims down: urgent ones get Postgres in between.
                await rest(uptime_s() - requested_at, times=REST, max_s=MAX_REST_S)
            return await self._parking.park_quiet(rows, holds)
        except BaseException:
            # The rows may be claimed, and no caller has them.
            self._releases.add_orphans(self._in_flight.intersection(wanted))
            raise

    async def _sort(
        self,
        wanted: Mapping[ClaimRequest, HeldPointer],
        replies: Sequence[ClaimReply | StoreRejected | StoreUnavailable],
        requested_at: float,
    ) -> Sequence[ClaimedRow]:
        """Return the rows that were claimed. All other pointers are settled, parked ones before."""
        rows: list[ClaimedRow] = []
        unknown: list[ClaimRequest] = []
        for (request, held), reply in zip(wanted.items(), replies, strict=True):
            if isinstance(reply, Claimed):
                rows.append(ClaimedRow(reply, request, requested_at, held))
            elif isinstance(reply, NotClaimed):
                self._drop(request, held, reply)
            elif isinstance(reply, StoreRejected):
                self._drop(request, held, await self._fail(request, held, reply))
            elif isinstance(reply, StoreUnavailable):
                unknown.append(request)
        if unknown:
            # The claim is never repeated: it would not claim again what it has claimed already,
            # and no consumer would send that. Settled only once Postgres has confirmed the return.
            await self._releases.give_back_requests(unknown)
            for request in unknown:
                wanted[request].settle()
        return rows

    def _settle_parked(
        self,
        wanted: Mapping[ClaimRequest, HeldPointer],
        replies: Sequence[ClaimReply | StoreRejected | StoreUnavailable],
    ) -> int:
        """Settle the pointers of the rows that a pause holds; returns how many these are."""
        parked = Counter[QueueKey]()
        for (request, held), reply in zip(wanted.items(), replies, strict=True):
            if isinstance(reply, Parked):
                parked[held.pointer.queue] += 1
                self._in_flight.discard(request)
                held.settle()
        for queue, count in parked.items():
            self._observer.parked(queue, count)
        return parked.total()

    def _without_copies(self, pointers: Sequence[HeldPointer]) -> dict[ClaimRequest, HeldPointer]:
        """The requests to make. A copy of a claim in flight is settled: the other one is sent."""
        wanted: dict[ClaimRequest, HeldPointer] = {}
        for held in pointers:
            request = ClaimRequest(id=held.pointer.id, claim=held.pointer.claim)
            if request in self._in_flight:
                held.settle()
            else:
                self._in_flight.add(request)
                wanted[request] = held
        return wanted

    async def _fail(
        self, request: ClaimRequest, held: HeldPointer, error: StoreRejected
    ) -> NotClaimed:
        """End a row that Postgres refuses to claim: it would be refused in every worker."""
        log.error("claim_rejected", id=str(request.id), reason=str(error))
        provider = self._rules.provider_name(held.pointer.queue)
        try:
            return await self._store.fail_unclaimable(request, provider=provider)
        except (StoreRejected, StoreUnavailable) as again:
            # The row stays published and unclaimed: the rescuer publishes it again.
            log.warning("unclaimable_row_kept", id=str(request.id), reason=str(again))
            return MOVED_ON

    def _drop(self, request: ClaimRequest, held: HeldPointer, reply: NotClaimed) -> None:
        """Settle a pointer that is not claimed, and report its row if the claim ended it."""
        if reply.status is not None:
            queue = held.pointer.queue
            self._observer.finished(queue, reply.status, reply.age_s, "poison")
            log.info(
                "notification_finished_unsent",
                id=str(held.pointer.id),
                queue=str(queue),
                status=reply.status,
            )
        self._in_flight.discard(request)
        held.settle()
