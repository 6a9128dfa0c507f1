"""Inboxes in Postgres: one row per entry, whose id is that of its notification.

All instants are by Postgres's clock.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.delivery.group_commit import GroupCommit
from notifier.domain.inbox import MAX_MARKED, MAX_UNREAD
from notifier.domain.notification import NotificationId
from notifier.ports.inbox import (
    Entry,
    EntryPosition,
    InboxChange,
    InboxChanges,
    InboxCursor,
    InboxPage,
    NewEntry,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from asyncpg import Record

    from notifier.domain.inbox import Inbox

CONNECTIONS: Final = 2
"""How many connections `open_inboxes` opens."""
WRITER_CONNECTIONS: Final = 1
"""How many connections `open_inbox_writer` opens."""
MAX_PAGE_BYTES: Final = 1024 * 1024
MAX_MARKED_AT_ONCE: Final = 2000
MAX_CHANGES_OF_INBOX: Final = MAX_MARKED + 50
"""A request may mark MAX_MARKED."""
MAX_CHANGES: Final = 2500
_NEWEST: Final = EntryPosition(
    datetime(9999, 1, 1, tzinfo=UTC), NotificationId(UUID(int=2**128 - 1))
)


class PostgresInboxWriter:
    """Implements ports.inbox.InboxWriter: entries that arrive during a write form the next one."""

    def __init__(self, connection: PostgresConnection, keep_s: float) -> None:
        self._connection = connection
        self._keep_s = keep_s
        self._commit = GroupCommit[NewEntry, None](
            "inbox", self._write, size_of=lambda entry: entry.size
        )

    async def add(self, entry: NewEntry) -> None:
        await self._commit.put(entry)

    async def run(self) -> None:
        """Write entries until closed and empty."""
        await self._commit.run()

    def close(self) -> None:
        """Let `run` end; no entry may be added after."""
        self._commit.close()

    async def _write(self, entries: Sequence[NewEntry]) -> Sequence[None]:
        ids = [entry.id for entry in entries]
        await self._connection.fetch(
            statement("inbox_add"),
            ids,
            [entry.subject for entry in entries],
            [entry.body for entry in entries],
            [entry.data for entry in entries],
            min(ids),
            max(ids),
            self._keep_s,
        )
        return [None] * len(entries)


class PostgresInbox:
    """Implements ports.inbox.InboxStore."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def page(
        self, inbox: Inbox, *, before: EntryPosition | None, limit: int, is_unread: bool
    ) -> InboxPage:
        rows = await self._connection.fetch(
            statement("inbox_read_unread" if is_unread else "inbox_read"),
            *inbox,
            *(before or _NEWEST),
            limit + 1,
            MAX_PAGE_BYTES,
        )
        entries = [_entry(row) for row in rows[:limit]]
        has_more = len(rows) > limit or (bool(rows) and rows[0]["candidates"] > len(rows))
        last = EntryPosition(entries[-1].created_at, entries[-1].id) if has_more else None
        return InboxPage(entries, last, await self._unread(inbox))

    async def mark_read(self, inbox: Inbox, ids: Collection[NotificationId]) -> int:
        await self._connection.fetch(statement("inbox_mark"), *inbox, list(ids))
        return await self._unread(inbox)

    async def mark_read_until(self, inbox: Inbox, at: datetime) -> int:
        found = MAX_MARKED_AT_ONCE
        while found == MAX_MARKED_AT_ONCE:
            (row,) = await self._connection.fetch(
                statement("inbox_mark_until"), *inbox, at, MAX_MARKED_AT_ONCE
            )
            found = row["unread"]
        return await self._unread(inbox)

    async def _unread(self, inbox: Inbox) -> int:
        (count,) = await _unread(self._connection, [inbox])
        return count


class PostgresInboxReader:
    """Implements ports.inbox.InboxReader.

    A cursor is a snapshot: it says exactly which transactions were visible, so that a change that
    is committed late is neither missed nor read twice.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def now(self) -> InboxCursor:
        (row,) = await self._connection.fetch(statement("inbox_now"))
        return InboxCursor(row["snapshot"], row["timeline"])

    async def changes(self, cursor: InboxCursor, inboxes: Sequence[Inbox]) -> InboxChanges:
        rows = await self._connection.fetch(
            statement("inbox_changes"),
            cursor.snapshot,
            *inbox_columns(inboxes),
            MAX_CHANGES_OF_INBOX + 1,
            MAX_CHANGES,
        )
        found: defaultdict[Inbox, list[InboxChange]] = defaultdict(list)
        for row in rows:
            if row["number"] is not None:
                change = InboxChange(_entry(row), row["is_new"])
                found[inboxes[row["number"] - 1]].append(change)
        changed = list(found)
        unread = await _unread(self._connection, changed) if changed else ()
        following = InboxCursor(rows[0]["snapshot"], rows[0]["timeline"])
        cut = {inbox for inbox, changes in found.items() if len(changes) > MAX_CHANGES_OF_INBOX}
        if len(rows) == MAX_CHANGES:  # of this one a part is missing, and of those after it all
            cut |= set(inboxes[rows[-1]["number"] - 1 :])
        # Postgres was restored, or has failed over to one that knew less.
        is_other = following.timeline != cursor.timeline
        is_behind = _next_transaction(following) < _next_transaction(cursor)
        return InboxChanges(
            cursor=following,
            changes=found,
            unread=dict(zip(changed, unread, strict=True)),
            cut=set(inboxes) if is_other or is_behind else cut,
        )


class Inboxes(NamedTuple):
    """The inboxes for users and for streams, which do not wait for each other."""

    store: PostgresInbox
    reader: PostgresInboxReader


async def _unread(connection: PostgresConnection, inboxes: Sequence[Inbox]) -> Sequence[int]:
    rows = await connection.fetch(statement("inbox_unread"), *inbox_columns(inboxes), MAX_UNREAD)
    return [row["unread"] for row in rows]


def _next_transaction(cursor: InboxCursor) -> int:
    """Return the number of the first transaction that had not begun: xmin:xmax:running."""
    return int(cursor.snapshot.split(":")[1])


def inbox_columns(
    inboxes: Sequence[Inbox],
) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Return tenants, modes and users of inboxes, as parameters of a statement."""
    return (
        [inbox.tenant for inbox in inboxes],
        [inbox.mode for inbox in inboxes],
        [inbox.user for inbox in inboxes],
    )


def _entry(row: Record) -> Entry:
    return Entry(
        id=row["id"],
        subject=row["subject"],
        body=row["body"],
        data=row["data"],
        created_at=row["created_at"],
        read_at=row["read_at"],
        expires_at=row["expires_at"],
    )


@asynccontextmanager
async def open_inboxes(settings: ConnectionSettings) -> AsyncIterator[Inboxes]:
    """Yield the inboxes, on connections of their own."""
    async with open_connection(settings) as connection, open_connection(settings) as shared:
        yield Inboxes(PostgresInbox(connection), PostgresInboxReader(shared))


@asynccontextmanager
async def open_inbox_writer(
    settings: ConnectionSettings, keep_s: float
) -> AsyncIterator[PostgresInboxWriter]:
    """Yield a writer on a connection of its own, whose entries are kept for `keep_s`.

    Leaving the block writes what was added.
    """
    async with open_connection(settings) as connection, asyncio.TaskGroup() as group:
        writer = PostgresInboxWriter(connection, keep_s)
        group.create_task(writer.run(), name="inbox writer")
        try:
            yield writer
        finally:
            writer.close()
