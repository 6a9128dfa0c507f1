"""A deployment in memory: the rows are in a real Postgres, broker and workers are lists.

So a message can be lost or duplicated, and a worker can die, between any two statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import asyncpg
from prometheus_client import CollectorRegistry

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import (
    PostgresStore,
    StoreConnections,
    open_store_connections,
)
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.delivery_rules import DeliveryRules, ProviderBinding
from notifier.domain.due import DueClass
from notifier.domain.notification import Claimed, NotificationId, Status, WorkerId
from notifier.domain.outcome import Accepted, Outcome
from notifier.domain.retry import AmbiguityRule, OnAmbiguous, RetryPolicy
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import DeadProcess
from notifier.ports.provider import Envelope
from notifier.ports.store import ClaimRequest
from notifier.recovery.orphans import OrphanRecovery
from tests.builders import EMAIL_HIGH, QUEUES, SMS_HIGH
from tests.doubles import FixedProcesses, FixedTerms

T = TypeVar("T")

ON_AMBIGUOUS: Final = {
    EMAIL_HIGH.channel: OnAmbiguous.RESEND,
    SMS_HIGH.channel: OnAmbiguous.HOLD,
}
POLICY: Final = RetryPolicy(
    base=timedelta(seconds=10), factor=2.0, cap=timedelta(minutes=5), tries=4
)
TABLES: Final = ("notifications", "live", "attempts", "ends", "workers")
AGE_LIVE: Final = """
    UPDATE live SET
        created_at = created_at - $1::interval, due_at = due_at - $1::interval,
        ready_at = ready_at - $1::interval, expires_at = expires_at - $1::interval
"""
AGE_NOTIFICATIONS: Final = """
    UPDATE notifications SET
        created_at = created_at - $1::interval, expires_at = expires_at - $1::interval
"""
SELECT_ROWS: Final = """
    SELECT n.id, l.id IS NOT NULL AS is_live, e.id IS NOT NULL AS is_ended,
           EXISTS (SELECT FROM attempts a WHERE a.id = n.id AND a.outcome = 'accepted')
               AS is_accepted,
           coalesce(l.claim, e.claim) AS claim, coalesce(l.tries, e.tries) AS tries,
           l.deaths, l.class, l.due_at, l.due_at <= now() AS is_due,
           nullif(l.claimed_by, '00000000-0000-0000-0000-000000000000') AS claimed_by,
           e.status::text AS end_status
    FROM notifications n
    LEFT JOIN live l ON l.id = n.id
    LEFT JOIN ends e ON e.id = n.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What Postgres has of a notification.

    `claim` and `tries` are None once it is sent; `deaths`, `due_class` and `due_at` are None once
    it is final. A row that waits beyond its `expires_at` has the status it had before.
    What changes by itself with time is not compared.
    """

    status: Status = field(compare=False)
    is_live: bool
    is_ended: bool
    claim: int | None
    tries: int | None
    deaths: int | None
    due_class: DueClass | None
    due_at: datetime | None
    is_due: bool = field(compare=False)
    claimed_by: WorkerId | None


@dataclass(slots=True, eq=False)
class HeldMessage:
    """A message that a worker holds. `claimed` is None if the reply to its claim was lost.

    `is_stale` means that the worker was frozen since the claim: it starts no call for it.
    """

    pointer: Pointer
    claimed: Claimed | None
    is_sent: bool = False
    is_stale: bool = False


@dataclass(slots=True, eq=False)
class Worker:
    """One process: the messages it holds, and whether it runs or is frozen.

    `orphans` are claims that it will not begin and has not given back.
    """

    store: PostgresStore
    beat: int = 1
    is_frozen: bool = False
    messages: list[HeldMessage] = field(default_factory=list)
    orphans: set[ClaimRequest] = field(default_factory=set)

    @property
    def id(self) -> WorkerId:
        return self.store.worker


class UncalledProvider:
    """A provider that the rules name and that is never called."""

    name = "smtp"

    async def send(self, envelope: Envelope) -> Outcome:
        return Accepted(code=str(envelope.claim))


class Database:
    """One real Postgres for all runs, driven step by step."""

    def __init__(
        self,
        runner: asyncio.Runner,
        connections: StoreConnections,
        connection: asyncpg.Connection[asyncpg.Record],
    ) -> None:
        self._runner = runner
        self._connections = connections
        self._connection = connection
        self._metrics = Metrics(
            QUEUES,
            {channel: ["smtp"] for channel in ON_AMBIGUOUS},
            version="0",
            registry=CollectorRegistry(),
        )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def clear(self) -> None:
        for table in TABLES:
            self._execute(f"DELETE FROM {table}")

    def store(self, worker: WorkerId) -> PostgresStore:
        """Return a worker's store. All workers share the connections, one step at a time."""
        return PostgresStore(worker, self._connections)

    def beat(self, worker: Worker) -> None:
        self._execute(
            """
            INSERT INTO workers (id, kind, host, pid, beat, figures)
            VALUES ($1, 'worker', 'h', 1, $2, '{}')
            ON CONFLICT (id) DO UPDATE SET beat = excluded.beat
            """,
            worker.id,
            worker.beat,
        )

    def forget(self, worker: Worker) -> None:
        self._execute("DELETE FROM workers WHERE id = $1", worker.id)

    def settle_orphans(
        self, worker: Worker, live: Collection[WorkerId], dead: Sequence[DeadProcess]
    ) -> None:
        """Run the real orphan recovery once, as the holder of all leases."""
        orphan_recovery = OrphanRecovery(
            store=worker.store,
            observer=self._metrics,
            leases=FixedTerms(dict.fromkeys(QUEUES, 1)),
            processes=FixedProcesses(live, dead),
            rules=DeliveryRules(
                bindings={
                    channel: ProviderBinding(
                        provider=UncalledProvider(),
                        ambiguity=AmbiguityRule(on_ambiguous=on_ambiguous),
                    )
                    for channel, on_ambiguous in ON_AMBIGUOUS.items()
                },
                policies=dict.fromkeys((queue.priority for queue in QUEUES), POLICY),
            ),
        )
        self.run(orphan_recovery.run_once())

    def advance_time(self, span: timedelta) -> None:
        """Make all rows older: Postgres's clock cannot be changed."""
        self._execute(AGE_LIVE, span)
        self._execute(AGE_NOTIFICATIONS, span)

    def make_all_due(self) -> None:
        """End every wait for a retry and for a schedule."""
        self._execute("UPDATE live SET due_at = now() WHERE due_at > now()")

    def rows(self) -> dict[NotificationId, Row]:
        return {
            NotificationId(row["id"]): _row(row)
            for row in self.run(self._connection.fetch(SELECT_ROWS))
        }

    def _execute(self, sql: str, *args: object) -> None:
        self.run(self._connection.execute(sql, *args))


def _row(row: asyncpg.Record) -> Row:
    return Row(
        status=_status(row),
        is_live=row["is_live"],
        is_ended=row["is_ended"],
        claim=row["claim"],
        tries=row["tries"],
        deaths=row["deaths"],
        due_class=None if row["class"] is None else DueClass(row["class"]),
        due_at=row["due_at"],
        is_due=row["is_due"] is True,
        claimed_by=row["claimed_by"],
    )


def _status(row: asyncpg.Record) -> Status:
    """The status, but of a row that waits beyond its `expires_at` the one before."""
    if row["is_live"]:
        if row["claimed_by"] is not None:
            return Status.SENDING
        if row["is_due"]:
            return Status.QUEUED
        return Status.RETRYING if row["class"] == DueClass.RETRY else Status.SCHEDULED
    if row["is_ended"]:
        return Status(row["end_status"])
    return Status.SENT if row["is_accepted"] else Status.LOST


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    """A database with its own event loop, separate from those of other tests."""
    settings = ConnectionSettings(url=url)
    stack = AsyncExitStack()

    async def opened(runner: asyncio.Runner) -> Database:
        connections = await stack.enter_async_context(open_store_connections(settings))
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        return Database(runner, connections, connection)

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            yield runner.run(opened(runner))
        finally:
            runner.run(stack.aclose())
