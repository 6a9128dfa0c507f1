"""What the API reads from Postgres."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Final
from uuid import UUID

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.statements import statement
from notifier.domain.notification import (
    FINAL,
    WAITING,
    AttemptView,
    FailureView,
    NotificationView,
    QueueKey,
    Status,
)
from notifier.ports.queries import Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpg import Connection, Record

    from notifier.domain.notification import NotificationId
    from notifier.ports.queries import Filter

CONNECTIONS: Final = 4
"""How many connections `open_reader` opens at most."""
MAX_SEARCH_S: Final = 1.0
"""How long a page of notifications is searched for. The cursor of a shorter page continues."""
MAX_CANDIDATES: Final = 20_000

# Search in the order of the index, whatever the statistics say: they may be from before a surge.
_PLANNER_SETTINGS: Final = {
    "plan_cache_mode": "force_custom_plan",
    "enable_sort": "off",
    "enable_bitmapscan": "off",
}
_LISTS: Final[Mapping[Status | None, tuple[str, ...]]] = {
    None: ("list_notifications",),
    Status.SENDING: ("list_sending",),
    Status.SENT: ("list_sent",),
    Status.EXPIRED: ("list_expired",),
    Status.LOST: ("list_lost",),
    **{status: ("list_waiting", status) for status in WAITING},
    **{status: ("list_ended", status) for status in FINAL - {Status.SENT, Status.EXPIRED}},
}
"""The statement that finds the notifications in a status, and its last parameter, if any."""


class PostgresReader:
    """Implements ports.queries.Reader over a few connections, used in turn.

    Each method reads one snapshot: status, attempts and pages belong together.
    """

    def __init__(self, connections: Sequence[PostgresConnection]) -> None:
        self._connections = cycle(connections)

    async def get(self, id: NotificationId) -> NotificationView | None:  # noqa: A002 the port's name
        async with self._snapshot() as connection:
            rows = await _read(connection, [id])
            attempts = await connection.fetch(statement("get_attempts"), id)
        return _notification(rows[0], tuple(map(_attempt, attempts))) if rows else None

    async def notifications(self, selection: Filter) -> Page:
        async with self._snapshot() as connection:
            ids, next_before = await _find(connection, selection)
            rows = await _read(connection, ids)
        return Page(views=list(map(_notification, rows)), next_before=next_before)

    async def failures(self, selection: Filter) -> Sequence[FailureView]:
        pattern, least, greatest = _bounds(selection)
        rows = await next(self._connections).fetch(
            statement("list_failures"), pattern, least, greatest, selection.limit, selection.reason
        )
        return list(map(_failure, rows))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection[Record]]:
        async with (
            next(self._connections).acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection


async def _find(
    connection: Connection[Record], selection: Filter
) -> tuple[Sequence[NotificationId], NotificationId | None]:
    """Return the ids of a page and the cursor of the next one.

    Reads more and more candidates until the page is full, none is left or the time is up.
    """
    name, *status = _LISTS[selection.status]
    pattern, least, greatest = _bounds(selection)
    ids: list[NotificationId] = []
    candidates = selection.limit + 1  # the one beyond the page shows that another page follows
    search_until = time.monotonic() + MAX_SEARCH_S
    while True:
        wanted = selection.limit + 1 - len(ids)
        (row,) = await connection.fetch(
            statement(name), pattern, least, greatest, wanted, candidates, *status
        )
        ids += row["ids"]
        if len(ids) > selection.limit:
            return ids[:-1], ids[-2]
        if row["count"] < candidates:
            return ids, None
        if time.monotonic() > search_until:
            return ids, row["last"]
        greatest = UUID(int=row["last"].int - 1)
        candidates = min(4 * candidates, MAX_CANDIDATES)


async def _read(connection: Connection[Record], ids: Sequence[NotificationId]) -> Sequence[Record]:
    if not ids:
        return []
    return await connection.fetch(statement("read_notifications"), ids, min(ids), max(ids))


def _bounds(selection: Filter) -> tuple[str, UUID, UUID]:
    """Return the LIKE pattern of the queue's name, and the least and the greatest id."""
    pattern = f"{_like_pattern(selection.channel)}.{_like_pattern(selection.priority)}"
    return pattern, *id_bounds(selection.created_from, selection.created_to, selection.before)


def _like_pattern(name: str | None) -> str:
    """Return a LIKE pattern that matches this name only, or any name if it is None."""
    if name is None:
        return "%"
    return name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _notification(row: Record, attempts: tuple[AttemptView, ...] = ()) -> NotificationView:
    return NotificationView(
        id=row["id"],
        status=Status(row["status"]),
        queue=QueueKey.parse(row["queue"]),
        recipient=row["recipient"],
        content=row["content"],
        metadata=row["metadata"],
        tries=row["tries"],
        max_tries=row["max_tries"],
        last_error=row["last_error"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        due_at=row["due_at"],
        expires_at=row["expires_at"],
        attempts=attempts,
    )


def _attempt(row: Record) -> AttemptView:
    return AttemptView(
        claim=row["claim"],
        provider=row["provider"],
        outcome=row["outcome"],
        code=row["code"],
        detail=row["detail"],
        queue_wait_s=row["queue_wait_s"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        next_at=row["next_at"],
        repeats=row["repeats"],
        late=row["late"],
    )


def _failure(row: Record) -> FailureView:
    return FailureView(
        id=row["id"],
        queue=QueueKey.parse(row["queue"]),
        provider=row["provider"],
        reason=row["reason"],
        code=row["code"],
        detail=row["detail"],
        tries=row["tries"],
        first_at=row["first_at"],
        last_at=row["last_at"],
    )


@asynccontextmanager
async def open_reader(settings: ConnectionSettings) -> AsyncIterator[PostgresReader]:
    """A reader whose statements are planned for their parameters at each execution."""
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(open_connection(settings, _PLANNER_SETTINGS))
            for _ in range(CONNECTIONS)
        ]
        yield PostgresReader(connections)
