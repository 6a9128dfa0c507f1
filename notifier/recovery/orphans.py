"""Orphan recovery: settles the notifications that a dead worker was sending.

Whether they were sent is unknown. So the attempt's outcome is Ambiguous, and the channel's rule for
ambiguous sends decides what follows. A death spends no try: the call may not have begun. The third
death of a worker during one notification makes it poison: it fails.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, assert_never

import structlog

from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Status
from notifier.domain.retry import Fail, Retry
from notifier.ports.observer import RescueReason
from notifier.ports.store import OrphanDecision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.delivery.delivery_rules import DeliveryRules
    from notifier.ports.heartbeat import DeadProcesses, Liveness
    from notifier.ports.observer import RecoveryObserver
    from notifier.ports.store import Orphan, RecoveryStore, SettledOrphan

log = structlog.get_logger(__name__)


class OrphanRecovery:
    """Decides what follows for rows in status `sending` whose worker is dead.

    A worker is dead if `processes` lists it, or if it has no heartbeat row, which Postgres finds.
    """

    def __init__(
        self,
        *,
        store: RecoveryStore,
        observer: RecoveryObserver,
        processes: DeadProcesses,
        liveness: Liveness,
        rules: DeliveryRules,
    ) -> None:
        self._store = store
        self._observer = observer
        self._processes = processes
        self._liveness = liveness
        self._rules = rules

    async def run_once(self) -> int:
        """Settle at most 500 orphans; returns how many.

        Does nothing while this process may count as dead itself, or Postgres is unreachable.
        """
        if not self._liveness.is_alive():
            return 0
        dead = self._processes.dead()
        try:
            orphans = await self._store.claimed_by_dead(dead)
            if not orphans:
                return 0
            settled = await self._store.settle_orphans(
                [self._decision(orphan) for orphan in orphans], dead
            )
        except StoreUnavailable as error:
            log.debug("orphan_recovery_failed", reason=str(error))
            return 0
        self._report(settled)
        return len(settled)

    def _decision(self, orphan: Orphan) -> OrphanDecision:
        status, reason = self._next_status(orphan)
        provider = self._rules.provider_name(orphan.queue)
        return OrphanDecision(orphan=orphan, provider=provider, status=status, reason=reason)

    def _next_status(self, orphan: Orphan) -> tuple[Status, str]:
        """Return the row's next status and the failure's reason."""
        decision = self._rules.decide_after_death(orphan.queue, orphan.deaths + 1)
        match decision:
            case Fail(reason=reason):
                return Status.FAILED, reason
            case Retry():
                return Status.QUEUED, ""
            case _:
                assert_never(decision)

    def _report(self, settled: Sequence[SettledOrphan]) -> None:
        workers = Counter(decision.orphan.worker for decision, _, _ in settled)
        for worker, count in workers.items():
            log.warning("worker_died", worker=str(worker), in_flight=count)
        for decision, status, age_s in settled:
            queue = decision.orphan.queue
            self._observer.rescued(queue, 1, RescueReason.PROCESS_DIED)
            if status is Status.QUEUED:
                self._observer.retried(queue, "ambiguous")
            else:
                self._observer.finished(queue, status, age_s, decision.reason)
