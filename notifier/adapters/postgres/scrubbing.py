"""Removes contents in Postgres, a chunk at a time.

Of each priority a position is kept: what is before it was looked at. What was not due then is noted
and looked at again, so that a pass with nothing to do reads a few rows by their indexes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.errors import translated
from notifier.adapters.postgres.statements import statement
from notifier.domain.errors import StoreConflict
from notifier.ports.scrubbing import Scrubbed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.adapters.postgres.connection import PostgresConnection
    from notifier.domain.notification import Priority

MAX_SCRUBBED: Final = 500
"""Notifications of one transaction."""


class PostgresScrubbing:
    """Implements ports.scrubbing.ContentStore, on a connection that others use too."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def scrub(self, keep_s: Mapping[Priority, float]) -> Scrubbed:
        of_age: defaultdict[float, list[Priority]] = defaultdict(list)
        for priority, age_s in keep_s.items():
            of_age[age_s].append(priority)
        async with self._connection.acquire() as connection:
            parts = [await _scrub_due(connection, keep_s)]
            for age_s, priorities in of_age.items():
                parts.append(await _scrub_next(connection, age_s, priorities))
        return Scrubbed(sum(part.removed for part in parts), any(part.is_behind for part in parts))


async def _scrub_due(connection: Connection[Record], keep_s: Mapping[Priority, float]) -> Scrubbed:
    async with connection.transaction():
        rows = await connection.fetch(statement("scrub_due"), MAX_SCRUBBED)
        ids = [row["id"] for row in rows]
        count = await _scrub(connection, ids, keep_s)
    return Scrubbed(count, len(rows) == MAX_SCRUBBED)


async def _scrub_next(
    connection: Connection[Record], age_s: float, priorities: Sequence[Priority]
) -> Scrubbed:
    async with connection.transaction():
        positions = await connection.fetch(statement("scrub_take"), priorities)
        if len(positions) < len(priorities):
            return Scrubbed(0, is_behind=False)
        (chunk,) = await connection.fetch(
            statement("scrub_next"),
            min(row["position"] for row in positions),
            age_s,
            [f"%.{priority}" for priority in priorities],
            MAX_SCRUBBED,
        )
        if chunk["last"] is None:
            return Scrubbed(0, is_behind=False)
        count = await _scrub(connection, chunk["ids"], dict.fromkeys(priorities, age_s))
        await connection.execute(statement("scrub_moved"), priorities, chunk["last"])
    return Scrubbed(count, chunk["count"] == MAX_SCRUBBED)


async def _scrub(
    connection: Connection[Record], ids: Sequence[UUID], keep_s: Mapping[Priority, float]
) -> int:
    """Remove the contents that are due; returns how many. Raises StoreConflict to be undone."""
    if not ids:
        return 0
    with translated():
        rows = await connection.fetch(
            statement("scrub"), ids, min(ids), max(ids), list(keep_s), list(keep_s.values())
        )
        scrubbed = [row["id"] for row in rows]
        if scrubbed and await connection.fetchval(statement("scrub_live"), scrubbed):
            msg = "a notification waits again whose content was removed: that is undone"
            raise StoreConflict(msg)
    return len(scrubbed)
