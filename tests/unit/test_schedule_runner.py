"""The runner of schedules: what it makes of each answer, and that no run disturbs the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from notifier.delivery.schedule_runner import HOLD_S, MAX_RUNS, RETRY_S, ScheduleRunner
from notifier.domain.credentials import Mode
from notifier.domain.cron import Cron
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import NotificationId
from notifier.domain.schedules import Run, RunOutcome, ScheduleScope
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.schedules import Postponed, Refused, RunResult, Submitted, TooLate

AT: Final = datetime(2026, 12, 1, 9, tzinfo=UTC)
NEXT: Final = AT + timedelta(days=1)
ID: Final = NotificationId(uuid4())
SECRET: Final = "ada@example.com"


def a_run(**changes: object) -> Run:
    run = Run(
        schedule=uuid4(),
        scope=ScheduleScope(DEFAULT_TENANT, Mode.LIVE),
        cron=Cron("0 9 * * *", "UTC"),
        notification=b"{}",
        at=AT,
        begun_at=None,
        now=AT + timedelta(seconds=1),
    )
    return replace(run, **changes)  # type: ignore[arg-type]


class Runs:
    """Gives these runs once, MAX_RUNS at a time; all of them move."""

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)
        self.results: list[RunResult] = []
        self.taken: list[int] = []
        self.moves = True
        self.error: Exception | None = None

    async def take(self, count: int, hold_s: float) -> Sequence[Run]:
        assert hold_s == HOLD_S
        taken, self.runs = self.runs[:count], self.runs[count:]
        self.taken.append(len(taken))
        return taken

    async def settle(self, results: Sequence[RunResult]) -> Sequence[UUID]:
        if self.error is not None:
            raise self.error
        self.results += results
        return [each.schedule for each in results] if self.moves else []


class Submitter:
    """Answers each run with `answer`; raises it if it is an exception."""

    def __init__(self, answer: object, earlier: NotificationId | Exception | None = None) -> None:
        self.answer = answer
        self.before = earlier
        self.submitted: list[Run] = []

    async def submit(self, run: Run) -> Submitted | Refused | Postponed | TooLate:
        self.submitted.append(run)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    async def earlier(self, run: Run) -> NotificationId | None:
        del run
        if isinstance(self.before, Exception):
            raise self.before
        return self.before


class Observer:
    def __init__(self) -> None:
        self.ended = Counter[RunOutcome]()
        self.skipped = 0

    def schedule_run_ended(self, outcome: RunOutcome) -> None:
        self.ended[outcome] += 1

    def schedule_instants_skipped(self, count: int) -> None:
        self.skipped += count


async def result_of(
    run: Run, answer: object, earlier: NotificationId | Exception | None = None
) -> tuple[RunResult, Observer]:
    store, observer = Runs(run), Observer()
    runner = ScheduleRunner(store=store, submitter=Submitter(answer, earlier), observer=observer)
    assert await runner.run_once() == 1
    (result,) = store.results
    assert (result.schedule, result.at) == (run.schedule, AT)
    return result, observer


@pytest.mark.parametrize(
    ("answer", "expected", "outcome"),
    [
        (Submitted(ID, is_replay=False), (NEXT, ID, None, 0.0, False), RunOutcome.SUBMITTED),
        (Submitted(ID, is_replay=True), (NEXT, ID, None, 0.0, False), RunOutcome.REPLAYED),
        (Refused(b"{}", "invalid-field"), (NEXT, None, b"{}", 0.0, False), RunOutcome.REFUSED),
        (
            Postponed(b"{}", "overloaded", may_be_stored=False),
            (AT, None, b"{}", RETRY_S, False),
            RunOutcome.POSTPONED,
        ),
        (
            Postponed(b"{}", "store-unavailable", may_be_stored=True),
            (AT, None, b"{}", RETRY_S, True),
            RunOutcome.POSTPONED,
        ),
        (TooLate(), (NEXT, None, None, 0.0, False), RunOutcome.SKIPPED),
        (StoreUnavailable("gone"), (AT, None, None, RETRY_S, True), RunOutcome.POSTPONED),
        (ZeroDivisionError(SECRET), (AT, None, None, RETRY_S, True), RunOutcome.POSTPONED),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, RunOutcome) else value.value,
)
async def test_each_answer_has_its_result(
    answer: object, expected: tuple[object, ...], outcome: RunOutcome
) -> None:
    with capture_logs() as logs:
        result, observer = await result_of(a_run(), answer)
    assert tuple(result)[2:] == expected
    assert observer.ended == {outcome: 1}
    assert observer.skipped == (1 if outcome is RunOutcome.SKIPPED else 0)
    assert SECRET not in str(logs)


async def test_of_several_instants_that_have_come_all_but_the_newest_are_skipped() -> None:
    result, observer = await result_of(a_run(now=AT + timedelta(days=3, hours=1)), TooLate())
    assert result.next_at == AT + timedelta(days=3)
    assert (observer.ended, observer.skipped) == ({RunOutcome.SKIPPED: 1}, 3)


@pytest.mark.parametrize("days", [0, 5])
async def test_what_an_earlier_try_has_submitted_is_not_submitted_or_skipped(days: int) -> None:
    run = a_run(begun_at=AT, now=AT + timedelta(days=days, seconds=40))
    result, observer = await result_of(run, ZeroDivisionError(), earlier=ID)
    assert (result.next_at, result.notification) == (NEXT, ID)
    assert observer.ended == {RunOutcome.REPLAYED: 1}


async def test_a_run_that_was_begun_stays_begun_until_it_is_known_what_became_of_it() -> None:
    begun = a_run(begun_at=AT)
    busy = Postponed(b"", "overloaded", may_be_stored=False)
    for answer, earlier in ((busy, None), (TooLate(), StoreUnavailable("gone"))):
        result, _ = await result_of(begun, answer, earlier)
        assert (result.next_at, result.may_be_stored) == (AT, True)


@pytest.mark.parametrize(
    ("age", "is_submitted"), [(timedelta(hours=23), True), (timedelta(hours=25), False)]
)
async def test_a_begun_run_is_repeated_only_while_its_key_is_kept(
    age: timedelta, is_submitted: bool
) -> None:
    run = a_run(cron=Cron("0 9 1 12 *", "UTC"), begun_at=AT, now=AT + age)
    result, observer = await result_of(run, Submitted(ID, is_replay=False))
    assert result.notification == (ID if is_submitted else None)
    assert observer.skipped == (0 if is_submitted else 1)


async def test_a_time_zone_that_is_not_known_here_waits_for_another_process() -> None:
    run = a_run(cron=Cron("0 9 * * *", "Mars/Olympus"))
    result, observer = await result_of(run, ZeroDivisionError())
    assert (result.next_at, result.wait_s, result.may_be_stored) == (AT, HOLD_S, False)
    assert observer.ended == {RunOutcome.POSTPONED: 1}


async def test_runs_are_taken_until_none_is_left_and_each_ends_by_itself() -> None:
    store, observer = Runs(*(a_run() for _ in range(2 * MAX_RUNS + 1))), Observer()
    submitter = Submitter(Submitted(ID, is_replay=False))
    runner = ScheduleRunner(store=store, submitter=submitter, observer=observer)
    assert await runner.run_once() == 2 * MAX_RUNS + 1
    assert store.taken == [MAX_RUNS, MAX_RUNS, 1, 0]
    assert len(submitter.submitted) == 2 * MAX_RUNS + 1


async def test_what_another_process_has_ended_is_not_reported() -> None:
    store, observer = Runs(a_run()), Observer()
    store.moves = False
    runner = ScheduleRunner(store=store, submitter=Submitter(TooLate()), observer=observer)
    assert await runner.run_once() == 0
    assert (observer.ended, observer.skipped) == ({}, 0)


async def test_without_the_database_a_pass_ends_and_the_next_one_goes_on() -> None:
    store, observer = Runs(a_run()), Observer()
    store.error = StoreUnavailable("gone")
    runner = ScheduleRunner(store=store, submitter=Submitter(TooLate()), observer=observer)
    with capture_logs() as logs:
        assert await runner.run_once() == 0
    assert [entry["event"] for entry in logs] == ["schedules_failed"]
    store.error, store.runs = None, [a_run()]
    assert await runner.run_once() == 1


def test_the_key_of_an_instant_is_of_its_schedule_tenant_mode_and_time_alone() -> None:
    run = a_run()
    same = replace(run, notification=b"other", begun_at=AT, now=NEXT, cron=Cron("* * * * *", "UTC"))
    assert same.key == run.key
    others = [
        replace(run, at=NEXT),
        replace(run, schedule=uuid4()),
        replace(run, scope=ScheduleScope(DEFAULT_TENANT, Mode.TEST)),
    ]
    assert len({each.key.digest for each in (run, *others)}) == len(others) + 1
