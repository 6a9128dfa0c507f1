"""Notes the workers that have died: an event tells of each, once, whoever finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError

if TYPE_CHECKING:
    from notifier.ports.heartbeat import DeadProcess, DeadProcesses
    from notifier.ports.store import UpkeepStore

CHECK_INTERVAL_S: Final = 1.0

log = structlog.get_logger(__name__)


class LostWorkers:
    """Every process runs one where events are written; concurrent passes do no harm."""

    def __init__(self, *, store: UpkeepStore, processes: DeadProcesses) -> None:
        self._store = store
        self._processes = processes
        self._noted: frozenset[DeadProcess] = frozenset()

    async def run_once(self) -> None:
        """Note the workers that died since. A failure is logged: the next pass repeats it."""
        dead = frozenset(self._processes.dead())
        if new := dead - self._noted:
            try:
                await self._store.note_lost(sorted(new))
            except StoreError as error:
                log.debug("lost_workers_failed", reason=str(error))
                return
        self._noted = dead
