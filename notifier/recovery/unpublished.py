"""Publishes again what a process took from Postgres and may not have published before it died.

Between the commit of a take and the publish only the taking process knows of the rows. They become
due again as soon as it counts as dead. Their claim is unchanged: if they were published after all,
the second pointer does no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreUnavailable
from notifier.ports.observer import RescueReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.notification import QueueKey
    from notifier.ports.heartbeat import DeadProcess, DeadProcesses
    from notifier.ports.observer import RecoveryObserver
    from notifier.ports.store import RecoveryStore

CHECK_INTERVAL_S: Final = 0.25
"""Short, because Postgres is only asked after a death."""
MAX_DEAD_PER_RUN: Final = 100
"""Dead processes per query: a crash loop leaves many, and each costs an index lookup per queue."""

log = structlog.get_logger(__name__)


class UnpublishedRecovery:
    """Checks once after each death of a process.

    A process without a heartbeat row has shut down regularly: a relay takes nothing before its
    process has a row.
    """

    def __init__(
        self,
        *,
        store: RecoveryStore,
        observer: RecoveryObserver,
        queues: Sequence[QueueKey],
        processes: DeadProcesses,
    ) -> None:
        self._store = store
        self._observer = observer
        self._queues = queues
        self._processes = processes
        self._done: set[DeadProcess] = set()

    async def run_once(self) -> int:
        """Make at most 500 rows due again; returns how many. Repeats until a process has none."""
        dead = self._processes.dead()
        self._done &= set(dead)
        remaining = [process for process in dead if process not in self._done][:MAX_DEAD_PER_RUN]
        if not remaining:
            return 0
        try:
            rescued = await self._store.rescue_from(remaining, self._queues)
        except StoreUnavailable as error:
            log.debug("unpublished_recovery_failed", reason=str(error))
            return 0
        if not rescued:
            self._done |= set(remaining)
        for queue, count in rescued.items():
            log.warning("unpublished_recovered", queue=str(queue), count=count)
            self._observer.rescued(queue, count, RescueReason.PROCESS_DIED)
        return sum(rescued.values())
