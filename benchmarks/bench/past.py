"""Drains beside ten million sent notifications: two databases of one server, measured in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

import asyncpg

from benchmarks.bench.curve import Figures
from benchmarks.bench.draining import AT_ITS_BEST, drained
from benchmarks.bench.place import Place, Servers
from benchmarks.bench.systems import NOTIFIER, a_notification
from benchmarks.prove.bulk import HISTORY, days
from notifier.settings.tree import RetentionSettings

PAST, EMPTY = "past", "empty"
TEMPLATES = 9
CHUNK = 1_000_000
"""Rows of one statement."""
STATEMENT_S = 900.0


@contextmanager
def databases(servers: Servers, rows: int) -> Iterator[Servers]:
    """Keep a database with `rows` sent notifications and one without over all rounds.

    The rows are copies of sent notifications with their attempts, spread over the last seven days.
    The first database also has the partitions that the default retention keeps.
    """
    with servers.place() as past, servers.place() as empty:
        for place in (past, empty):
            drained(place, NOTIFIER, AT_ITS_BEST, [a_notification()] * TEMPLATES)
        asyncio.run(_load(past, rows))
        for place in (past, empty):
            asyncio.run(_ask(place, "VACUUM (ANALYZE) notifications, live, attempts"))
        yield replace(servers, kept={PAST: past, EMPTY: empty})


def drain(servers: Servers, which: str, count: int) -> Figures:
    """No-op sends from one queue of one of the two databases, after a checkpoint."""
    place = servers.kept[which]
    asyncio.run(_ask(place, "CHECKPOINT"))
    return drained(place, NOTIFIER, AT_ITS_BEST, [a_notification()] * count)


async def _load(place: Place, rows: int) -> None:
    copied: list[UUID] = [row["id"] for row in await _ask(place, "SELECT id FROM notifications")]
    await _ask(place, days(RetentionSettings().days))
    for count in chunks(rows):
        await _ask(place, HISTORY, copied, count)


def chunks(rows: int) -> Iterator[int]:
    """Return the rows of each statement, each spread over the seven days."""
    for first in range(0, rows, CHUNK):
        yield min(CHUNK, rows - first)


async def _ask(place: Place, sql: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(place.database_url)
    try:
        return await connection.fetch(sql, *values, timeout=STATEMENT_S)
    finally:
        await connection.close()
