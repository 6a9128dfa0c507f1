"""API processes that run schedules on one Postgres, whose time a test chooses.

A process can be cut off before its submit, and between its submit and the move of the schedule.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from notifier.adapters.postgres.blobs import open_blobs
from notifier.adapters.postgres.connection import ConnectionSettings, open_connection
from notifier.adapters.postgres.keys import PostgresKeys
from notifier.adapters.postgres.schedules import (
    PostgresScheduleRuns,
    PostgresSchedules,
    open_schedules,
)
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.postgres.suppressions import PostgresSuppressions
from notifier.adapters.postgres.templates import PostgresTemplates
from notifier.adapters.telemetry.metrics import Metrics
from notifier.api.auth.keyring import Keyring
from notifier.api.schedules.checking import checked_request
from notifier.api.schedules.submitting import ScheduledSubmits
from notifier.api.submission.preparing import SubmitPreparation
from notifier.api.submission.stored_fields import KNOWN_FIELDS
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.templating.filling import TemplateFilling
from notifier.delivery.accept import Accept
from notifier.delivery.schedule_runner import ScheduleRunner
from notifier.delivery.suppression_check import SuppressionCheck
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.schedules import NewSchedule, RunOutcome, Schedule, ScheduleScope
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.keys import Author
from notifier.ports.schedules import AddedSchedule, RunResult
from notifier.scheduling.cluster.worker_features import WorkerFeatures
from tests.builders import QUEUES, worker_id
from tests.dates import let_tests_choose_the_date, set_date
from tests.integration.test_accept import RecordingPublisher
from tests.unit.fakes_api import InlineRenderer, make_rules, submit_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from notifier.api.rules import ApiRules
    from notifier.domain.notification import NewNotification
    from notifier.ports.acceptor import Refusal, Reply
    from tests.live_rows import Connection

ADA = Author(actor="cli:ada@desk")
LIVE = ScheduleScope(DEFAULT_TENANT, Mode.LIVE)
RULES = make_rules(test_channel="test")
MINUTE = timedelta(minutes=1)


class Cut(StrEnum):
    """Where a process ends or loses Postgres's answer."""

    NOWHERE = "nowhere"
    BEFORE_SUBMIT = "before the submit"
    AFTER_SUBMIT = "after the submit"
    SUBMIT_ANSWER = "the answer to its submit is lost"
    SETTLE_ANSWER = "the answer to its settling is lost"


class ProcessEnded(BaseException):
    """The process was killed."""


class Process:
    """The part of an API process that runs schedules. `cut` says where it ends in its next pass."""

    def __init__(
        self, store: PostgresStore, runs: PostgresScheduleRuns, accept: Accept, metrics: Metrics
    ) -> None:
        self._store = store
        self._runs = runs
        self._accept = accept
        self._metrics = metrics
        self.cut = Cut.NOWHERE
        self.earlier = accept.earlier
        self.take = runs.take

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Reply | Refusal]:
        if self.cut is Cut.BEFORE_SUBMIT:
            raise ProcessEnded
        replies = await self._accept.submit(items)
        if self.cut is Cut.AFTER_SUBMIT:
            raise ProcessEnded
        if self.cut is Cut.SUBMIT_ANSWER:
            raise StoreUnavailable("the answer was lost")
        return replies

    async def settle(self, results: Sequence[RunResult]) -> Sequence[UUID]:
        moved = await self._runs.settle(results)
        if self.cut is Cut.SETTLE_ANSWER:
            raise StoreUnavailable("the answer was lost")
        return moved

    def runner(
        self, rules: ApiRules, preparation: SubmitPreparation, keyring: Keyring | None
    ) -> Any:
        submitter = ScheduledSubmits(
            acceptor=self, preparation=preparation, keyring=keyring, rules=rules
        )
        return ScheduleRunner(store=self, submitter=submitter, observer=self._metrics)


class World(NamedTuple):
    """Postgres as the processes and people see it."""

    url: str
    connection: Connection
    schedules: PostgresSchedules
    keys: PostgresKeys
    suppressions: PostgresSuppressions
    templates: PostgresTemplates
    start: datetime

    async def set_time(self, after: timedelta) -> datetime:
        """Make it so long after `start`."""
        now = self.start + after
        await set_date(self.connection, now)
        return now

    async def create(
        self,
        cron: str = "* * * * *",
        *,
        scope: ScheduleScope = LIVE,
        time_zone: str = "UTC",
        note: str = "",
        **notification: Any,
    ) -> Schedule:
        added = await self.schedules.create(
            scope, new_schedule(cron, time_zone, note, **notification), ADA
        )
        assert isinstance(added, AddedSchedule), added
        return added.schedule

    async def read(self, schedule: Schedule) -> Schedule:
        found = await self.schedules.schedule(schedule.scope, schedule.id)
        assert found is not None
        return found

    async def submitted(self) -> Counter[str]:
        """How many notifications there are, by their tag."""
        rows = await self.connection.fetch("SELECT tag FROM notifications")
        return Counter(row["tag"] for row in rows)

    @asynccontextmanager
    async def open_process(
        self, rules: ApiRules = RULES, *, with_keys: bool = False
    ) -> AsyncIterator[RunningProcess]:
        settings = ConnectionSettings(url=self.url)
        metrics = Metrics(QUEUES, {}, version="0")
        features = WorkerFeatures(metrics)
        features.beat_succeeded([])
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(settings, worker_id()))
            _, runs = await stack.enter_async_context(open_schedules(settings, KNOWN_FIELDS))
            blobs = await stack.enter_async_context(open_blobs(settings))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            accept = Accept(
                store=store,
                observer=metrics,
                publisher=RecordingPublisher(),
                features=features,
                steps=(SuppressionCheck(store),),
                deadline_s=5.0,
                max_backlog=100_000,
            )
            group.create_task(accept.run())
            stack.callback(accept.close)
            filling = TemplateFilling(
                reader=self.templates,
                renderer=InlineRenderer(),
                max_bytes=rules.max_content_bytes,
            )
            preparation = SubmitPreparation(
                rules=rules, filling=filling, blobs=SubmitBlobs(blobs, rules)
            )
            process = Process(store, runs, accept, metrics)
            keyring = Keyring(self.keys) if with_keys else None
            runner = process.runner(rules, preparation, keyring)
            yield RunningProcess(process, runner, metrics, store)


class RunningProcess(NamedTuple):
    process: Process
    runner: ScheduleRunner
    metrics: Metrics
    store: PostgresStore

    async def run(self, cut: Cut = Cut.NOWHERE) -> int:
        """Make a pass; returns how many runs ended, 0 if the process was cut off."""
        self.process.cut = cut
        try:
            return await self.runner.run_once()
        except* ProcessEnded:
            pass
        finally:
            self.process.cut = Cut.NOWHERE
        return 0

    def outcomes(self) -> dict[str, float]:
        """How many runs had which outcome, without those that none had."""
        counts = {
            outcome.value: self.metrics.registry.get_sample_value(
                "notifier_schedule_runs_total", {"outcome": outcome.value}
            )
            for outcome in RunOutcome
        }
        return {name: count for name, count in counts.items() if count}

    def skipped(self) -> float:
        value = self.metrics.registry.get_sample_value("notifier_schedule_instants_skipped_total")
        assert value is not None
        return value


def new_schedule(
    cron: str = "* * * * *",
    time_zone: str = "UTC",
    note: str = "",
    *,
    paused: bool = False,
    **notification: Any,
) -> NewSchedule:
    """A schedule as a request asks for it; its notification is not checked."""
    body = submit_body(**notification)
    request = {
        "cron": cron,
        "time_zone": time_zone,
        "notification": body,
        "note": note,
        "paused": paused,
    }
    checked = checked_request(msgspec.json.encode(request))
    assert not checked.faults, checked.faults
    return checked.schedule()


@asynccontextmanager
async def open_world(url: str, connection: Connection) -> AsyncIterator[World]:
    """A database whose time is half a minute past ten of tomorrow, in UTC."""
    await let_tests_choose_the_date(connection)
    tomorrow = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0)
    start = tomorrow + timedelta(days=1, seconds=30)
    await set_date(connection, start)
    settings = ConnectionSettings(url=url)
    async with (
        open_schedules(settings, KNOWN_FIELDS) as (schedules, _),
        open_connection(settings) as other,
    ):
        yield World(
            url=url,
            connection=connection,
            schedules=schedules,
            keys=PostgresKeys(other),
            suppressions=PostgresSuppressions(other),
            templates=PostgresTemplates(other),
            start=start,
        )
