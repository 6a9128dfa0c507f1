"""The roll-up of statistics: counts what was recorded, and removes what is past its time."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError
from notifier.lifecycle import rest

if TYPE_CHECKING:
    from notifier.ports.observer import StatsObserver
    from notifier.ports.stats import StatsRollUps

ROLL_UP_INTERVAL_S: Final = 2.0
MAX_CHANGES: Final = 100
"""How many changes a step counts at most: each is of one statement, of up to 500 notifications."""
PRUNE_EVERY: Final = 30
"""After so many passes some rows that are past their time are removed."""
REST: Final = 2.0
MAX_REST_S: Final = 0.5
"""How long a process rests after a step, compared with the step, and at most."""

log = structlog.get_logger(__name__)


class StatsRollUp:
    """Every process runs one; one of them at a time counts."""

    def __init__(self, *, store: StatsRollUps, observer: StatsObserver) -> None:
        self._store = store
        self._observer = observer
        self._max_changes = MAX_CHANGES
        self._passes = count()

    async def run_once(self) -> int:
        """Count what there is; returns the number of changes.

        A failure is logged. The steps after it are half as large, until one succeeds: on a slow
        server a large one would fail each time.
        """
        counted = 0
        began_at = time.monotonic()
        try:
            while True:
                step = await self._store.step(self._max_changes)
                self._observer.stats_rolled_up(step.changes or 0, step.behind_s)
                if not step.changes:
                    break
                counted += step.changes
                self._max_changes = min(MAX_CHANGES, 2 * self._max_changes)
                # Claims, results and submits get Postgres for twice as long.
                await rest(time.monotonic() - began_at, times=REST, max_s=MAX_REST_S)
                began_at = time.monotonic()
            if next(self._passes) % PRUNE_EVERY == 0:
                await self._store.prune()
        except StoreError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 statistics may not end a process
            self._failed(type(error).__name__)
        return counted

    def _failed(self, reason: str) -> None:
        self._max_changes = max(1, self._max_changes // 2)
        log.warning("stats_roll_up_failed", reason=reason)
