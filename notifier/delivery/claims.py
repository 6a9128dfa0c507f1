"""Claims rows in batches, and settles the pointers whose rows are not claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.delivery.batch_write import write_batch
from notifier.delivery.release import claim_request
from notifier.domain.errors import StoreRejected, StoreUnavailable
from notifier.domain.notification import Claimed, Status
from notifier.lifecycle import uptime_s
from notifier.ports.attempts import ClaimedRow
from notifier.ports.store import NotClaimed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.delivery.delivery_rules import DeliveryRules
    from notifier.delivery.in_flight import InFlightClaims
    from notifier.delivery.release import Releases
    from notifier.ports.attempts import HeldPointer
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptStore, ClaimReply, ClaimRequest

MOVED_ON: Final = NotClaimed()

log = structlog.get_logger(__name__)


class Claims:
    """The claims of one worker. A row is in flight from before its request."""

    def __init__(
        self,
        *,
        store: AttemptStore,
        observer: AttemptObserver,
        in_flight: InFlightClaims,
        releases: Releases,
        rules: DeliveryRules,
    ) -> None:
        self._store = store
        self._observer = observer
        self._in_flight = in_flight
        self._releases = releases
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
        try:
            replies = await write_batch("claim", list(wanted), store_claim)
            return await self._sort(wanted, replies, requested_at)
        except BaseException:
            # The rows may be claimed, and no caller has them: the release of orphans returns them.
            for request in wanted:
                self._in_flight.remove(request)
            raise

    async def _sort(
        self,
        wanted: dict[ClaimRequest, HeldPointer],
        replies: Sequence[ClaimReply | StoreRejected | StoreUnavailable],
        requested_at: float,
    ) -> Sequence[ClaimedRow]:
        """Return the rows that were claimed. All other pointers are settled and leave `wanted`."""
        rows: list[ClaimedRow] = []
        unknown: list[ClaimRequest] = []
        for request, reply in zip(list(wanted), replies, strict=True):
            if isinstance(reply, Claimed):
                rows.append(ClaimedRow(reply, requested_at, wanted[request]))
            elif isinstance(reply, NotClaimed):
                self._drop(wanted, request, reply)
            elif isinstance(reply, StoreRejected):
                self._drop(wanted, request, await self._fail(wanted[request], request, reply))
            else:
                unknown.append(request)
        if unknown:
            # The claim is never repeated: it would not claim again what it has claimed already,
            # and nobody would send that. Settled only once Postgres has confirmed the return.
            await self._releases.give_back_requests(unknown)
            for request in unknown:
                self._drop(wanted, request)
        return rows

    def _without_copies(self, pointers: Sequence[HeldPointer]) -> dict[ClaimRequest, HeldPointer]:
        """The requests to make. A copy of a claim in flight is settled: the other one is sent."""
        wanted: dict[ClaimRequest, HeldPointer] = {}
        for held in pointers:
            request = claim_request(held)
            if self._in_flight.has(request):
                held.settle()
            else:
                self._in_flight.add(request)
                wanted[request] = held
        return wanted

    async def _fail(
        self, held: HeldPointer, request: ClaimRequest, error: StoreRejected
    ) -> NotClaimed:
        """End a row that Postgres refuses to claim: it would be refused in every worker."""
        log.error("claim_rejected", id=str(request.id), reason=str(error))
        provider = self._rules.provider_name(held.pointer.queue)
        try:
            return await self._store.fail_unclaimable(request, provider=provider)
        except (StoreRejected, StoreUnavailable) as again:
            # The row stays published and unclaimed: the rescuer makes it due again.
            log.warning("unclaimable_row_kept", id=str(request.id), reason=str(again))
            return MOVED_ON

    def _drop(
        self,
        wanted: dict[ClaimRequest, HeldPointer],
        request: ClaimRequest,
        reply: NotClaimed = MOVED_ON,
    ) -> None:
        """Settle a pointer that is not claimed, and report its row if the claim ended it."""
        held = wanted.pop(request)
        if reply.status is not None:
            queue = held.pointer.queue
            reason = "poison" if reply.status is Status.FAILED else ""
            self._observer.finished(queue, reply.status, reply.age_s, reason)
            log.info(
                "notification_finished_unsent",
                id=str(held.pointer.id),
                queue=str(queue),
                status=reply.status,
            )
        self._in_flight.remove(request)
        held.settle()
