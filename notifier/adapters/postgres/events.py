"""Reads events from Postgres: see domain/event_cursor.py for what a cursor is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg
from msgspec.structs import replace

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.event_rows import EventRow, ShownRows, event_rows
from notifier.adapters.postgres.finding import LOOK_UP_SETTINGS
from notifier.adapters.postgres.statements import statement
from notifier.domain.event_cursor import EventCursor, bounded
from notifier.ports.events import CursorGone, EventPage, ReadEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.events import Event, EventFilter

CONNECTIONS: Final = 2
"""How many connections an API process opens for events: one for its streams, one for the rest."""
MAX_BATCHES: Final = 200
"""Rows that one read asks for; each has the events of one statement."""
MAX_EXAMINED: Final = 2000
"""Events of a read that are compared with a filter."""
MAX_LAST_BATCHES: Final = 50
MAX_LAST_READS: Final = 10
_PARTIAL: Final = 0
_LATE: Final = 1
_LATER: Final = 2
"""The parts of events_read.sql."""
_EPOCH_BYTES: Final = 8
_ALL: Final = 2**63 - 1


class _State(NamedTuple):
    """The time from which events are read, and the cursor of a reader that has seen all of them."""

    kept_from: datetime
    seen: EventCursor

    @property
    def start(self) -> EventCursor:
        """The cursor of a reader that has seen nothing."""
        return EventCursor(self.seen.epoch, self.seen.at, 0)

    def keeps(self, cursor: EventCursor) -> bool:
        """Whether all events after a cursor can be read.

        Not if some were dropped, or if it is of another history or of a time that a restore has
        undone.
        """
        return (
            cursor.epoch == self.seen.epoch
            and cursor.at >= self.kept_from
            and cursor.beyond <= self.seen.beyond
        )


class PostgresEvents:
    """Implements ports.events.EventReader."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def now(self) -> EventCursor:
        async with self._connection.acquire() as connection:
            state = await _state(connection)
        return bounded(state.seen, state.start)

    async def since(self, at: datetime | None) -> EventCursor:
        async with self._connection.acquire() as connection:
            state = await _state(connection)
            start = state.kept_from if at is None else max(at, state.kept_from)
            first = await _first_since(connection, start, state.seen.beyond)
        cursor = EventCursor(
            state.seen.epoch,
            max(state.kept_from, min(start, state.seen.at)),
            first,
            # Those that run now may still write events of this time or later.
            tuple(number for number in state.seen.running if number < first),
        )
        return bounded(cursor, state.start)

    async def is_kept(self, cursor: EventCursor) -> bool:
        async with self._connection.acquire() as connection:
            state = await _state(connection)
        return state.keeps(cursor)

    async def read(
        self,
        cursor: EventCursor,
        limit: int,
        selection: EventFilter | None = None,
        *,
        until: EventCursor | None = None,
    ) -> EventPage | CursorGone:
        bound = limit if selection is None else max(limit, MAX_EXAMINED)
        async with self._connection.acquire() as connection:
            state = await _state(connection)
            if not state.keeps(cursor):
                return CursorGone()
            read = await _read(connection, cursor, until)
            rows = list(islice(read.rows(), bound + 1))
            examined = rows[:bound]
            shown = await ShownRows.read(
                connection,
                [row for row, _ in examined if selection is None or row.may_match(selection)],
            )
        events: list[ReadEvent] = []
        for row, reached in examined:
            if len(events) == limit:  # the last one had no place
                return EventPage(events, cursor, is_complete=False, read_at=read.present.at)
            cursor = reached
            event = shown.event(row)
            if event is not None and (selection is None or selection.matches(event)):
                events.append(ReadEvent(event, row.xid, cursor))
        if read.is_cut or len(rows) > bound:
            return EventPage(events, cursor, is_complete=False, read_at=read.present.at)
        return EventPage(events, read.seen, is_complete=True, read_at=read.present.at)

    async def last(self, limit: int, selection: EventFilter) -> Sequence[Event]:
        found: list[Event] = []
        async with self._connection.acquire() as connection:
            state = await _state(connection)
            before = state.seen.beyond
            for _ in range(MAX_LAST_READS):
                batches = await connection.fetch(
                    statement("events_last"), before, MAX_LAST_BATCHES, state.kept_from
                )
                ordered = sorted(batches, key=_in_order)
                rows = [row for batch in ordered for row in event_rows(batch)]
                rows = [row for row in rows if row.may_match(selection)]
                shown = await ShownRows.read(connection, rows)
                events = [event for row in rows if (event := shown.event(row)) is not None]
                found[:0] = [event for event in events if selection.matches(event)]
                if len(found) >= limit or len(batches) < MAX_LAST_BATCHES:
                    break
                before = ordered[0]["xid"]
        return found[-limit:]


class _Read:
    """The rows that follow a cursor, and the snapshot in which they were found.

    `present` is the cursor of a reader that has read everything of this snapshot, `seen` the same,
    but as much less as a cursor must say. `is_cut`: there are more rows.
    """

    def __init__(
        self, cursor: EventCursor, found: Sequence[Record], until: EventCursor | None
    ) -> None:
        head = found[0]
        self.present = EventCursor(
            cursor.epoch, head["now"], head["beyond"], tuple(head["running"])
        )
        self.seen = until or bounded(self.present, cursor)
        parts: dict[int, list[Record]] = {_PARTIAL: [], _LATE: [], _LATER: []}
        for row in found:
            if row["xid"] is not None and row["xid"] < self.seen.beyond:
                parts[row["part"]].append(row)
        if len(parts[_LATE]) >= MAX_BATCHES:  # the rest of these comes before what is later
            parts[_LATER] = []
        self.is_cut = any(len(parts[part]) >= MAX_BATCHES for part in (_LATE, _LATER))
        self._cursor = cursor
        self._batches = [row for part in parts.values() for row in part]
        self._running = frozenset(self.seen.running)

    def rows(self) -> Iterator[tuple[EventRow, EventCursor]]:
        """Yield each event with the cursor of a reader that has read up to it."""
        reached = self._cursor
        for xid, batches in groupby(self._batches, key=_number):
            before = self._before(reached, xid)
            rows = [row for batch in batches for row in event_rows(batch)]
            reached = _after(before, xid, max(before.at, min(rows[0].at, self.seen.at)))
            for count, row in enumerate(rows[before.partial_count :], before.partial_count + 1):
                if count == len(rows):
                    yield row, reached
                else:
                    yield row, replace(before, partial=xid, partial_count=count)

    def _before(self, reached: EventCursor, xid: int) -> EventCursor:
        """Return the cursor of a reader that came to `reached` and begins a transaction."""
        if xid == reached.partial:
            return reached
        if xid >= reached.beyond:
            running = tuple(number for number in self.seen.running if number < xid)
            return EventCursor(reached.epoch, reached.at, xid, running)
        running = tuple(
            number for number in reached.running if number >= xid or number in self._running
        )
        return EventCursor(reached.epoch, reached.at, reached.beyond, running)


def _after(before: EventCursor, xid: int, at: datetime) -> EventCursor:
    """Return the cursor of a reader that has read the whole of a transaction."""
    running = tuple(number for number in before.running if number != xid)
    return EventCursor(before.epoch, at, max(before.beyond, xid + 1), running)


def _number(batch: Record) -> int:
    number: int = batch["xid"]
    return number


def _in_order(batch: Record) -> tuple[int, datetime, UUID]:
    return batch["xid"], batch["at"], batch["ids"][0]


async def _read(
    connection: Connection[Record], cursor: EventCursor, until: EventCursor | None
) -> _Read:
    running = cursor.running
    if until is not None:
        running = tuple(number for number in running if until.sees(number))
    found = await connection.fetch(
        statement("events_read"),
        list(running),
        cursor.beyond,
        cursor.partial,
        MAX_BATCHES,
        _ALL if until is None else until.beyond,
        [] if until is None else list(until.running),
    )
    return _Read(cursor, found, until)


async def _state(connection: Connection[Record]) -> _State:
    text = statement("events_state")
    try:
        (row,) = await connection.fetch(text)
    except asyncpg.InsufficientPrivilegeError:  # not every role may read the cluster's identifier
        (row,) = await connection.fetch(
            text.replace("(SELECT system_identifier FROM pg_control_system())", "0")
        )
    name = f"{row['system_identifier']}/{row['database']}/{row['timeline']}"
    oldest = row["oldest_day"]
    kept_from: datetime = row["now"]
    if oldest is not None:
        kept_from = datetime.strptime(oldest, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
    epoch = int.from_bytes(sha256(name.encode()).digest()[:_EPOCH_BYTES])
    seen = EventCursor(epoch, row["now"], row["beyond"], tuple(row["running"]))
    return _State(kept_from, seen)


async def _first_since(connection: Connection[Record], at: datetime, beyond: int) -> int:
    """Return the number of the first transaction whose events are of this time or later."""
    low, high = 0, beyond
    while low < high:
        middle = (low + high) // 2
        row = await connection.fetchrow(statement("events_first"), middle)
        if row is None or row["at"] >= at:
            high = middle
        else:
            low = row["xid"] + 1
    return low


@asynccontextmanager
async def open_events(settings: ConnectionSettings) -> AsyncIterator[PostgresEvents]:
    """A reader of events on a connection of its own."""
    async with open_connection(settings, LOOK_UP_SETTINGS) as connection:
        yield PostgresEvents(connection)
