"""Groups failures, which Postgres reads in the order of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.events import UNANNOUNCED_CHANNELS
from notifier.domain.failures import MAX_GROUPS, FailureGroup, FailureGroups, per_hour

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from asyncpg import Connection, Record

    from notifier.ports.queries import View

MAX_READ: Final = 50_000
"""How many failures are read for the groups: some 100 ms."""
# Statistics from before an outage say that few rows are joined: a nested loop would read all
# failures for each of them.
_JOIN_BY_HASH: Final = "SET LOCAL enable_nestloop = off"


async def read_failure_groups(
    connection: Connection[Record], begin: datetime, channels: Collection[str], view: View
) -> FailureGroups:
    """Return the groups of what failed from `begin` on. The caller has begun a transaction."""
    await connection.execute(_JOIN_BY_HASH)
    rows = await connection.fetch(
        statement("failure_groups"),
        *id_bounds(None, None, None),
        MAX_READ,
        begin,
        view.tenant,
        view.mode is Mode.TEST,
        list(channels) or None,
        UNANNOUNCED_CHANNELS,
        MAX_GROUPS,
    )
    return FailureGroups(
        groups=[_group(row) for row in rows if row["reason"] is not None],
        begin_at=begin,
        is_exact=rows[0]["is_exact"],
    )


def _group(row: Record) -> FailureGroup:
    return FailureGroup(
        reason=row["reason"],
        provider=row["provider"],
        code=row["code"],
        queues=sorted(set(row["queues"])),
        count=row["count"],
        first_at=row["first_at"],
        last_at=row["last_at"],
        hours=per_hour(zip(row["hours"], row["counts"], strict=True)),
        sample=row["sample"],
    )
