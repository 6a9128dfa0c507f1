"""The rescuer's third part: publishes again what a process may have died over.

Between the commit of a take and the publish nobody else knows of the rows. They are due again as
soon as their process counts as dead: the claim stays, so it does no harm if they were published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreUnavailable
from notifier.ports.observer import RescueReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notifier.domain.notification import QueueKey, WorkerId
    from notifier.ports.observer import RecoveryObserver
    from notifier.ports.store import RecoveryStore

CHECK_INTERVAL_S: Final = 0.25
"""Postgres is asked only after a death."""
MAX_DEAD_PER_RUN: Final = 100
"""Dead processes asked for at once: a crash loop leaves many, and each costs a look."""

log = structlog.get_logger(__name__)


class UnpublishedRecovery:
    """Looks once after each process that died.

    `silent` names those whose counter stands still. One without a heartbeat row left in order: a
    relay takes nothing before its process has its row.
    """

    def __init__(
        self,
        *,
        store: RecoveryStore,
        observer: RecoveryObserver,
        queues: Sequence[QueueKey],
        silent: Callable[[], Sequence[tuple[WorkerId, int]]],
    ) -> None:
        self._store = store
        self._observer = observer
        self._queues = queues
        self._silent = silent
        self._done: set[tuple[WorkerId, int]] = set()

    async def run_once(self) -> int:
        """One pass; how many rows it made due again, at most 500."""
        silent = self._silent()
        self._done &= set(silent)
        dead = [each for each in silent if each not in self._done][:MAX_DEAD_PER_RUN]
        if not dead:
            return 0
        try:
            rescued = await self._store.rescue_from(dead, self._queues)
        except StoreUnavailable as error:
            log.debug("unpublished_recovery_failed", reason=str(error))
            return 0
        if not rescued:
            self._done |= set(dead)
        for queue, count in rescued.items():
            log.warning("unpublished_recovered", queue=str(queue), count=count)
            self._observer.rescued(queue, count, RescueReason.PROCESS_DIED)
        return sum(rescued.values())
