"""Events: how they are read. Every method raises StoreUnavailable."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from notifier.domain.event_cursor import EventCursor
from notifier.domain.events import Event, EventFilter


class ReadEvent(NamedTuple):
    """An event, its transaction, and the cursor of a reader that has read up to it."""

    event: Event
    transaction: int
    cursor: EventCursor


class EventPage(NamedTuple):
    """What follows a cursor.

    `cursor` is where the next read continues. `is_complete`: it has seen all that was committed
    when this page was read; otherwise there may be more, also if `events` is empty. `read_at` is
    when it was read, by Postgres's clock.
    """

    events: Sequence[ReadEvent]
    cursor: EventCursor
    is_complete: bool
    read_at: datetime


class CursorGone(NamedTuple):
    """Nothing can be read after a cursor.

    Its events may have been dropped, or it is from before a restore of Postgres.
    """


class EventReader(Protocol):
    """Reads events: each exactly once for those who continue at the cursor of the last page.

    Events come in the order in which their transactions were committed, as far as a reader can
    know it: what one read finds comes before what the next one finds, and inside a read they are in
    the order of the numbers of their transactions. A transaction that runs, of whatever program,
    keeps nothing back but its own events.
    """

    async def now(self) -> EventCursor:
        """Return the cursor of a reader that has seen all that is committed."""
        ...

    async def since(self, at: datetime | None) -> EventCursor:
        """Return a cursor before the events of this time; None: before the oldest that is kept."""
        ...

    async def is_kept(self, cursor: EventCursor) -> bool:
        """Return whether all events after a cursor can be read; a read may find that again."""
        ...

    async def read(
        self,
        cursor: EventCursor,
        limit: int,
        selection: EventFilter | None = None,
        *,
        until: EventCursor | None = None,
    ) -> EventPage | CursorGone:
        """Return up to `limit` events after a cursor that a filter selects; None: all.

        With `until`, which covers the cursor, only what a reader at `until` has seen: the cursor of
        a complete page is `until` then. A read examines a bounded number of events: it may return
        fewer, or none, before the last.
        """
        ...

    async def last(self, limit: int, selection: EventFilter) -> Sequence[Event]:
        """Return the last `limit` events that a filter selects, oldest first.

        It examines a bounded number of events, the newest first.
        """
        ...
