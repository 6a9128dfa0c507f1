"""Statistics in Postgres.

Triggers note what every statement accepts, records and ends, in the table `stats_changes`. A step
takes the oldest changes away and adds them to the roll-ups, in one transaction: a process that ends
within it has counted nothing, and what it was about to count is still there. So it does not matter
which process counts a change, when its statement committed, or whether an answer is lost.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.campaign_guard import PostgresTagGuard
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.stats import (
    BOUNDS_S,
    COUNTED,
    Change,
    Counts,
    Dimension,
    RollUpKey,
    Step,
    TagHour,
    roll_up,
    tag_hours,
)
from notifier.ports.stats import RolledUp, StatsPage, StatsRow, StatsSelection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from asyncpg import Connection, Record


CONNECTIONS: Final = 1
"""How many connections `open_stats` opens."""
MAX_ROWS: Final = 2000
"""How many roll-ups are read for a page, or those of one step."""
MAX_PRUNED: Final = 1000
"""How many roll-ups of each step are removed at once."""
_SESSION: Final = {
    # Whether a tenant is given decides which index serves a page.
    "plan_cache_mode": "force_custom_plan",
    # A process that freezes within a step would keep the others from counting.
    "idle_in_transaction_session_timeout": "2000",
}


class PostgresStats:
    """Implements ports.stats.StatsReader and StatsRollUps.

    `kept_days` says for how many days the roll-ups of each step are kept.
    """

    def __init__(self, connection: PostgresConnection, kept_days: Mapping[Step, int]) -> None:
        self._connection = connection
        self._kept_days = kept_days

    async def step(self, count: int) -> RolledUp:
        async with self._connection.acquire() as connection, connection.transaction():
            (lock,) = await connection.fetch(statement("stats_lock"))
            behind_s = lock["behind_s"]
            if not lock["is_held"]:
                return RolledUp(None, behind_s or 0.0)
            if behind_s is None:
                return RolledUp(0, 0.0)
            rows = await connection.fetch(statement("stats_take"), count, BOUNDS_S)
            await _add(connection, [_change(row) for row in rows if row["minute"] is not None])
            return RolledUp(rows[0]["changes"] if rows else 0, behind_s)

    async def prune(self) -> int:
        (row,) = await self._connection.fetch(
            statement("stats_prune"),
            list(self._kept_days),
            list(self._kept_days.values()),
            MAX_PRUNED,
        )
        return int(row["removed"])

    async def stats(self, selection: StatsSelection) -> StatsPage:
        rows = await self._connection.fetch(
            statement("stats_read"),
            selection.step,
            selection.begin,
            selection.end,
            selection.view.tenant,
            selection.view.mode is Mode.TEST,
            *(dimension in selection.by for dimension in Dimension),
            MAX_ROWS,
        )
        return StatsPage(
            rows=[_row(row) for row in rows], next_begin=rows[0]["next_at"] if rows else None
        )


async def _add(connection: Connection[Record], changes: Sequence[Change]) -> None:
    added = roll_up(changes, await _tags(connection, tag_hours(changes)))
    # In the order of their keys.
    await connection.executemany(
        statement("stats_add"), [_parameters(key, added[key]) for key in sorted(added)]
    )


async def _tags(
    connection: Connection[Record], hours: Iterable[TagHour]
) -> Mapping[TagHour, Sequence[str]]:
    found: dict[TagHour, list[str]] = defaultdict(list)
    if columns := list(zip(*hours, strict=True)):
        for row in await connection.fetch(statement("stats_tags"), *columns, Step.HOUR):
            found[TagHour(row["at"], row["tenant"], row["is_test"])].append(row["tag"])
    return found


def _parameters(key: RollUpKey, counts: Counts) -> Sequence[object]:
    """Return the parameters of stats_add.sql."""
    return (*key, *(counts.counts[name] for name in COUNTED), counts.waits, counts.calls)


def _change(row: Record) -> Change:
    """Return a row of stats_take.sql."""
    return Change(
        minute=row["minute"],
        tenant=row["tenant"],
        is_test=row["is_test"],
        queue=row["queue"],
        tag=row["tag"],
        provider=row["provider"],
        what=row["what"],
        reason=row["reason"],
        wait_bucket=row["wait_bucket"],
        call_bucket=row["call_bucket"],
        number=row["count"],
    )


def _row(row: Record) -> StatsRow:
    """Return a row of stats_read.sql, whose texts are "" if rows are not told apart by them."""
    return StatsRow(
        at=row["at"],
        queue=row["queue"] or None,
        tag=row["tag"] or None,
        provider=row["provider"] or None,
        accepted=row["accepted"],
        sent=row["sent"],
        delivered=row["delivered"],
        undelivered=row["undelivered"],
        failed=row["failed"],
        expired=row["expired"],
        cancelled=row["cancelled"],
        suppressed=row["suppressed"],
        waits=row["waits"],
        calls=row["calls"],
    )


@asynccontextmanager
async def open_stats(
    settings: ConnectionSettings,
    kept_days: Mapping[Step, int],
    *,
    events: EventWriting = WRITE_EVENTS,
) -> AsyncIterator[tuple[PostgresStats, PostgresTagGuard]]:
    """Yield the statistics, and the guard that reads them, on a connection of their own."""
    async with open_connection(settings, _SESSION) as connection:
        yield PostgresStats(connection, kept_days), PostgresTagGuard(connection, events)
