"""Finds and ends notifications that wait for recipients who were suppressed meanwhile."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final
from uuid import UUID

from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.lookups import LookupKey, recipient_lookup
from notifier.adapters.postgres.queue_names import channel_of, known_queue, mode_of
from notifier.adapters.postgres.statements import statement, statement_with
from notifier.domain.lookups import LookupScope
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import SuppressedOn
from notifier.ports.store import ExpiredRow
from notifier.ports.suppressions import MatchingRow, SuppressionPass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncpg import Record

    from notifier.adapters.postgres.connection import PostgresConnection

MAX_PASSES: Final = 10_000
"""How many suppressions share one scan of the waiting rows."""
MAX_SOUGHT: Final = 500
"""How many recipients one statement looks for."""
MAX_SCANNED: Final = 2000
"""How many waiting rows one statement reads."""
_BEFORE_ALL: Final = UUID(int=0)
_AFTER_ALL: Final = UUID(int=2**128 - 1)


class PostgresSuppressionPasses:
    """Implements ports.suppressions.SuppressionPasses, on a connection that others use too."""

    def __init__(
        self,
        connection: PostgresConnection,
        key: LookupKey,
        events: EventWriting = WRITE_EVENTS,
    ) -> None:
        self._connection = connection
        self._key = key
        self._events = events

    async def due(self, ids: Collection[UUID] | None = None) -> Sequence[SuppressionPass]:
        rows = await self._connection.fetch(
            statement("suppressions_due"), MAX_PASSES, None if ids is None else list(ids)
        )
        return [SuppressionPass(*row) for row in rows]

    async def find(self, passes: Sequence[SuppressionPass]) -> Sequence[MatchingRow]:
        by_hash = _by_hash(passes)
        hashes = list(by_hash)
        found: dict[UUID, MatchingRow] = {}
        for start in range(0, len(hashes), MAX_SOUGHT):
            rows = await self._connection.fetch(
                statement("suppressions_find"), hashes[start : start + MAX_SOUGHT]
            )
            found |= {row.id: row for row in await self._matching(rows, by_hash)}
        return list(found.values())

    async def scan(
        self, passes: Sequence[SuppressionPass], after: UUID | None
    ) -> tuple[Sequence[MatchingRow], UUID | None]:
        rows = await self._connection.fetch(
            statement("suppressions_scan"), after or _BEFORE_ALL, MAX_SCANNED, _AFTER_ALL
        )
        last = rows[-1]["id"] if len(rows) == MAX_SCANNED else None
        return await self._matching(rows, _by_hash(passes)), last

    async def end(self, rows: Sequence[MatchingRow]) -> Sequence[ExpiredRow]:
        values = ([row.id for row in rows], [row.reason for row in rows])
        parts = self._events.parts("suppressions_end", values)
        added = [value for part in parts for value in part.values]
        ended = await self._connection.fetch(
            statement_with("suppressions_end", len(values), parts), *values, *added
        )
        return [ExpiredRow(row["id"], known_queue(row["queue"]), row["age_s"]) for row in ended]

    async def passed(self, passes: Sequence[SuppressionPass], left: Collection[UUID]) -> None:
        await self._connection.fetch(
            statement("suppressions_passed"),
            [each.id for each in passes],
            [each.number for each in passes],
            [each.id in left for each in passes],
        )

    async def note_lookups(self, *, are_kept: bool) -> None:
        kept = "INSERT INTO lookup_starts (kind) VALUES ('recipient') ON CONFLICT DO NOTHING"
        dropped = "DELETE FROM lookup_starts WHERE kind = 'recipient'"
        await self._connection.fetch(kept if are_kept else dropped)

    async def _matching(
        self, rows: Sequence[Record], by_hash: Mapping[UUID, Sequence[SuppressionPass]]
    ) -> Sequence[MatchingRow]:
        if not rows:
            return []
        async with self._connection.acquire() as connection:
            hasher = await self._key.hasher(connection)
        matching: list[MatchingRow] = []
        for row in rows:
            if row["recipient"] is None:
                continue
            scope = LookupScope(row["tenant"], mode_of(row))
            lookup = recipient_lookup(recipient_identity(row["recipient"]))
            suppression = _covering(row, by_hash.get(hasher.digest(scope, lookup), ()))
            if suppression is not None:
                matching.append(MatchingRow(row["id"], suppression.id, suppression.reason))
        return matching


def _by_hash(passes: Sequence[SuppressionPass]) -> Mapping[UUID, Sequence[SuppressionPass]]:
    by_hash: defaultdict[UUID, list[SuppressionPass]] = defaultdict(list)
    for each in passes:
        by_hash[each.hash].append(each)
    return by_hash


def _covering(row: Record, passes: Sequence[SuppressionPass]) -> SuppressionPass | None:
    """Return the first of these suppressions that forbids the notification, None without one."""
    channel = channel_of(row)
    for each in passes:
        if SuppressedOn(each.channel, each.topic, each.reason).covers(channel, row["topic"]):
            return each
    return None
