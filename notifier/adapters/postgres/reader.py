"""What the API reads from Postgres."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connections,
)
from notifier.adapters.postgres.explaining import count_before, pause_authors, read_subject
from notifier.adapters.postgres.failures import read_failure_groups
from notifier.adapters.postgres.finding import SEARCH_SETTINGS, find
from notifier.adapters.postgres.heartbeat import decode_figures
from notifier.adapters.postgres.lookups import LookupKey
from notifier.adapters.postgres.searching import search_of
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.features import ALL_FEATURES
from notifier.domain.notification import (
    AttemptView,
    FallbackView,
    NotificationView,
    QueueKey,
    ReceiptView,
    ResultView,
    Status,
    Unless,
)
from notifier.ports.heartbeat import NO_FIGURES
from notifier.ports.queries import ALL_LIVE, Page, WorkerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from datetime import datetime

    from asyncpg import Connection, Record

    from notifier.domain.controls import Pause, Scope
    from notifier.domain.due import DueClass, Position
    from notifier.domain.explanation.facts import ClassCount, Subject, WaitingRow
    from notifier.domain.failures import FailureGroups
    from notifier.domain.notification import NotificationId
    from notifier.ports.queries import Filter, View

CONNECTIONS: Final = 4
"""How many connections `open_reader` opens at most."""
_TEMPLATE: Final = re.compile(rb'\{"template":"([a-z0-9@_-]+)"')
_LOCALE: Final = re.compile(rb'\{"template":"[a-z0-9@_-]+","locale":"([A-Za-z0-9-]+)"')


class PostgresReader:
    """Implements Reader and WaitingReader of ports.queries, and ports.failures.FailureGroupReader.

    It has a few connections, which are used in turn.

    Each method reads one snapshot: status, attempts and pages belong together.
    """

    def __init__(self, connections: Sequence[PostgresConnection]) -> None:
        self._connections = cycle(connections)
        self._lookup_key = LookupKey()

    async def get(
        self,
        id: NotificationId,  # noqa: A002 the port's name
        *,
        view: View = ALL_LIVE,
        with_content: bool = False,
        with_receipts: bool = False,
    ) -> NotificationView | None:
        async with self._snapshot() as connection:
            rows = await _read(connection, [id], with_content=with_content)
            if not rows or not _is_seen(rows[0], view):
                return None
            attempts = await connection.fetch(statement("get_attempts"), id)
            receipts = None
            if with_receipts:
                receipts = await connection.fetch(statement("get_receipts"), id)
        return _notification(
            rows[0],
            tuple(map(_attempt, attempts)),
            None if receipts is None else tuple(ReceiptView(**each) for each in receipts),
        )

    async def templates_of(
        self, ids: Collection[NotificationId]
    ) -> Mapping[NotificationId, str | None]:
        async with self._snapshot() as connection:
            rows = await _read(connection, list(ids))
        return {row["id"]: _named(_TEMPLATE, row["head"]) for row in rows}

    async def notifications(self, selection: Filter) -> Page:
        async with self._snapshot() as connection:
            search = await search_of(connection, self._lookup_key, selection)
            found = await find(connection, selection, search)
            ids = found.ids[: selection.limit]
            rows = await _read(connection, ids)
        next_before = ids[-1] if len(found.ids) > len(ids) else found.floor
        views = map(_notification, rows)
        # A hash may be that of another value, and a row may have been erased since.
        return Page(views=[view for view in views if search.matches(view)], next_before=next_before)

    async def failure_groups(
        self, begin: datetime, channels: Collection[str], view: View
    ) -> FailureGroups:
        async with self._snapshot() as connection:
            return await read_failure_groups(connection, begin, channels, view)

    async def subject(
        self,
        id: NotificationId,  # noqa: A002 the port's name
        view: View,
    ) -> Subject | None:
        async with self._snapshot() as connection:
            rows = await _read(connection, [id])
            if not rows or not _is_seen(rows[0], view):
                return None
            return await read_subject(connection, rows[0])

    async def count_before(
        self, row: WaitingRow, until: Mapping[DueClass, Position]
    ) -> Mapping[DueClass, ClassCount]:
        async with next(self._connections).acquire() as connection:
            return await count_before(connection, row, until)

    async def pause_authors(self, pauses: Collection[Pause]) -> Mapping[Scope, str]:
        if not pauses:
            return {}
        async with next(self._connections).acquire() as connection:
            return await pause_authors(connection, pauses)

    async def workers(self) -> Sequence[WorkerState]:
        rows = await next(self._connections).fetch(statement("workers"))
        return list(map(worker_of, rows))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection[Record]]:
        async with (
            next(self._connections).acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection


def _is_seen(row: Record, view: View) -> bool:
    """Whether a view has the notification of a row of read_notifications.sql."""
    is_of_mode = (view.mode is Mode.TEST) == bool(row["test_channel"])
    return is_of_mode and view.tenant in {None, row["tenant"]}


async def _read(
    connection: Connection[Record], ids: Sequence[NotificationId], *, with_content: bool = False
) -> Sequence[Record]:
    if not ids:
        return []
    return await connection.fetch(
        statement("read_notifications"), ids, min(ids), max(ids), with_content
    )


def _notification(
    row: Record,
    attempts: tuple[AttemptView, ...] = (),
    receipts: tuple[ReceiptView, ...] | None = None,
) -> NotificationView:
    return NotificationView(
        id=row["id"],
        status=Status(row["status"]),
        tenant=row["tenant"],
        test_channel=row["test_channel"],
        queue=QueueKey.parse(row["queue"]),
        recipient=row["recipient"],
        content=row["content"],
        template=_named(_TEMPLATE, row["head"]),
        locale=_named(_LOCALE, row["head"]),
        metadata=row["metadata"],
        provider=row["provider"],
        reference=row["reference"],
        tries=row["tries"],
        max_tries=row["max_tries"],
        last_error=row["last_error"],
        result=_result(row),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        due_at=row["due_at"],
        expires_at=row["expires_at"],
        replaced_by=row["replaced_by"],
        retried_by=row["retried_by"],
        fallback=_fallback(row),
        fallback_of=row["fallback_of"],
        tag=row["tag"],
        topic=row["topic"],
        attempts=attempts,
        sent_at=row["sent_at"],
        receipts=receipts,
    )


def _named(pattern: re.Pattern[bytes], head: bytes | None) -> str | None:
    """Return what the begin of a content names."""
    match = None if head is None else pattern.match(head)
    return match[1].decode() if match else None


def _fallback(row: Record) -> FallbackView | None:
    if row["fallback_at"] is None:
        return None
    return FallbackView(
        after_s=row["fallback_after_s"],
        channel=row["fallback_channel"],
        at=row["fallback_at"],
        unless=Unless(row["fallback_unless"]),
        notification=row["fallback_notification"],
    )


def _result(row: Record) -> ResultView | None:
    if row["result_at"] is None:
        return None
    return ResultView(
        reason=row["result_reason"],
        provider=row["result_provider"],
        code=row["result_code"],
        detail=row["result_detail"],
        at=row["result_at"],
    )


def _attempt(row: Record) -> AttemptView:
    return AttemptView(
        number=row["number"],
        provider=row["provider"],
        outcome=row["outcome"],
        code=row["code"],
        http_status=row["http_status"],
        detail=row["detail"],
        reference=row["reference"],
        queue_wait_s=row["queue_wait_s"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        next_at=row["next_at"],
        repeats=row["repeats"],
        late=row["late"],
    )


def worker_of(row: Record) -> WorkerState:
    """Return the process that a row of workers.sql describes."""
    try:
        figures = decode_figures(row["figures"])
    except ValueError:  # of another version: the process is alive all the same
        figures = NO_FIGURES
    return WorkerState(
        id=row["id"],
        kind=row["kind"],
        host=row["host"],
        pid=row["pid"],
        version=figures.version,
        started_at=row["started_at"],
        beat_at=row["beat_at"],
        consumers=sum(queue.consumers for queue in figures.queues.values()),
        busy=sum(queue.busy for queue in figures.queues.values()),
        lacks=tuple(sorted(ALL_FEATURES - figures.features)),
    )


@asynccontextmanager
async def open_reader(settings: ConnectionSettings) -> AsyncIterator[PostgresReader]:
    """A reader whose statements are planned once and read in the order of an index."""
    async with open_connections(settings, [SEARCH_SETTINGS] * CONNECTIONS) as connections:
        yield PostgresReader(connections)
