"""Carries operations out: cancels, retries and erases notifications, a few hundred at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreError
from notifier.domain.notification import EndReason, Status
from notifier.domain.operations import OperationKind, OperationStatus
from notifier.lifecycle import rest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from notifier.ports.observer import FinishObserver
    from notifier.ports.operations import OperationSteps, Step
    from notifier.ports.store import ExpiredRow

CHECK_INTERVAL_S: Final = 0.5
REST: Final = 0.8
MAX_REST_S: Final = 0.5
"""How long a process rests after a step, compared with the step, and at most."""

log = structlog.get_logger(__name__)


class OperationRunner:
    """Every process runs one; two of them never work on one operation at the same time."""

    def __init__(self, *, steps: OperationSteps, observer: FinishObserver) -> None:
        self._steps = steps
        self._observer = observer

    async def run_once(self) -> int:
        """Take steps while any operation is due; returns how many."""
        count = 0
        began_at = time.monotonic()
        try:
            while step := await self._steps.step():
                self._report(step)
                count += 1
                # Claims, results and submits get Postgres for half as long.
                await rest(time.monotonic() - began_at, times=REST, max_s=MAX_REST_S)
                began_at = time.monotonic()
        except StoreError as error:
            log.warning("operation_step_failed", reason=str(error))
        except Exception as error:  # noqa: BLE001 no operation may end a process
            log.warning("operation_step_failed", reason=type(error).__name__)
        return count

    def _report(self, step: Step) -> None:
        operation = step.operation
        if operation.kind is OperationKind.ERASE:
            report_ended(self._observer, step.ended, Status.SUPPRESSED, EndReason.ERASED)
        else:
            report_cancelled(self._observer, step.ended)
        if operation.status is not OperationStatus.RUNNING:
            log.info(
                "operation_ended",
                status=operation.status,
                id=str(operation.id),
                kind=operation.kind,
                matched=operation.matched,
                done=operation.done,
            )


def report_cancelled(observer: FinishObserver, rows: Iterable[ExpiredRow]) -> None:
    """Report notifications that a person cancelled."""
    report_ended(observer, rows, Status.CANCELLED, EndReason.REQUEST)


def report_ended(
    observer: FinishObserver, rows: Iterable[ExpiredRow], status: Status, reason: EndReason
) -> None:
    """Report notifications that ended while they waited."""
    for row in rows:
        if row.queue is not None:
            observer.finished(row.queue, status, row.age_s, reason)
