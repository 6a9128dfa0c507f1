"""Whether Postgres lets this process work: sessions of its own, the schema, and all rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.adapters.postgres import diagnosis
from notifier.adapters.postgres.connection import PostgresConnection, open_connection
from notifier.adapters.postgres.diagnosis import MissingRight
from notifier.adapters.postgres.errors import HINTS, POOLER_HINT
from notifier.adapters.postgres.revisions import known_revisions
from notifier.adapters.postgres.statements import statement
from notifier.domain.errors import StoreRefused, StoreUnavailable
from notifier.domain.finding import CheckStatus

if TYPE_CHECKING:
    from notifier.adapters.postgres.connection import ConnectionSettings

PARTITIONED_TABLES: Final = ("notifications", "attempts", "ends")
TABLES: Final = (
    *PARTITIONED_TABLES,
    "live",
    "leases",
    "workers",
    "provider_rates",
    "breakers",
    "pauses",
    "keys",
    "key_rates",
    "tenants",
    "deleted_tenants",
    "audit",
    "idempotency_keys",
    "secrets",
    "holds",
    "quiet_hours",
    "parked",
    "blobs",
    "lookups",
    "suppressions",
    "collapse_keys",
    "collapsed",
    "erased_blobs",
    "scrub_positions",
    "scrub_later",
    "recipient_counts",
    "lookup_starts",
    "templates",
    "operations",
    "retries",
    "schedules",
    "turns",
    "event_batches",
    "stats",
    "stats_changes",
    "judged_tags",
    "fallbacks",
    "receipts",
    "receipts_unmatched",
    "webhooks",
    "webhook_fanout",
    "inbox_entries",
)
FUNCTIONS: Final = (
    "ensure_days(integer)",
    "drop_day(date)",
    "drop_keys(integer)",
    "drop_events(integer)",
)
"""A process's role needs SELECT, INSERT, UPDATE and DELETE on the tables, EXECUTE on the
functions."""
SAMPLES: Final = 3
"""How often one session is asked for its process: a pooler may use its connections in turn."""
STATEMENT_POOLING: Final = "pooling mode"
"""What PgBouncer answers to a transaction in statement mode."""

log = structlog.get_logger(__name__)


class PooledConnection(StoreRefused):
    """A connection pooler lends the sessions of Postgres for one transaction each."""

    def __init__(self) -> None:
        super().__init__(
            "Postgres: a connection pooler in transaction or statement mode (such as PgBouncer) "
            "answers at the database URL; Notifier keeps session settings, prepared statements and "
            "LISTEN: set pool_mode = session for it, or connect to Postgres itself"
        )


class AccessCheck:
    """The check of a process that starts, repeated until Postgres answers; later of its rights."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._is_passed = False

    async def run_once(self) -> None:
        """Check whatever has not been checked yet.

        Raises PooledConnection, StoreRefused if the schema is too old or a right is missing, and
        StoreUnavailable if Postgres does not answer.
        """
        if self._is_passed:
            return
        await require_own_sessions(self._settings)
        async with open_connection(self._settings) as connection:
            await _require_schema(connection)
            if missing := await self.missing(connection):
                raise StoreRefused(missing)
        self._is_passed = True

    async def missing(self, connection: PostgresConnection) -> str:
        """Return which tables or rights the role of a connection lacks, and the fix; "" if none."""
        rows = await connection.fetch(statement("missing_rights"), TABLES, FUNCTIONS)
        if not rows:
            return ""
        missing = [MissingRight(row["is_function"], row["name"], row["missing"]) for row in rows]
        finding = diagnosis.of_rights(missing, rows[0]["role"])
        return f"Postgres: {finding.finding} ({finding.fix})"


async def require_own_sessions(settings: ConnectionSettings) -> None:
    """Raise PooledConnection if sessions share a server process, or change it in between.

    While a second session is inside a transaction, the first one must still have its process.
    """
    try:
        async with open_connection(settings) as first, open_connection(settings) as second:
            seen = {await _server_process(first) for _ in range(SAMPLES)}
            async with second.acquire() as connection, connection.transaction():
                (row,) = await connection.fetch(statement("server_process"))
                if row["pid"] in seen:
                    raise PooledConnection
                seen.add(await _server_process(first))
    except StoreUnavailable as error:
        sqlstate = getattr(error.__cause__, "sqlstate", "")
        if HINTS.get(sqlstate) == POOLER_HINT or STATEMENT_POOLING in str(error):
            raise PooledConnection from error
        raise
    if len(seen) > 1:
        raise PooledConnection


async def _server_process(connection: PostgresConnection) -> int:
    (row,) = await connection.fetch(statement("server_process"))
    return int(row["pid"])


async def _require_schema(connection: PostgresConnection) -> None:
    """Raise StoreRefused if the schema is older than this version; a newer one is compatible."""
    (table,) = await connection.fetch(statement("checkup_revision"))
    if not table["is_there"]:
        raise StoreRefused("Postgres: the database has no Notifier tables (run `notifier migrate`)")
    if not table["may_read"]:
        return
    rows = await connection.fetch(statement("schema_revision"))
    revisions = known_revisions()
    present = rows[0]["version_num"] if rows else None
    finding = diagnosis.of_migrations(present, revisions)
    if finding.status is CheckStatus.WRONG:
        raise StoreRefused(f"Postgres: {finding.finding} (run `notifier migrate`)")
    if present not in revisions:
        log.info("schema_is_newer", revision=present, known=revisions[-1])
