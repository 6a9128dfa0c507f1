"""Fallbacks in Postgres, for the processes that submit them. All instants are by its clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.finding import LOOK_UP_SETTINGS
from notifier.adapters.postgres.queue_names import mode_of
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.fallbacks import DueFallback
from notifier.domain.notification import NotificationId, Status, Unless
from notifier.domain.tenants import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from asyncpg import Record

    from notifier.ports.fallbacks import FallbackResult

SESSION_SETTINGS: Final = {
    **LOOK_UP_SETTINGS,
    "enable_seqscan": "off",
}
"""Rows are looked up by an index whatever the statistics say: most fallbacks are done."""
CONNECTIONS: Final = 1
"""How many connections `open_fallbacks` opens."""


class PostgresFallbacks:
    """Implements ports.fallbacks.FallbackStore. `known` are the fields that this version knows."""

    def __init__(self, connection: PostgresConnection, known: Collection[str]) -> None:
        self._connection = connection
        self._known = sorted(known)

    async def take(self, count: int, hold_s: float) -> Sequence[DueFallback]:
        rows = await self._connection.fetch(statement("fallbacks_take"), hold_s, self._known, count)
        if not rows:
            return []
        # Read after they are held: the status may only be newer than that.
        ids = [row["id"] for row in rows]
        firsts = await self._connection.fetch(
            statement("read_notifications"), ids, min(ids), max(ids), False
        )
        by_id = {row["id"]: row for row in firsts}
        return [_fallback(row, by_id.get(row["id"])) for row in rows]

    async def begin(self, fallbacks: Sequence[DueFallback]) -> Collection[NotificationId]:
        rows = await self._connection.fetch(
            statement("fallbacks_begin"),
            [each.id for each in fallbacks],
            [each.held_until for each in fallbacks],
        )
        return [row["id"] for row in rows]

    async def settle(self, results: Sequence[FallbackResult]) -> Collection[NotificationId]:
        rows = await self._connection.fetch(
            statement("fallbacks_settle"),
            [each.id for each in results],
            [each.held_until for each in results],
            [each.look_at for each in results],
            [each.notification for each in results],
            [each.may_be_stored for each in results],
        )
        return [row["id"] for row in rows]


def _fallback(row: Record, first: Record | None) -> DueFallback:
    """Return a fallback; `first` is the row of its first notification, if that is stored."""
    return DueFallback(
        id=row["id"],
        status=None if first is None else Status(first["status"]),
        reason=None if first is None else first["result_reason"],
        tenant=DEFAULT_TENANT if first is None else first["tenant"],
        mode=Mode.LIVE if first is None else mode_of(first),
        submit=row["submit"],
        unless=Unless(row["unless"]),
        since=row["since"],
        at=row["at"],
        begun_at=row["begun_at"],
        held_until=row["held_until"],
        now=row["now"],
    )


@asynccontextmanager
async def open_fallbacks(
    settings: ConnectionSettings, known: Collection[str]
) -> AsyncIterator[PostgresFallbacks]:
    """Yield the fallbacks, on a connection of their own.

    `known` are the fields of submits that this version knows.
    """
    async with open_connection(settings, SESSION_SETTINGS) as connection:
        yield PostgresFallbacks(connection, known)
