"""What the API reads."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import cycle
from typing import TYPE_CHECKING

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

READ_LINKS = 4


class PostgresReader:
    """Implements ports.queries.Reader over a few connections, used in turn."""

    def __init__(self, links: Sequence[PostgresConnection]) -> None:
        self._links = cycle(links)

    async def get(self, id: NotificationId) -> NotificationView | None:  # noqa: A002 the port's word
        """One notification with its attempts, as of one instant."""
        async with (
            next(self._links).use() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            row = await connection.fetchrow(statement("get"), id)
            if row is None:
                return None
            attempts = await connection.fetch(statement("attempts"), id)
        return _notification(row, tuple(AttemptView(**attempt) for attempt in attempts))

    async def notifications(self, which: Filter) -> Sequence[NotificationView]:
        """A page, newest first."""
        rows = await next(self._links).fetch(statement("page"), which.status, *_bounds(which))
        return [_notification(row) for row in rows]

    async def failures(self, which: Filter) -> Sequence[FailureView]:
        """A page, newest first."""
        rows = await next(self._links).fetch(statement("failures"), which.reason, *_bounds(which))
        return [FailureView(**{**row, "queue": QueueKey.parse(row["queue"])}) for row in rows]


def _bounds(which: Filter) -> tuple[object, ...]:
    """The parameters after the first of page.sql and failures.sql."""
    pattern = f"{_literal(which.channel)}.{_literal(which.priority)}"
    return (
        None if pattern == "%.%" else pattern,
        _instant(which.created_from),
        _instant(which.created_to),
        which.before,
        which.limit,
    )


def _literal(name: str | None) -> str:
    """A name inside a LIKE pattern; any if it is None."""
    if name is None:
        return "%"
    return name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _notification(row: Record, attempts: tuple[AttemptView, ...] = ()) -> NotificationView:
    values = {**row, "queue": QueueKey.parse(row["queue"]), "status": Status(row["status"])}
    return NotificationView(**values, attempts=attempts)


@asynccontextmanager
async def open_reader(settings: ConnectionSettings) -> AsyncIterator[PostgresReader]:
    """The reader; its statements are planned for their parameters each time."""
    async with AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(
                open_connection(settings, {"plan_cache_mode": "force_custom_plan"})
            )
            for _ in range(READ_LINKS)
        ]
        yield PostgresReader(links)
