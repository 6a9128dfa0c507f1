"""A deployment in memory: the rows are in a real Postgres, broker and processes are lists.

So a message can be lost or duplicated, and a process can die, between any two statements.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import asyncpg

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import (
    PostgresStore,
    StoreConnections,
    open_store_connections,
)
from notifier.delivery.cursor import QueueCursor
from notifier.domain.holds import PauseParking
from notifier.domain.notification import Claimed, NewNotification, NotificationId, WorkerId
from notifier.ports.broker import Pointer
from notifier.ports.leases import Progress
from notifier.ports.store import AttemptResult, ClaimRequest, DueRead
from tests.builders import EMAIL_HIGH, worker_id

T = TypeVar("T")

QUEUE: Final = EMAIL_HIGH
OPEN_ACCEPTS: Final = 2
"""How many accepts may be stored and not committed at a time."""
# Postgres's own clock cannot be changed. Functions of the same names hide it from all statements.
VIRTUAL_CLOCK: Final = """
    CREATE SCHEMA virtual;
    CREATE TABLE virtual.clock (ahead interval NOT NULL);
    INSERT INTO virtual.clock VALUES ('0');
    CREATE FUNCTION virtual.now() RETURNS timestamptz STABLE LANGUAGE sql AS
        'SELECT pg_catalog.now() + ahead FROM virtual.clock';
    CREATE FUNCTION virtual.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql AS
        'SELECT pg_catalog.clock_timestamp() + ahead FROM virtual.clock';
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path = virtual, pg_catalog, public',
                       current_database());
    END $$
"""
SELECT_ROWS: Final = """
    SELECT coalesce(n.id, l.id) AS id, n.id IS NOT NULL AS is_stored,
           l.id IS NOT NULL AS is_live, l.claim, l.claimed_by, l.class, l.tries, l.deaths, l.due_at,
           (l.due_at <= now()) IS TRUE AS is_due, (l.expires_at <= now()) IS TRUE AS is_expired,
           n.recipient = '' AS is_erased, octet_length(n.content) > 0 AS has_content,
           EXISTS (SELECT FROM attempts a WHERE a.id = n.id AND a.detail <> '') AS has_details,
           e.status::text AS end_status, e.claim AS end_claim,
           EXISTS (SELECT FROM attempts a WHERE a.id = n.id AND a.outcome = 'accepted')
               AS is_accepted
    FROM notifications n FULL JOIN live l ON l.id = n.id LEFT JOIN ends e ON e.id = n.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What Postgres holds of a notification."""

    is_stored: bool
    is_live: bool
    claim: int | None
    claimed_by: WorkerId | None
    tries: int | None
    deaths: int | None
    due_at: datetime | None
    is_due: bool
    is_expired: bool
    is_erased: bool
    has_content: bool
    has_details: bool
    end_status: str | None
    end_claim: int | None
    is_accepted: bool

    @property
    def is_claimed(self) -> bool:
        return self.claimed_by is not None and self.claimed_by.int != 0

    @property
    def is_waiting(self) -> bool:
        return self.is_live and not self.is_claimed


@dataclass(slots=True, eq=False)
class HeldRow:
    """A row that a worker claimed. `claimed` is None if the answer to its claim was lost.

    `is_stale` means that the worker was frozen since the claim: it starts no call for it.
    """

    pointer: Pointer
    claimed: Claimed | None
    is_sent: bool = False
    is_stale: bool = False


@dataclass(slots=True, eq=False)
class Worker:
    """One process that sends: the rows it holds, and whether it runs or is frozen."""

    store: PostgresStore
    beat: int = 1
    is_frozen: bool = False
    rows: list[HeldRow] = field(default_factory=list)

    @property
    def id(self) -> WorkerId:
        return self.store.worker


@dataclass(slots=True, eq=False)
class Holder:
    """A process that publishes the queue, as long as it believes to hold the lease in `term`."""

    term: int = -1
    cursor: QueueCursor | None = None
    read: DueRead | None = None


@dataclass(slots=True)
class StoredLease:
    """The lease as it is in Postgres. `progress` may be behind that of its holder."""

    holder: Holder | None = None
    term: int = 0
    progress: Progress = field(default_factory=Progress)


@dataclass(slots=True, eq=False)
class OpenAccept:
    """An accept that is stored and not committed, in the session with this number.

    `began_at` is of the monotonic clock.
    """

    session: int
    items: Sequence[NewNotification]
    is_direct: bool
    pointers: Sequence[Pointer]
    began_at: float


@dataclass(frozen=True, slots=True)
class RecordedResult:
    """A result that a worker has recorded, to be recorded again."""

    worker: Worker
    result: AttemptResult


@dataclass(frozen=True, slots=True)
class LateClaim:
    """A claim that is still under way while its worker has given it up.

    `pauses` are those that the worker knew of; None: that there was no hold.
    """

    worker: Worker
    request: ClaimRequest
    pauses: Sequence[PauseParking] | None


class Database:
    """One real Postgres for all runs, driven step by step, with a clock that can be set."""

    def __init__(
        self,
        runner: asyncio.Runner,
        connections: StoreConnections,
        sessions: Sequence[PostgresConnection],
        connection: asyncpg.Connection[asyncpg.Record],
    ) -> None:
        self._runner = runner
        self._connections = connections
        self._sessions = sessions
        self._connection = connection
        self._ahead_s = 0.0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def clear(self) -> None:
        for session in self._sessions:
            self.run(session.fetch("ROLLBACK"))
        for table in ("notifications", "live", "attempts", "ends", "workers", "parked"):
            self.execute(f"DELETE FROM {table}")

    def store(self, worker: WorkerId) -> PostgresStore:
        """Return a worker's store. All workers share the connections, one step at a time."""
        return PostgresStore(worker, self._connections)

    def begin_insert(
        self, session: int, items: Sequence[NewNotification], direct: set[NotificationId]
    ) -> Sequence[Pointer]:
        """Store notifications in a transaction that stays open."""
        store = PostgresStore(
            worker_id(), self._connections._replace(accept=self._sessions[session])
        )
        self.run(self._sessions[session].fetch("BEGIN"))
        return self.run(store.insert(items, direct=direct))

    def commit(self, session: int) -> None:
        self.run(self._sessions[session].fetch("COMMIT"))

    def beat(self, worker: Worker) -> None:
        self.execute(
            """
            INSERT INTO workers (id, kind, host, pid, beat, figures)
            VALUES ($1, 'worker', 'h', 1, $2, '{}')
            ON CONFLICT (id) DO UPDATE SET beat = excluded.beat
            """,
            worker.id,
            worker.beat,
        )

    def forget(self, worker: Worker) -> None:
        self.execute("DELETE FROM workers WHERE id = $1", worker.id)

    def monotonic(self) -> float:
        """The monotonic clock of all processes, in seconds."""
        return time.monotonic() + self._ahead_s

    def advance_time(self, seconds: float) -> None:
        self.set_clock(seconds)
        self._ahead_s += seconds

    def set_clock(self, seconds: float) -> None:
        """Set Postgres's clock forward, or back, beside the monotonic one."""
        self.execute("UPDATE virtual.clock SET ahead = ahead + $1", timedelta(seconds=seconds))

    def now(self) -> datetime:
        """Postgres's clock."""
        now: datetime = self.run(self._connection.fetchval("SELECT now()"))
        return now

    def rows(self) -> dict[NotificationId, Row]:
        return {
            NotificationId(row["id"]): Row(**{name: row[name] for name in Row.__slots__})
            for row in self.run(self._connection.fetch(SELECT_ROWS))
        }

    def stored_rows(self) -> dict[NotificationId, Row]:
        """Return the rows without what changes with the time."""
        return {id_: replace(row, is_due=False) for id_, row in self.rows().items()}

    def ids(self, sql: str, *args: object) -> list[NotificationId]:
        """Run a statement that returns ids."""
        return [NotificationId(row["id"]) for row in self.run(self._connection.fetch(sql, *args))]

    def erase(self, id_: NotificationId) -> None:
        """Run the statements of an erasure's step, in one transaction."""

        async def erase() -> None:
            now = await self._connection.fetchval("SELECT now() + interval '1 day'")
            async with self._connection.transaction():
                await self._connection.fetch(statement("erase_lock"), [id_], id_, id_, now)
                await self._connection.fetch(statement("sweep"), [id_])
                await self._connection.fetch(statement("erase_end"), [id_])
                await self._connection.fetch(statement("erase_wipe"), [id_], id_, id_)

        self.run(erase())

    def execute(self, sql: str, *args: object) -> None:
        self.run(self._connection.execute(sql, *args))


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    """A database with its own event loop, separate from those of other tests."""
    settings = ConnectionSettings(url=url)
    stack = AsyncExitStack()

    async def opened(runner: asyncio.Runner) -> Database:
        first = await asyncpg.connect(url)
        await first.execute(VIRTUAL_CLOCK)
        await first.close()
        connections = await stack.enter_async_context(open_store_connections(settings))
        sessions = [
            await stack.enter_async_context(open_connection(settings)) for _ in range(OPEN_ACCEPTS)
        ]
        for session in sessions:  # a busy machine must not end a transaction that waits
            await session.fetch("SET idle_in_transaction_session_timeout = 0")
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        return Database(runner, connections, sessions, connection)

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            yield runner.run(opened(runner))
        finally:
            runner.run(stack.aclose())
