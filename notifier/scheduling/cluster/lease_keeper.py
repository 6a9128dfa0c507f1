"""The loop that renews, acquires and releases the leases of one process.

Every process runs one. A process that may not hold leases (an API process) only reads them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import structlog

from notifier.domain.errors import StoreError
from notifier.domain.liveness import LEASE_INTERVAL_S, LEASE_USABLE_S
from notifier.lifecycle import Clock, uptime_s, wait
from notifier.ports.leases import HeldLease
from notifier.scheduling.cluster.lease import LeasePolicy, LeaseWatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notifier.domain.notification import QueueKey, WorkerId
    from notifier.ports.heartbeat import LiveWorkers
    from notifier.ports.leases import Lease, LeaseStore, Progress
    from notifier.ports.observer import LeaseObserver

RELEASE_TIMEOUT_S: Final = 2.0

log = structlog.get_logger(__name__)


class BrokerStatus(Protocol):
    """Whether this process can publish; implemented by app.broker_check.BrokerCheck."""

    @property
    def is_available(self) -> bool:
        """Whether the broker answered the last check."""
        ...


@dataclass(slots=True)
class _Held:
    """`is_leaving`: the lease is renewed, but no longer used, and released in the next round."""

    lease: HeldLease
    usable_since: float
    is_leaving: bool = False

    def is_usable(self, now: float) -> bool:
        return not self.is_leaving and now - self.lease.renewed_at <= LEASE_USABLE_S


class _Usable(NamedTuple):
    """The usable leases, all of them until the first of them, renewed at `renewed_at`, is too old.

    Infinity without leases: one that is too old becomes usable only by a renewal.
    """

    leases: Mapping[QueueKey, HeldLease]
    renewed_at: float


class LeaseKeeper:
    """Keeps the leases of this process. Implements ports.leases.HeldLeases and BacklogView.

    The order of a stop: 1. `retire`, when the process begins to stop: from then on no lease is
    acquired or handed over. 2. The relay makes its last pass, waits for its confirms and writes
    the progress of each lease; the keeper renews meanwhile, so `run` must still run. 3. The stop
    event of `run` is set: the keeper writes the progress and releases all leases.

    In the usual case `run` is a background task around the relay:
    `async with background_task(keeper, "leases"): await relay.run(stop)`.

    A lease that is handed over disappears from `held` one round (0.5 s) before it is released. What
    the relay writes into its HeldLease until then reaches the next holder.
    """

    def __init__(
        self,
        *,
        store: LeaseStore,
        worker: WorkerId,
        workers: LiveWorkers,
        broker: BrokerStatus,
        observer: LeaseObserver,
        may_hold: bool,
        clock: Clock = uptime_s,
    ) -> None:
        self._store = store
        self._workers = workers
        self._broker = broker
        self._observer = observer
        self._may_acquire = may_hold
        self._clock = clock
        self._watch = LeaseWatch()
        self._policy = LeasePolicy(worker)
        self._held: dict[QueueKey, _Held] = {}
        self._usable: _Usable | None = None
        """What `held` returns, None after a change of `_held`."""
        self._failure = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Run a round every 0.5 s until `stop`, then release all leases."""
        while not stop.is_set():
            began = self._clock()
            await self.run_once()
            await wait(stop, max(0.0, LEASE_INTERVAL_S - (self._clock() - began)))
        await self._release_all()

    async def run_once(self) -> None:
        """Renew, read and acquire leases once. A failure is logged and not raised."""
        self._policy.observe(
            self._workers.live_workers(), self._clock(), is_able=self._broker.is_available
        )
        try:
            await self._give_away()
            await self._renew()
            await self._acquire()
        except StoreError as error:
            self._watch.read_failed()
            self._note(str(error))
        else:
            self._note("")
        self._observer.leases_held(len(self.held()))

    def retire(self) -> None:
        """Acquire no lease and hand none over from now on."""
        self._may_acquire = False

    def held(self) -> Mapping[QueueKey, HeldLease]:
        """The leases under which this process may publish now."""
        now, usable = self._clock(), self._usable
        if usable is None or now - usable.renewed_at > LEASE_USABLE_S:
            leases = {
                queue: held.lease for queue, held in self._held.items() if held.is_usable(now)
            }
            renewed_at = min((lease.renewed_at for lease in leases.values()), default=inf)
            usable = self._usable = _Usable(leases, renewed_at)
        return usable.leases

    def is_backlogged(self, queue: QueueKey) -> bool:
        """Whether due rows of the queue wait, as its holder last reported."""
        if held := self._held.get(queue):
            return held.lease.progress.is_backlogged
        lease = self._watch.lease(queue)
        return lease is not None and lease.is_backlogged

    async def _give_away(self) -> None:
        """Release what is leaving since the last round, and what this process cannot publish."""
        now = self._clock()
        await self._release([held.lease for held in self._held.values() if held.is_leaving])
        given_up = list[HeldLease]()
        for queue, held in self._held.items():
            reason = self._policy.why_to_give_up(held.lease, held.usable_since)
            if held.is_usable(now) and reason:
                log.warning("lease_given_up", queue=str(queue), term=held.lease.term, reason=reason)
                self._policy.note_given_up(queue)
                given_up.append(held.lease)
        await self._release(given_up)
        to_hand_over = None
        if self._may_acquire:
            beating = self._workers.beating_workers()
            to_hand_over = self._policy.choose_to_hand_over(self.held(), beating)
        if to_hand_over:
            self._held[to_hand_over].is_leaving = True
            self._usable = None

    async def _renew(self) -> None:
        """Renew the leases of this process, and read all others."""
        requested_at = self._clock()
        read = await self._store.renew([held.lease for held in self._held.values()])
        answered_at, self._usable = self._clock(), None
        self._watch.read_succeeded(read.leases, requested_at=requested_at, answered_at=answered_at)
        turns = {lease.queue: lease.turns for lease in read.leases}
        for queue, held in list(self._held.items()):
            if queue not in read.renewed:
                log.warning("lease_lost", queue=str(queue), term=held.lease.term)
                del self._held[queue]
                continue
            if requested_at - held.lease.renewed_at > LEASE_USABLE_S:
                held.usable_since = answered_at
            held.lease.renewed_at = requested_at
            held.lease.turns = turns[queue]

    async def _acquire(self) -> None:
        if not self._may_acquire:
            return
        wanted = [
            lease
            for lease in self._watch.leases()
            if lease.queue not in self._held
            and self._policy.may_acquire(lease, self._watch.free_s(lease.queue))
        ]
        if not wanted:
            return
        requested_at = self._clock()
        acquired = await self._store.acquire(wanted)
        for lease in wanted:
            if lease.queue in acquired:
                self._hold(lease, acquired[lease.queue], requested_at)

    def _hold(self, seen: Lease, progress: Progress, requested_at: float) -> None:
        now = self._clock()
        lease = HeldLease(
            queue=seen.queue,
            term=seen.term + 1,
            progress=progress,
            renewed_at=requested_at,
            passed_at=now,
            turns=seen.turns,
        )
        self._held[seen.queue] = _Held(lease, usable_since=now)
        self._usable = None
        log.info("lease_acquired", queue=str(seen.queue), term=lease.term, taken_from=seen.holder)

    async def _release(self, leases: Sequence[HeldLease]) -> None:
        """Stop using these leases at once, then release them."""
        if not leases:
            return
        for lease in leases:
            del self._held[lease.queue]
        self._usable = None
        await self._store.release(leases)
        for lease in leases:
            log.info("lease_released", queue=str(lease.queue), term=lease.term)

    async def _release_all(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._release([held.lease for held in self._held.values()])
        except (StoreError, TimeoutError) as error:
            log.warning("leases_not_released", reason=str(error) or type(error).__name__)
        self._observer.leases_held(0)

    def _note(self, failure: str) -> None:
        if failure and not self._failure:
            log.warning("lease_renewal_failed", reason=failure)
        self._failure = failure
