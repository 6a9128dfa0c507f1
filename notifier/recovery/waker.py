"""Makes parked rows due once the pause that held them has ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from notifier.domain.errors import StoreError

if TYPE_CHECKING:
    from notifier.lifecycle import Clock
    from notifier.ports.store import ParkedStore

CHECK_INTERVAL_S: Final = 1.0
PASS_INTERVAL_S: Final = 60.0
"""A worker may park a row by a pause of which it does not know that it has ended."""

log = structlog.get_logger(__name__)


class EndedHolds(Protocol):
    """Knows whether a pause has ended; implemented by gates.queue_gates.QueueGates."""

    has_ended_hold: bool


class Waker:
    """Every worker runs one; concurrent passes do no harm."""

    def __init__(
        self, *, store: ParkedStore, holds: EndedHolds, clock: Clock = time.monotonic
    ) -> None:
        self._store = store
        self._holds = holds
        self._clock = clock
        self._next_at = clock()

    async def run_once(self) -> None:
        """Run passes if a pause has ended, and once a minute."""
        if not self._holds.has_ended_hold and self._clock() < self._next_at:
            return
        self._next_at = self._clock() + PASS_INTERVAL_S
        self._holds.has_ended_hold = False
        try:
            await self._wake_all()
        except StoreError as error:
            self._holds.has_ended_hold = True
            log.warning("wake_failed", reason=str(error))

    async def _wake_all(self) -> None:
        woken = 0
        while True:
            done = await self._store.wake()
            woken += done.woken
            if not done.found:
                break
        if woken:
            log.info("parked_notifications_woken", count=woken)
