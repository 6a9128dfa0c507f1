"""A deployment in memory: the rows are in a real Postgres, broker and workers are lists.

So a message can be lost or duplicated, and a worker can die, between any two statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
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
from notifier.domain.notification import Claimed, NotificationId, Status, WorkerId
from notifier.domain.outcome import Accepted, Outcome
from notifier.domain.retry import OnAmbiguous, RetryPolicy
from notifier.ports.broker import Pointer
from notifier.ports.heartbeat import DeadProcess
from notifier.ports.provider import Envelope
from notifier.recovery.orphans import OrphanRecovery
from tests.builders import EMAIL_HIGH, QUEUES, SMS_HIGH
from tests.doubles import DeadList

T = TypeVar("T")

ON_AMBIGUOUS: Final = {
    EMAIL_HIGH.channel: OnAmbiguous.RESEND,
    SMS_HIGH.channel: OnAmbiguous.HOLD,
}
POLICY: Final = RetryPolicy(
    base=timedelta(seconds=10), factor=2.0, cap=timedelta(minutes=5), tries=4
)
AGEING: Final = """
    UPDATE notifications SET
        created_at = created_at - $1::interval, updated_at = updated_at - $1::interval,
        expires_at = expires_at - $1::interval, ready_at = ready_at - $1::interval,
        due_at = due_at - $1::interval, published_at = published_at - $1::interval
"""
SELECT_ROWS: Final = """
    SELECT n.id, n.status::text AS status, n.claim, n.tries, n.deaths, n.rescues, n.claimed_by,
           n.due_at IS NOT NULL AS has_due_at, (n.due_at <= now()) IS TRUE AS is_due,
           n.published_at IS NOT NULL AS is_published, f.id IS NOT NULL AS has_failure
    FROM notifications n LEFT JOIN failures f ON f.id = n.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The columns of a notification that a step may change."""

    status: Status
    claim: int
    tries: int
    deaths: int
    rescues: int
    claimed_by: WorkerId | None
    has_due_at: bool
    is_due: bool
    is_published: bool
    has_failure: bool


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
    """One process: the messages it holds, and whether it runs or is frozen."""

    store: PostgresStore
    beat: int = 1
    is_frozen: bool = False
    messages: list[HeldMessage] = field(default_factory=list)

    @property
    def id(self) -> WorkerId:
        return self.store.worker

    def holds(self, id_: NotificationId) -> bool:
        return any(held.pointer.id == id_ for held in self.messages)


class UncalledProvider:
    """A provider that the rules name and that is never called."""

    name = "smtp"

    async def send(self, envelope: Envelope) -> Outcome:
        return Accepted(code=str(envelope.claim))


class AlwaysAlive:
    """The liveness of the process that settles the orphans."""

    def is_alive(self) -> bool:
        return True

    async def wait_until_alive(self) -> None:
        return


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
        for table in ("notifications", "attempts", "failures", "workers"):
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

    def settle_orphans(self, worker: Worker, dead: list[tuple[WorkerId, int]]) -> None:
        """Run the real orphan recovery once."""
        orphan_recovery = OrphanRecovery(
            store=worker.store,
            observer=self._metrics,
            processes=DeadList([DeadProcess(*process) for process in dead]),
            liveness=AlwaysAlive(),
            rules=DeliveryRules(
                bindings={
                    channel: ProviderBinding(provider=UncalledProvider(), on_ambiguous=on_ambiguous)
                    for channel, on_ambiguous in ON_AMBIGUOUS.items()
                },
                policies=dict.fromkeys((queue.priority for queue in QUEUES), POLICY),
            ),
        )
        self.run(orphan_recovery.run_once())

    def advance_time(self, span: timedelta) -> None:
        """Make all rows older: Postgres's clock cannot be changed."""
        self._execute(AGEING, span)

    def make_all_due(self) -> None:
        """End every wait: for a retry, for a schedule, and the longest wait for a rescue."""
        self._execute("UPDATE notifications SET due_at = now() WHERE due_at > now()")
        self._execute("UPDATE notifications SET published_at = published_at - interval '12 hours'")

    def rows(self) -> dict[NotificationId, Row]:
        return {
            NotificationId(row["id"]): Row(
                status=Status(row["status"]),
                **{name: row[name] for name in Row.__slots__ if name != "status"},
            )
            for row in self.run(self._connection.fetch(SELECT_ROWS))
        }

    def _execute(self, sql: str, *args: object) -> None:
        self.run(self._connection.execute(sql, *args))


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
