"""API processes that submit fallbacks on one Postgres, whose time a test chooses.

A process can be cut off before its submit, and between its submit and the end of the fallback.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from notifier.adapters.postgres.blobs import open_blobs
from notifier.adapters.postgres.connection import ConnectionSettings, open_connection
from notifier.adapters.postgres.fallbacks import PostgresFallbacks, open_fallbacks
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.postgres.suppressions import PostgresSuppressions
from notifier.adapters.postgres.templates import PostgresTemplates
from notifier.adapters.telemetry.metrics import Metrics
from notifier.api.submission.fallback_submits import FallbackSubmits
from notifier.api.submission.idempotency import NO_KEYS, RequestKeys
from notifier.api.submission.preparing import SubmitPreparation
from notifier.api.submission.stored_fields import KNOWN_FIELDS
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.submission.tenant_preparation import TenantPreparation
from notifier.api.submission.validation import Sender, SubmitValidator
from notifier.api.templating.filling import TemplateFilling
from notifier.delivery.accept import Accept
from notifier.delivery.fallback_runner import FallbackRunner
from notifier.delivery.suppression_check import SuppressionCheck
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.fallbacks import FallbackOutcome
from notifier.domain.notification import NewNotification, NotificationId, NotificationView
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.queries import View
from notifier.scheduling.cluster.worker_features import WorkerFeatures
from tests.builders import QUEUES, worker_id
from tests.dates import let_tests_choose_the_date, set_date
from tests.integration.test_accept import RecordingPublisher
from tests.schedule_processes import RULES, Cut, ProcessEnded
from tests.unit.fakes_api import InlineRenderer, submit_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from notifier.api.rules import ApiRules
    from notifier.ports.acceptor import Refusal, Reply
    from notifier.ports.fallbacks import FallbackResult
    from tests.live_rows import Connection

AFTER: Final = timedelta(minutes=10)
SMS: Final = "+15005550006"


def fallback_body(**changes: Any) -> dict[str, Any]:
    """A fallback by text message after ten minutes."""
    body: dict[str, Any] = {
        "after_s": AFTER.total_seconds(),
        "channel": "sms",
        "recipient": SMS,
        "content": {"body": "Your code is 123456"},
    }
    return {name: value for name, value in {**body, **changes}.items() if value is not ...}


def first_one(
    fallback: dict[str, Any] | None = None,
    *,
    mode: Mode = Mode.LIVE,
    keys: RequestKeys = NO_KEYS,
    rules: ApiRules = RULES,
    **changes: Any,
) -> NewNotification:
    """A validated submit with a fallback."""
    body = submit_body(fallback=fallback_body() if fallback is None else fallback, **changes)
    sender = Sender(DEFAULT_TENANT, mode)
    new = SubmitValidator(rules).validate(msgspec.json.encode(body), sender, keys)
    assert isinstance(new, NewNotification)
    return new


class Process:
    """The part of an API process that submits fallbacks. `cut` says where its next pass ends."""

    def __init__(self, fallbacks: PostgresFallbacks, accept: Accept) -> None:
        self._fallbacks = fallbacks
        self.accept = accept
        self.cut = Cut.NOWHERE
        self.earlier = accept.earlier
        self.take = fallbacks.take
        self.begin = fallbacks.begin

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Reply | Refusal]:
        if self.cut is Cut.BEFORE_SUBMIT:
            raise ProcessEnded
        replies = await self.accept.submit(items)
        if self.cut is Cut.AFTER_SUBMIT:
            raise ProcessEnded
        if self.cut is Cut.SUBMIT_ANSWER:
            raise StoreUnavailable("the answer was lost")
        return replies

    async def settle(self, results: Sequence[FallbackResult]) -> Collection[NotificationId]:
        settled = await self._fallbacks.settle(results)
        if self.cut is Cut.SETTLE_ANSWER:
            raise StoreUnavailable("the answer was lost")
        return settled


class RunningProcess(NamedTuple):
    process: Process
    runner: FallbackRunner
    metrics: Metrics
    store: PostgresStore

    async def run(self, cut: Cut = Cut.NOWHERE) -> int:
        """Make a pass; returns how many fallbacks were settled, 0 if the process was cut off."""
        self.process.cut = cut
        try:
            return await self.runner.run_once()
        except* ProcessEnded:
            pass
        finally:
            self.process.cut = Cut.NOWHERE
        return 0

    async def submit(self, *items: NewNotification) -> None:
        for reply in await self.process.accept.submit(items):
            assert not isinstance(reply, Exception), reply

    def outcomes(self) -> dict[str, float]:
        """How many fallbacks had which outcome, without those that none had."""
        counts = {
            outcome.value: self.metrics.registry.get_sample_value(
                "notifier_fallbacks_total", {"outcome": outcome.value}
            )
            for outcome in FallbackOutcome
        }
        return {name: count for name, count in counts.items() if count}


class World(NamedTuple):
    """Postgres as the processes and people see it."""

    url: str
    connection: Connection
    reader: PostgresReader
    suppressions: PostgresSuppressions
    templates: PostgresTemplates
    start: datetime

    async def set_time(self, after: timedelta) -> datetime:
        """Make it so long after `start`."""
        now = self.start + after
        await set_date(self.connection, now)
        return now

    async def view(self, id_: NotificationId, mode: Mode = Mode.LIVE) -> NotificationView:
        view = await self.reader.get(id_, view=View(mode=mode), with_content=True)
        assert view is not None
        return view

    async def second_of(self, item: NewNotification) -> NotificationView | None:
        """What was submitted as the fallback of this one, None if nothing was."""
        view = await self.view(item.id, item.mode)
        assert view.fallback is not None
        second = view.fallback.notification
        return None if second is None else await self.view(second, item.mode)

    async def stored(self) -> int:
        """How many notifications there are."""
        count: int = await self.connection.fetchval("SELECT count(*) FROM notifications")
        return count

    @asynccontextmanager
    async def open_process(
        self, rules: ApiRules = RULES, known: Collection[str] = KNOWN_FIELDS
    ) -> AsyncIterator[RunningProcess]:
        settings = ConnectionSettings(url=self.url)
        metrics = Metrics(QUEUES, {}, version="0")
        features = WorkerFeatures(metrics)
        features.beat_succeeded([])
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(settings, worker_id()))
            fallbacks = await stack.enter_async_context(open_fallbacks(settings, known))
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
            preparation = TenantPreparation(
                preparation=SubmitPreparation(
                    rules=rules, filling=filling, blobs=SubmitBlobs(blobs, rules)
                ),
                keyring=None,
                rules=rules,
            )
            process = Process(fallbacks, accept)
            submitter = FallbackSubmits(acceptor=process, preparation=preparation)
            runner = FallbackRunner(store=process, submitter=submitter, observer=metrics)
            yield RunningProcess(process, runner, metrics, store)


@asynccontextmanager
async def open_world(url: str, connection: Connection) -> AsyncIterator[World]:
    """A database whose time runs from now on, until a test moves it."""
    await let_tests_choose_the_date(connection)
    start = datetime.now(UTC)
    settings = ConnectionSettings(url=url)
    async with open_connection(settings) as other, open_reader(settings) as reader:
        yield World(
            url=url,
            connection=connection,
            reader=reader,
            suppressions=PostgresSuppressions(other),
            templates=PostgresTemplates(other),
            start=start,
        )
