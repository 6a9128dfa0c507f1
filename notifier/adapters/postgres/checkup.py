"""Looks at a Postgres, over one connection, and changes nothing: every question is read-only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg

from notifier.adapters.postgres import diagnosis
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.diagnosis import Lack, Server
from notifier.adapters.postgres.statements import statement
from notifier.domain.errors import ConfigError, NotifierError, StoreUnavailable
from notifier.domain.finding import Finding, unchecked, wrong
from notifier.scheduling.cluster.failure_detector import DEAD_AFTER_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

WITHIN_S: Final = 5.0
DAILY: Final = ("notifications", "attempts", "failures")
TABLES: Final = (*DAILY, "workers", "provider_rates", "breakers", "pauses")
FUNCTIONS: Final = ("ensure_days(integer)", "drop_day(date)")
"""What the role of a process needs: all of the tables' rows, and to call the functions."""

_OF_TABLES: Final = (diagnosis.RIGHTS, diagnosis.DAYS, diagnosis.PROCESSES, diagnosis.CONNECTIONS)
_OF_SERVER: Final = (diagnosis.VERSION, diagnosis.CLOCK, diagnosis.DURABILITY, diagnosis.MIGRATIONS)


class _Unanswered(Exception):
    """There was no answer to a question, and why."""


class _Questions:
    """One statement at a time, each within 5 s; none any more once Postgres is gone."""

    def __init__(self, link: PostgresConnection) -> None:
        self._link = link
        self._is_gone = False

    async def ask(self, sql: str, *args: object) -> Sequence[asyncpg.Record]:
        """The rows. Raises _Unanswered, its cause the error."""
        if self._is_gone:
            raise _Unanswered("Postgres stopped answering")
        try:
            async with asyncio.timeout(WITHIN_S):
                return await self._read(sql, *args)
        except (StoreUnavailable, TimeoutError) as error:
            self._is_gone = True
            raise _Unanswered(_reason(error)) from error
        except (NotifierError, asyncpg.PostgresError) as error:
            raise _Unanswered(_reason(error)) from error

    async def _read(self, sql: str, *args: object) -> Sequence[asyncpg.Record]:
        async with self._link.use() as connection, connection.transaction(readonly=True):
            return await connection.fetch(sql, *args)


async def examine_postgres(
    settings: ConnectionSettings,
    *,
    place: str,
    revisions: Sequence[str],
    clock: Callable[[], float],
) -> list[Finding]:
    """All there is to say of a Postgres; `place` is its URL as it may be shown.

    `revisions` are the known ones, oldest first; `clock` is this machine's, seconds since the
    epoch. Raises nothing for what is wrong with the server.
    """
    async with open_connection(settings) as link:
        questions = _Questions(link)
        try:
            (row,) = await questions.ask(statement("checkup_server"))
        except _Unanswered as error:
            return _unreachable(error, place)
        server = Server(**row)
        findings = [
            diagnosis.of_reach(server, place),
            diagnosis.of_version(server),
            await _asked(diagnosis.CLOCK, _clock(questions, clock)),
            diagnosis.of_durability(server),
        ]
        return findings + await _schema(questions, server, revisions)


async def _schema(questions: _Questions, server: Server, revisions: Sequence[str]) -> list[Finding]:
    try:
        (table,) = await questions.ask(statement("checkup_revision"))
    except _Unanswered as error:
        return _all_unchecked((diagnosis.MIGRATIONS, *_OF_TABLES), str(error))
    if not table["is_there"]:
        without = _all_unchecked(_OF_TABLES, "there are no tables of ours")
        return [diagnosis.of_migrations(None, revisions), *without]
    migrations = (
        await _asked(diagnosis.MIGRATIONS, _migrations(questions, revisions))
        if table["may_read"]
        else diagnosis.of_hidden_migrations(server.role)
    )
    return [migrations, *await _tables(questions, server)]


async def _tables(questions: _Questions, server: Server) -> list[Finding]:
    findings = [
        await _asked(diagnosis.RIGHTS, _rights(questions, server.role)),
        await _asked(diagnosis.DAYS, _days(questions)),
    ]
    try:
        counts = await _counts(questions)
    except _Unanswered as error:
        rest = (diagnosis.PROCESSES, diagnosis.CONNECTIONS)
        return findings + _all_unchecked(rest, str(error))
    return [
        *findings,
        diagnosis.of_processes(counts),
        diagnosis.of_connections(server, counts),
    ]


async def _clock(questions: _Questions, clock: Callable[[], float]) -> Finding:
    asked_at = clock()
    (row,) = await questions.ask("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    return diagnosis.of_clock((asked_at + clock()) / 2 - row["now"])


async def _migrations(questions: _Questions, revisions: Sequence[str]) -> Finding:
    rows = await questions.ask("SELECT version_num FROM alembic_version")
    return diagnosis.of_migrations(rows[0]["version_num"] if rows else None, revisions)


async def _rights(questions: _Questions, role: str) -> Finding:
    rows = await questions.ask(statement("checkup_rights"), TABLES, FUNCTIONS)
    return diagnosis.of_rights([Lack(**row) for row in rows], role)


async def _days(questions: _Questions) -> Finding:
    rows = await questions.ask(statement("checkup_days"), DAILY, diagnosis.DAYS_AHEAD)
    return diagnosis.of_days(row["ahead"] for row in rows)


async def _counts(questions: _Questions) -> Mapping[str, int]:
    rows = await questions.ask(statement("checkup_processes"), DEAD_AFTER_S)
    return {row["kind"]: row["count"] for row in rows}


async def _asked(check: str, finding: Awaitable[Finding]) -> Finding:
    """The finding, or that the question got no answer."""
    try:
        return await finding
    except _Unanswered as error:
        return unchecked(check, str(error))


def _unreachable(error: _Unanswered, place: str) -> list[Finding]:
    reach = wrong(diagnosis.REACH, f"{place}: {error}", _how_to_reach(error.__cause__))
    return [reach, *_all_unchecked((*_OF_SERVER, *_OF_TABLES), "Postgres cannot be asked")]


def _how_to_reach(error: BaseException | None) -> str:
    if isinstance(error, ConfigError):
        return "correct user, password or database in NOTIFIER_DATABASE_URL"
    if error is not None and isinstance(error.__cause__, asyncpg.TooManyConnectionsError):
        return "raise max_connections, or run fewer processes"
    return "start it, open the way to it, or correct NOTIFIER_DATABASE_URL"


def _all_unchecked(checks: Sequence[str], because: str) -> list[Finding]:
    return [unchecked(check, because) for check in checks]


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return f"no answer within {WITHIN_S:g} s"
    return str(error) or type(error).__name__
