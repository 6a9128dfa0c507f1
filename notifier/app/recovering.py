"""The tasks of a worker that recover lost messages and the rows that dead processes left behind."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from notifier.app.process import Process
from notifier.delivery.attempt import Attempts
from notifier.delivery.delivery_rules import DeliveryRules
from notifier.domain.errors import StoreUnavailable
from notifier.lifecycle import repeat
from notifier.recovery import rescuer, unpublished
from notifier.recovery.orphans import OrphanRecovery
from notifier.recovery.rescuer import Rescuer
from notifier.recovery.unpublished import UnpublishedRecovery

RELEASE_INTERVAL_S: Final = 5.0

log = structlog.get_logger(__name__)


class OrphanRelease:
    """Gives back rows that this worker has claimed, by Postgres, and is not sending."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def run_once(self) -> None:
        """Run one pass, 5 s at most. A failure is logged: the next pass repeats it."""
        try:
            async with asyncio.timeout(RELEASE_INTERVAL_S):
                await self._attempts.release_orphans()
        except (StoreUnavailable, TimeoutError) as error:
            log.debug("orphan_release_failed", reason=str(error))


def start_recovery(
    group: asyncio.TaskGroup,
    process: Process,
    *,
    rules: DeliveryRules,
    attempts: Attempts,
    stop: asyncio.Event,
) -> None:
    """Start the recovery tasks in `group`; they end after `stop`."""
    passes = [
        ("rescuer", _rescuer(process).run_once, rescuer.CHECK_INTERVAL_S),
        ("orphan recovery", _orphan_recovery(process, rules).run_once, rescuer.CHECK_INTERVAL_S),
        (
            "unpublished recovery",
            _unpublished_recovery(process).run_once,
            unpublished.CHECK_INTERVAL_S,
        ),
        ("orphan release", OrphanRelease(attempts).run_once, RELEASE_INTERVAL_S),
    ]
    for name, run_once, interval_s in passes:
        group.create_task(repeat(run_once, stop, interval_s), name=name)


def _rescuer(process: Process) -> Rescuer:
    return Rescuer(
        store=process.store,
        observer=process.metrics,
        own=process.sending,
        peers=process.membership,
        gates=process.gates,
    )


def _orphan_recovery(process: Process, rules: DeliveryRules) -> OrphanRecovery:
    return OrphanRecovery(
        store=process.store,
        observer=process.metrics,
        processes=process.membership,
        liveness=process.membership,
        rules=rules,
    )


def _unpublished_recovery(process: Process) -> UnpublishedRecovery:
    return UnpublishedRecovery(
        store=process.store,
        observer=process.metrics,
        queues=process.queues,
        processes=process.membership,
    )
