"""Submits the notification of each schedule at its instants, each instant exactly once.

A run is taken for a while, submitted with the idempotency key of its instant, and only then does
the schedule move on. If the process dies in between, another one takes the same instant, and its
submit is a replay. Of the instants that were missed, only the newest is submitted.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from notifier.delivery.crash_place import type_and_place
from notifier.domain.errors import StoreError
from notifier.domain.schedules import Run, RunOutcome, instant_text
from notifier.domain.time_zones import is_time_zone
from notifier.ports.schedules import Postponed, Refused, RunResult, Submitted, TooLate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.ports.observer import ScheduleObserver
    from notifier.ports.schedules import RunSubmitter, ScheduleRuns

RUN_INTERVAL_S: Final = 1.0
HOLD_S: Final = 30.0
"""Longer than a submit takes: it has a deadline. Another process may then take the same run."""
RETRY_S: Final = 5.0
MAX_RUNS: Final = 50
"""How many runs a process submits at once: they share the group commit."""

log = structlog.get_logger(__name__)


class _Ended(NamedTuple):
    """A run with its result. `skipped` counts instants; `reason` says why it was not submitted."""

    run: Run
    outcome: RunOutcome
    result: RunResult
    skipped: int = 0
    reason: str = ""


class ScheduleRunner:
    """Every process with an API runs one; they share the schedules."""

    def __init__(
        self, *, store: ScheduleRuns, submitter: RunSubmitter, observer: ScheduleObserver
    ) -> None:
        self._store = store
        self._submitter = submitter
        self._observer = observer

    async def run_once(self) -> int:
        """Submit what is due; returns how many runs ended.

        A failure of the store is logged: the next pass goes on.
        """
        ended = 0
        try:
            while runs := await self._store.take(MAX_RUNS, HOLD_S):
                ended += await self._end(runs)
        except StoreError as error:
            log.warning("schedules_failed", reason=str(error))
        return ended

    async def _end(self, runs: Sequence[Run]) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ended(run), name="schedule run") for run in runs]
        all_ended = [task.result() for task in tasks]
        moved = set(await self._store.settle([each.result for each in all_ended]))
        for each in all_ended:
            # Another process may have ended it meanwhile, or a person changed the schedule.
            if each.run.schedule in moved:
                self._report(each)
        return len(moved)

    async def _ended(self, run: Run) -> _Ended:
        """Return the result of a run. Raises nothing: one run must not end the others."""
        try:
            if not is_time_zone(run.cron.time_zone):
                reason = f"this machine does not know the time zone {run.cron.time_zone}"
                return _postponed(run, reason=reason, wait_s=HOLD_S)
            return await self._result(run)
        except StoreError as error:
            return _postponed(run, reason=str(error), may_be_stored=True)
        except Exception as error:  # noqa: BLE001 a fault that one schedule shows stops no others
            # The message may contain the recipient, so only the error's type and place are logged.
            crash = type_and_place(error)
            log.error("schedule_run_raised", schedule=str(run.schedule), error=crash)  # noqa: TRY400 as above
            return _postponed(run, reason=type(error).__name__, may_be_stored=True)

    async def _result(self, run: Run) -> _Ended:
        if run.begun_at is not None:
            earlier = await self._submitter.earlier(run)
            if earlier is not None:
                return _submitted(run, Submitted(earlier, is_replay=True))
        newest, missed = run.cron.newest_due(run.at, run.now)
        if missed:
            return _skipped(run, newest, missed, "newer instants have come")
        if run.may_have_lost_its_key:
            reason = "it may have been submitted, and its key is not stored any more"
            return _skipped(run, run.cron.next_after(run.at), 1, reason)
        match await self._submitter.submit(run):
            case Submitted() as submitted:
                return _submitted(run, submitted)
            case Refused(problem=problem, slug=slug):
                next_at = run.cron.next_after(run.at)
                result = RunResult(run.schedule, run.at, next_at, problem=problem)
                return _Ended(run, RunOutcome.REFUSED, result, reason=slug)
            case Postponed(problem=problem, slug=slug, may_be_stored=may_be_stored):
                return _postponed(run, problem, reason=slug, may_be_stored=may_be_stored)
            case TooLate():
                return _skipped(run, run.cron.next_after(run.at), 1, "its ttl has passed")

    def _report(self, ended: _Ended) -> None:
        self._observer.schedule_run_ended(ended.outcome)
        schedule, at = str(ended.run.schedule), instant_text(ended.run.at)
        match ended.outcome:
            case RunOutcome.SUBMITTED | RunOutcome.REPLAYED:
                log.debug("schedule_run_submitted", schedule=schedule, at=at, outcome=ended.outcome)
            case RunOutcome.REFUSED:
                log.warning("schedule_run_refused", schedule=schedule, at=at, problem=ended.reason)
            case RunOutcome.POSTPONED:
                log.warning("schedule_run_postponed", schedule=schedule, at=at, reason=ended.reason)
            case RunOutcome.SKIPPED:
                self._observer.schedule_instants_skipped(ended.skipped)
                log.warning(
                    "schedule_instants_skipped",
                    schedule=schedule,
                    at=at,
                    count=ended.skipped,
                    reason=ended.reason,
                )


def _submitted(run: Run, submitted: Submitted) -> _Ended:
    outcome = RunOutcome.REPLAYED if submitted.is_replay else RunOutcome.SUBMITTED
    next_at = run.cron.next_after(run.at)
    return _Ended(run, outcome, RunResult(run.schedule, run.at, next_at, submitted.id))


def _skipped(run: Run, next_at: datetime | None, count: int, reason: str) -> _Ended:
    result = RunResult(run.schedule, run.at, next_at)
    return _Ended(run, RunOutcome.SKIPPED, result, skipped=count, reason=reason)


def _postponed(
    run: Run,
    problem: bytes | None = None,
    *,
    reason: str,
    wait_s: float = RETRY_S,
    may_be_stored: bool = False,
) -> _Ended:
    """Leave a run where it is, for another try after `wait_s`."""
    result = RunResult(
        run.schedule,
        run.at,
        run.at,
        problem=problem,
        wait_s=wait_s,
        # What may have been stored at an earlier try still may be.
        may_be_stored=may_be_stored or run.begun_at is not None,
    )
    return _Ended(run, RunOutcome.POSTPONED, result, reason=reason)
