"""The checks of a Postgres that `doctor` runs: over one connection, with read-only queries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from notifier.adapters.postgres import diagnosis
from notifier.adapters.postgres.access import (
    FUNCTIONS,
    PARTITIONED_TABLES,
    TABLES,
    PooledConnection,
    require_own_sessions,
)
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.controls import KINDS, breaker_of, pause_of
from notifier.adapters.postgres.diagnosis import ConfiguredNames, MissingRight, Server
from notifier.adapters.postgres.reader import worker_of
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import MAX_COUNTED_DUE, MAX_LOSS_CHECKED
from notifier.domain.errors import NotifierError, StoreError, StoreRefused, StoreUnavailable
from notifier.domain.finding import Finding, not_checked, wrong
from notifier.domain.liveness import DEAD_AFTER_S, SENDING_KINDS
from notifier.ports.store import LostFound, UnconfiguredQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from notifier.lifecycle import Clock

NOBODY: Final = UUID(int=0)
QUERY_TIMEOUT_S: Final = 5.0
_TABLE_CHECKS: Final = (
    diagnosis.RIGHTS,
    diagnosis.DAYS,
    diagnosis.NOTIFICATIONS,
    diagnosis.PROCESSES,
    diagnosis.FEATURES,
    diagnosis.LEASES,
    diagnosis.CONNECTIONS,
    *diagnosis.CONFIGURATION_CHECKS,
)
_SERVER_CHECKS: Final = (
    diagnosis.VERSION,
    diagnosis.CLOCK,
    diagnosis.DURABILITY,
    diagnosis.MIGRATIONS,
)


class _QueryFailed(Exception):
    """A query returned no result; the text is the reason, the cause is the error."""


class _ReadOnlySession:
    """Runs one read-only query at a time, each within 5 s.

    After Postgres was unreachable once, all later queries fail at once.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self._is_unreachable = False

    async def fetch(self, sql: str, *args: object) -> Sequence[asyncpg.Record]:
        """Return the rows. Raises _QueryFailed."""
        if self._is_unreachable:
            raise _QueryFailed("Postgres stopped responding")
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                return await self._fetch(sql, *args)
        except StoreRefused as error:
            raise _QueryFailed(_reason(error)) from error
        except (StoreUnavailable, TimeoutError) as error:
            self._is_unreachable = True
            raise _QueryFailed(_reason(error)) from error
        except (NotifierError, asyncpg.PostgresError) as error:
            raise _QueryFailed(_reason(error)) from error

    async def _fetch(self, sql: str, *args: object) -> Sequence[asyncpg.Record]:
        async with (
            self._connection.acquire() as connection,
            connection.transaction(readonly=True),
        ):
            return await connection.fetch(sql, *args)


async def examine_postgres(
    settings: ConnectionSettings,
    *,
    shown_url: str,
    names: ConfiguredNames,
    revisions: Sequence[str],
    clock: Clock,
) -> list[Finding]:
    """Return the findings of all checks of a Postgres. Raises nothing that is wrong with it.

    `shown_url` is its URL without secrets. `names` are those of the settings, `revisions` the known
    schema revisions, oldest first. `clock` is this machine's, in seconds since the epoch.
    """
    async with open_connection(settings) as connection:
        session = _ReadOnlySession(connection)
        try:
            await _require_own_sessions(settings)
            (row,) = await session.fetch(statement("checkup_server"))
        except _QueryFailed as error:
            return _unreachable(error, shown_url)
        server = Server(**row)
        findings = [
            diagnosis.of_reach(server, shown_url),
            diagnosis.of_version(server),
            await _or_unchecked(diagnosis.CLOCK, _clock(session, clock)),
            diagnosis.of_durability(server),
        ]
        return findings + await _schema(session, server, names, revisions)


async def _schema(
    session: _ReadOnlySession, server: Server, names: ConfiguredNames, revisions: Sequence[str]
) -> list[Finding]:
    try:
        (table,) = await session.fetch(statement("checkup_revision"))
    except _QueryFailed as error:
        return _all_unchecked((diagnosis.MIGRATIONS, *_TABLE_CHECKS), str(error))
    if not table["is_there"]:
        unmigrated = _all_unchecked(_TABLE_CHECKS, "the database has no Notifier tables")
        return [diagnosis.of_migrations(None, revisions), *unmigrated]
    migrations = (
        await _or_unchecked(diagnosis.MIGRATIONS, _migrations(session, revisions))
        if table["may_read"]
        else diagnosis.of_hidden_migrations(server.role)
    )
    return [
        migrations,
        *await _tables(session, server, names.queues),
        *await _configuration(session, names),
    ]


async def _tables(
    session: _ReadOnlySession, server: Server, queues: Sequence[str]
) -> list[Finding]:
    findings = [
        await _or_unchecked(diagnosis.RIGHTS, _rights(session, server.role)),
        await _or_unchecked(diagnosis.DAYS, _days(session)),
        await _or_unchecked(diagnosis.NOTIFICATIONS, _lost(session)),
    ]
    try:
        counts = await _process_counts(session)
    except _QueryFailed as error:
        remaining = (
            diagnosis.PROCESSES,
            diagnosis.FEATURES,
            diagnosis.LEASES,
            diagnosis.CONNECTIONS,
        )
        return findings + _all_unchecked(remaining, str(error))
    return [
        *findings,
        diagnosis.of_processes(counts),
        await _or_unchecked(diagnosis.FEATURES, _features(session)),
        await _or_unchecked(diagnosis.LEASES, _leases(session, queues, counts)),
        diagnosis.of_connections(server, counts),
        *await _provider_connections(session),
    ]


async def _configuration(session: _ReadOnlySession, names: ConfiguredNames) -> list[Finding]:
    """Compare what the database has with what the settings name."""
    return [
        await _or_unchecked(diagnosis.CHANNELS, _channels(session, names)),
        await _or_unchecked(diagnosis.PAUSES, _pauses(session, names)),
        await _or_unchecked(diagnosis.BREAKERS, _breakers(session, names)),
        await _or_unchecked(diagnosis.DEPLOYMENTS, _deployments(session)),
        await _or_unchecked(diagnosis.KEYS, _keys(session, names)),
        await _or_unchecked(diagnosis.SCHEDULES, _schedules(session)),
        await _or_unchecked(diagnosis.FALLBACKS, _fallbacks(session)),
        await _or_unchecked(diagnosis.RECEIPTS, _receipts(session)),
    ]


async def _channels(session: _ReadOnlySession, names: ConfiguredNames) -> Finding:
    rows = await session.fetch(statement("unconfigured"), names.queues, MAX_COUNTED_DUE)
    return diagnosis.of_channels([UnconfiguredQueue(**row) for row in rows])


async def _pauses(session: _ReadOnlySession, names: ConfiguredNames) -> Finding:
    rows = await session.fetch(statement("checkup_pauses"))
    return diagnosis.of_pauses([pause_of(row) for row in rows if row["kind"] in KINDS], names)


async def _breakers(session: _ReadOnlySession, names: ConfiguredNames) -> Finding:
    rows = await session.fetch(statement("controls_breakers"), NOBODY)
    return diagnosis.of_breakers([breaker_of(row) for row in rows], names)


async def _deployments(session: _ReadOnlySession) -> Finding:
    rows = await session.fetch(statement("checkup_foreign"), DEAD_AFTER_S)
    return diagnosis.of_deployments({row["name"]: row["pointers"] for row in rows})


async def _keys(session: _ReadOnlySession, names: ConfiguredNames) -> Finding:
    rows = await session.fetch(statement("checkup_keys"))
    left_s = {row["id"]: row["left_s"] for row in rows}
    return diagnosis.of_keys(left_s, are_asked=names.asks_for_keys)


async def _schedules(session: _ReadOnlySession) -> Finding:
    (row,) = await session.fetch(statement("checkup_schedules"), diagnosis.LATE_AFTER_S)
    return diagnosis.of_schedules(**row)


async def _fallbacks(session: _ReadOnlySession) -> Finding:
    (row,) = await session.fetch(statement("checkup_fallbacks"), diagnosis.LATE_AFTER_S)
    return diagnosis.of_fallbacks(**row)


async def _receipts(session: _ReadOnlySession) -> Finding:
    (row,) = await session.fetch(
        statement("checkup_receipts"), diagnosis.UNMATCHED_AFTER_S, diagnosis.MAX_COUNTED_RECEIPTS
    )
    return diagnosis.of_receipts(**row)


async def _clock(session: _ReadOnlySession, clock: Clock) -> Finding:
    sent_at = clock()
    (row,) = await session.fetch("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    return diagnosis.of_clock((sent_at + clock()) / 2 - row["now"])


async def _migrations(session: _ReadOnlySession, revisions: Sequence[str]) -> Finding:
    rows = await session.fetch(statement("schema_revision"))
    return diagnosis.of_migrations(rows[0]["version_num"] if rows else None, revisions)


async def _rights(session: _ReadOnlySession, role: str) -> Finding:
    rows = await session.fetch(statement("missing_rights"), TABLES, FUNCTIONS)
    missing = [MissingRight(row["is_function"], row["name"], row["missing"]) for row in rows]
    return diagnosis.of_rights(missing, role)


async def _days(session: _ReadOnlySession) -> Finding:
    rows = await session.fetch(
        statement("checkup_days"), PARTITIONED_TABLES, diagnosis.MAX_DAYS_AHEAD
    )
    return diagnosis.of_days(row["ahead"] for row in rows)


async def _lost(session: _ReadOnlySession) -> Finding:
    (row,) = await session.fetch(statement("find_lost"), MAX_LOSS_CHECKED)
    return diagnosis.of_notifications(LostFound(**row))


async def _leases(
    session: _ReadOnlySession, queues: Sequence[str], counts: Mapping[str, int]
) -> Finding:
    rows = await session.fetch(statement("checkup_leases"), queues, DEAD_AFTER_S)
    return diagnosis.of_leases([row["name"] for row in rows], counts)


async def _features(session: _ReadOnlySession) -> Finding:
    rows = await session.fetch(statement("workers"))
    workers = [worker_of(row) for row in rows if row["kind"] in SENDING_KINDS]
    return diagnosis.of_features(workers)


async def _process_counts(session: _ReadOnlySession) -> Mapping[str, int]:
    rows = await session.fetch(statement("checkup_processes"), DEAD_AFTER_S)
    return {row["kind"]: row["count"] for row in rows}


async def _provider_connections(session: _ReadOnlySession) -> list[Finding]:
    """A warning per provider whose server takes fewer connections than the settings allow."""
    try:
        rows = await session.fetch(statement("checkup_connections"), DEAD_AFTER_S)
    except _QueryFailed:
        return []  # the checks before say what is wrong
    return [diagnosis.of_provider_connections(**row) for row in rows]


async def _or_unchecked(check: str, finding: Awaitable[Finding]) -> Finding:
    """Return the finding, or the finding "not checked" if its query failed."""
    try:
        return await finding
    except _QueryFailed as error:
        return not_checked(check, str(error))


async def _require_own_sessions(settings: ConnectionSettings) -> None:
    """Raise _QueryFailed behind a pooler that lends sessions; other faults the queries show."""
    try:
        async with asyncio.timeout(QUERY_TIMEOUT_S):
            await require_own_sessions(settings)
    except PooledConnection as error:
        raise _QueryFailed(str(error)) from error
    except (StoreError, TimeoutError):
        return


def _unreachable(error: _QueryFailed, shown_url: str) -> list[Finding]:
    reach = wrong(diagnosis.REACH, f"{shown_url}: {error}", _fix_for(error.__cause__))
    return [reach, *_all_unchecked((*_SERVER_CHECKS, *_TABLE_CHECKS), "Postgres cannot be reached")]


def _fix_for(error: BaseException | None) -> str:
    if isinstance(error, PooledConnection):
        return "set pool_mode = session for it, or connect to Postgres itself"
    if isinstance(error, StoreRefused):
        return "correct user, password or database in NOTIFIER_DATABASE_URL"
    if error is not None and isinstance(error.__cause__, asyncpg.TooManyConnectionsError):
        return "raise max_connections or run fewer processes"
    return "start Postgres, allow connections to it, or correct NOTIFIER_DATABASE_URL"


def _all_unchecked(checks: Sequence[str], because: str) -> list[Finding]:
    return [not_checked(check, because) for check in checks]


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return f"no answer within {QUERY_TIMEOUT_S:g} s"
    return str(error) or type(error).__name__
