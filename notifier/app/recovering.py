"""The tasks of a worker that recover lost messages, rows of dead processes, and parked rows."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from notifier.app.process import Process
from notifier.delivery.attempt import Attempts
from notifier.delivery.delivery_rules import DeliveryRules
from notifier.delivery.relay import Relays
from notifier.domain.errors import StoreError
from notifier.lifecycle import RepeatedTask, repeat
from notifier.recovery import orphans, rescuer, waker
from notifier.recovery.orphans import OrphanRecovery
from notifier.recovery.rescuer import Rescuer
from notifier.recovery.waker import Waker

RELEASE_INTERVAL_S: Final = 1.0
RELEASE_TIMEOUT_S: Final = 5.0

log = structlog.get_logger(__name__)


class OrphanRelease:
    """Gives back what this worker may have claimed and is not sending."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def run_once(self) -> None:
        """Run one pass, 5 s at most. A failure is logged: the next pass repeats it."""
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._attempts.release_orphans()
        except (StoreError, TimeoutError) as error:
            log.debug("orphan_release_failed", reason=str(error))


def start_recovery(
    group: asyncio.TaskGroup,
    process: Process,
    relays: Relays,
    *,
    rules: DeliveryRules,
    attempts: Attempts,
    stop: asyncio.Event,
) -> None:
    """Start the recovery tasks in `group`; they end after `stop`."""
    tasks: list[tuple[str, RepeatedTask, float]] = [
        ("rescuer", _rescuer(process, relays), rescuer.CHECK_INTERVAL_S),
        ("orphan recovery", _orphan_recovery(process, rules), orphans.CHECK_INTERVAL_S),
        ("orphan release", OrphanRelease(attempts), RELEASE_INTERVAL_S),
        ("waker", Waker(store=process.store, holds=process.gates), waker.CHECK_INTERVAL_S),
    ]
    for name, task, interval_s in tasks:
        group.create_task(repeat(task, stop, interval_s), name=name)


def _rescuer(process: Process, relays: Relays) -> Rescuer:
    return Rescuer(
        store=process.store,
        publisher=relays,
        observer=process.metrics,
        own=process.sending,
        peers=process.membership,
        gates=process.gates,
    )


def _orphan_recovery(process: Process, rules: DeliveryRules) -> OrphanRecovery:
    return OrphanRecovery(
        store=process.store,
        observer=process.metrics,
        leases=process.leases,
        processes=process.membership,
        rules=rules,
    )
