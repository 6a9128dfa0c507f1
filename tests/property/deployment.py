"""A deployment in small, for stories: the real store, a broker that is a list, workers that die.

Every statement of the store is followed by a look at all rows, which the ledger judges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self, TypeVar

from prometheus_client import CollectorRegistry

from notifier.adapters.postgres.heartbeat import PostgresHeartbeat
from notifier.adapters.postgres.link import Link, LinkSettings, open_link
from notifier.adapters.postgres.store import Links, PostgresStore
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.attempt import Route
from notifier.delivery.dead import DeadWorkers
from notifier.domain.notification import Channel, Claimed, NotificationId, Priority, WorkerId
from notifier.domain.outcome import Accepted, Outcome
from notifier.domain.retry import OnAmbiguous, RetryPolicy
from notifier.ports import Envelope, Figures, Pointer, Result
from tests.builders import EMAIL_HIGH, SMS_HIGH, worker_id
from tests.property.ledger import Ledger, Row

T = TypeVar("T")
STORY_QUEUES = (EMAIL_HIGH, SMS_HIGH)
ON_AMBIGUOUS = {Channel("email"): OnAmbiguous.RESEND, Channel("sms"): OnAmbiguous.HOLD}
POLICY = RetryPolicy(base=timedelta(seconds=1), factor=2.0, cap=timedelta(minutes=1), tries=4)
ROWS = """
    SELECT id, status::text AS status, claim, claimed_by, due_at, published_at, rescues,
           extract(epoch FROM now() - published_at)::float8 AS out_s
    FROM notifications"""
LATER = """
    UPDATE notifications SET
        created_at = created_at - $1::interval, updated_at = updated_at - $1::interval,
        expires_at = expires_at - $1::interval, ready_at = ready_at - $1::interval,
        due_at = due_at - $1::interval, published_at = published_at - $1::interval"""


class Untold:
    """A provider that is named and never called: the story says what it answers."""

    name = "smtp"

    async def send(self, envelope: Envelope) -> Outcome:
        return Accepted(code=str(envelope.claim))


class Alive:
    """The pulse of who looks after the dead."""

    def is_alive(self) -> bool:
        return True

    async def until_alive(self) -> None:
        return


@dataclass
class Worker:
    """One process: its store, what it has claimed and not begun, what it has to record."""

    store: PostgresStore
    in_hand: list[Claimed] = field(default_factory=list)
    results: list[tuple[Result, float]] = field(default_factory=list)

    @property
    def id(self) -> WorkerId:
        return self.store.worker

    @property
    def is_busy(self) -> bool:
        return bool(self.in_hand or self.results)

    def is_busy_with(self, id_: NotificationId) -> bool:
        return id_ in {*(one.id for one in self.in_hand), *(one.id for one, _ in self.results)}


class Deployment:
    """All that a story acts upon. `messages` is the broker: what is doubled is in it twice."""

    def __init__(self, runner: asyncio.Runner, links: Links, watch: Link) -> None:
        self._runner, self._links, self._watch = runner, links, watch
        self.ledger = Ledger()
        self.messages: list[Pointer] = []
        self.unconfirmed: list[Pointer] = []
        self.living: list[Worker] = []
        self.gone: list[Worker] = []
        self.relay = PostgresStore(worker_id(), links)
        self.undertaker = self._dead_workers()
        self.run(watch.fetch("TRUNCATE notifications, attempts, failures, workers"))

    @classmethod
    @contextmanager
    def on(cls, url: str) -> Iterator[Callable[[], Self]]:
        """What makes a fresh deployment for each story, over the same connections."""
        with asyncio.Runner() as runner:
            stack = AsyncExitStack()
            settings = LinkSettings(url=url)

            async def opened() -> list[Link]:
                links = range(len(Links._fields) + 1)
                return [await stack.enter_async_context(open_link(settings)) for _ in links]

            *links, watch = runner.run(opened())
            try:
                yield lambda: cls(runner, Links(*links), watch)
            finally:
                runner.run(stack.aclose())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def do(self, work: Coroutine[Any, Any, T], **known: Any) -> T:
        """One statement of the store, and then a look; `known` is what explains a change."""
        answer = self.run(work)
        self.ledger.look(self.rows(), **known)
        return answer

    def rows(self) -> dict[NotificationId, Row]:
        return {row["id"]: Row(**row) for row in self.run(self._watch.fetch(ROWS))}

    def pass_time(self, span: timedelta) -> None:
        """Let all that is stored become older; `now()` stays what it is."""
        self.run(self._watch.fetch(LATER, span))
        for pointers in (self.messages, self.unconfirmed):
            pointers[:] = [
                replace(one, published_at=one.published_at - span.total_seconds())
                for one in pointers
            ]
        self.ledger.look(self.rows())

    # ---- who lives ------------------------------------------------------------------------------

    def start_worker(self) -> Worker:
        worker = Worker(PostgresStore(worker_id(), self._links))
        self.run(self._beat(worker.id, 1))
        self.living.append(worker)
        self.ledger.workers.add(worker.id)
        return worker

    def kill(self, worker: Worker, *, leaves_row: bool) -> None:
        """It ends, or freezes, with all it holds. What it had begun may be recorded late."""
        self.living.remove(worker)
        self.gone.append(worker)
        self.ledger.dead.add(worker.id)
        if not leaves_row:
            self.run(self._watch.fetch("DELETE FROM workers WHERE id = $1", worker.id))

    def thaw(self, worker: Worker) -> None:
        """It was frozen, and continues: what it had not begun goes back unspent."""
        self.run(self._beat(worker.id, 2))
        self.gone.remove(worker)
        self.living.append(worker)
        self.ledger.dead.remove(worker.id)

    def _silent(self) -> list[tuple[WorkerId, int]]:
        return [(worker.id, beat) for worker in self.gone for beat in (1, 2)]

    def _beat(self, worker: WorkerId, beat: int) -> Coroutine[Any, Any, object]:
        figures = Figures(queues={}, providers={})
        return PostgresHeartbeat(worker, self._watch).beat(
            kind="worker", host="h", pid=1, beat=beat, figures=figures
        )

    def _dead_workers(self) -> DeadWorkers:
        registry = CollectorRegistry()
        providers: dict[Channel, Sequence[str]] = {channel: ["smtp"] for channel in ON_AMBIGUOUS}
        return DeadWorkers(
            store=self.relay,
            observer=Metrics(STORY_QUEUES, providers, version="0", registry=registry),
            silent=self._silent,
            pulse=Alive(),
            routes={
                channel: Route(provider=Untold(), on_ambiguous=on_ambiguous)
                for channel, on_ambiguous in ON_AMBIGUOUS.items()
            },
            policies=dict.fromkeys(Priority, POLICY),
        )
