"""Moves rows back to turn 0 while a worker lives that does not read other turns.

Such a worker is of the version before. It may hold the lease of a queue, and would leave the rows
of all other turns unpublished. Processes of this version store no more rows there while it lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError
from notifier.domain.features import TURNS

if TYPE_CHECKING:
    from notifier.ports.heartbeat import LackedFeatures
    from notifier.ports.store import TurnStore

RETURN_INTERVAL_S: Final = 1.0
MAX_CHUNKS: Final = 10
"""How many statements a pass runs."""

log = structlog.get_logger(__name__)


class TurnReturn:
    """Every process runs one."""

    def __init__(self, *, store: TurnStore, features: LackedFeatures) -> None:
        self._store = store
        self._features = features

    async def run_once(self) -> int:
        """Move rows, if a live worker lacks the turns; returns how many were moved."""
        if not self._features.is_lacked(TURNS):
            return 0
        total = 0
        try:
            for _ in range(MAX_CHUNKS):
                moved = await self._store.return_turns()
                if not moved:
                    break
                total += sum(moved.values())
        except StoreError as error:
            log.warning("turn_return_failed", reason=str(error))
        if total:
            log.warning("turns_returned", count=total)
        return total
