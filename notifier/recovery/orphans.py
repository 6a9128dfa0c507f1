"""The rescuer's other half: takes up what a dead worker was sending.

Nobody knows whether it was sent, so it is Ambiguous, decided as always. What kills its worker for
the third time is poison.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, assert_never

import structlog

from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Status
from notifier.domain.outcome import Ambiguous
from notifier.domain.retry import Fail, Retry, Settle
from notifier.ports.observer import RescueReason
from notifier.ports.store import OrphanDecision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notifier.delivery.delivery_rules import DeliveryRules
    from notifier.domain.notification import WorkerId
    from notifier.ports.heartbeat import Liveness
    from notifier.ports.observer import RecoveryObserver
    from notifier.ports.store import Orphan, RecoveryStore, SettledOrphan

MAX_DEATHS: Final = 3
WORKER_DIED: Final = Ambiguous(code="worker_died")

log = structlog.get_logger(__name__)


class OrphanRecovery:
    """Decides what becomes of the rows that say `sending` by a process that is dead.

    `silent` names those whose counter stands still; those without a heartbeat row are found in
    Postgres.
    """

    def __init__(
        self,
        *,
        store: RecoveryStore,
        observer: RecoveryObserver,
        silent: Callable[[], Sequence[tuple[WorkerId, int]]],
        liveness: Liveness,
        rules: DeliveryRules,
    ) -> None:
        self._store = store
        self._observer = observer
        self._silent = silent
        self._liveness = liveness
        self._rules = rules

    async def run_once(self) -> int:
        """One pass; how many rows it moved, at most 500. Nothing while we may be dead ourselves."""
        if not self._liveness.is_alive():
            return 0
        try:
            silent = self._silent()
            orphans = await self._store.claimed_by_dead(silent)
            if not orphans:
                return 0
            moved = await self._store.settle_orphans(
                [self._decision(orphan) for orphan in orphans], silent
            )
        except StoreUnavailable as error:
            log.debug("orphan_recovery_failed", reason=str(error))
            return 0
        self._tell(moved)
        return len(moved)

    def _decision(self, orphan: Orphan) -> OrphanDecision:
        status, reason = self._what_follows(orphan)
        provider = self._rules.provider_name(orphan.queue)
        return OrphanDecision(orphan=orphan, provider=provider, status=status, reason=reason)

    def _what_follows(self, orphan: Orphan) -> tuple[Status, str]:
        """As for every Ambiguous, but due at once: the wait for its worker's death was enough."""
        if orphan.deaths + 1 >= MAX_DEATHS:
            return Status.FAILED, "poison"
        decision = self._rules.decide(
            orphan.queue, WORKER_DIED, tries=orphan.tries, max_tries=orphan.max_tries, draw=0.0
        )
        match decision:
            case Fail(reason=reason):
                return Status.FAILED, reason
            case Retry() | Settle():
                return Status.QUEUED, ""
            case _:
                assert_never(decision)

    def _tell(self, moved: Sequence[SettledOrphan]) -> None:
        for worker, count in Counter(death.orphan.worker for death, _, _ in moved).items():
            log.warning("worker_died", worker=str(worker), in_flight=count)
        for death, status, age_s in moved:
            self._observer.rescued(death.orphan.queue, 1, RescueReason.PROCESS_DIED)
            if status is Status.QUEUED:
                self._observer.retried(death.orphan.queue, "ambiguous")
            else:
                self._observer.finished(death.orphan.queue, status, age_s, death.reason)
