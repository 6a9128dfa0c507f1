"""What the API reads from Postgres."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import cycle
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.notification import (
    AttemptView,
    FailureView,
    NotificationView,
    QueueKey,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpg import Record

    from notifier.domain.notification import NotificationId
    from notifier.ports.queries import Filter

CONNECTIONS: Final = 4
"""How many connections `open_reader` opens at most."""


class PostgresReader:
    """Implements ports.queries.Reader over a few connections, used in turn."""

    def __init__(self, connections: Sequence[PostgresConnection]) -> None:
        self._connections = cycle(connections)

    async def get(self, id: NotificationId) -> NotificationView | None:  # noqa: A002 the port's name
        # One snapshot: the attempts belong to the status that is read.
        async with (
            next(self._connections).acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            row = await connection.fetchrow(statement("get_notification"), id)
            if row is None:
                return None
            attempts = await connection.fetch(statement("get_attempts"), id)
        return _notification(row, tuple(map(_attempt, attempts)))

    async def notifications(self, selection: Filter) -> Sequence[NotificationView]:
        rows = await next(self._connections).fetch(
            statement("list_notifications"), selection.status, *_filter_parameters(selection)
        )
        return [_notification(row) for row in rows]

    async def failures(self, selection: Filter) -> Sequence[FailureView]:
        rows = await next(self._connections).fetch(
            statement("list_failures"), selection.reason, *_filter_parameters(selection)
        )
        return list(map(_failure, rows))


def _filter_parameters(selection: Filter) -> tuple[object, ...]:
    """Return the parameters $2 to $6 of list_notifications.sql and list_failures.sql."""
    pattern = f"{_like_pattern(selection.channel)}.{_like_pattern(selection.priority)}"
    return (
        None if pattern == "%.%" else pattern,
        _instant(selection.created_from),
        _instant(selection.created_to),
        selection.before,
        selection.limit,
    )


def _like_pattern(name: str | None) -> str:
    """Return a LIKE pattern that matches this name only, or any name if it is None."""
    if name is None:
        return "%"
    return name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


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
            await stack.enter_async_context(
                open_connection(settings, {"plan_cache_mode": "force_custom_plan"})
            )
            for _ in range(CONNECTIONS)
        ]
        yield PostgresReader(connections)
