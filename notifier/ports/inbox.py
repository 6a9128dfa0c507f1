"""The inboxes: a provider writes entries, users read and mark them, streams follow them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from notifier.domain.inbox import Inbox
from notifier.domain.notification import NotificationId


class NewEntry(NamedTuple):
    """An entry as a notification has it. `data` is a JSON object."""

    id: NotificationId
    subject: str | None
    body: str
    data: str | None

    @property
    def size(self) -> int:
        """The number of its characters."""
        return len(self.subject or "") + len(self.body) + len(self.data or "")


class InboxWriter(Protocol):
    """Writes entries of notifications into the inboxes of their recipients."""

    async def add(self, entry: NewEntry) -> None:
        """Store the entry, whose recipient, tenant and mode are those of its notification.

        Repeating it changes nothing. An erased notification gets no entry. Waits until it is
        stored. Raises StoreRejected if it cannot be stored, StoreUnavailable once closed.
        """
        ...


class Entry(NamedTuple):
    """An entry of an inbox. `created_at` is when it was stored there."""

    id: NotificationId
    subject: str | None
    body: str
    data: str | None
    created_at: datetime
    read_at: datetime | None
    expires_at: datetime


class EntryPosition(NamedTuple):
    """The place of an entry in the order of an inbox."""

    created_at: datetime
    id: NotificationId


class InboxPage(NamedTuple):
    """Entries, newest first. `following` is the last of them if there are more.

    `unread` is how many entries of the inbox are unread, counted up to a limit.
    """

    entries: Sequence[Entry]
    following: EntryPosition | None
    unread: int


class InboxStore(Protocol):
    """What users do with their inboxes. Expired entries are seen by none of it."""

    async def page(
        self, inbox: Inbox, *, before: EntryPosition | None, limit: int, is_unread: bool
    ) -> InboxPage:
        """Return entries older than `before`; with `is_unread` only unread ones.

        A page may be shorter than the limit and have more after it: its size in bytes is limited.
        """
        ...

    async def mark_read(self, inbox: Inbox, ids: Collection[NotificationId]) -> int:
        """Mark those of these entries that are unread; return how many are unread then."""
        ...

    async def mark_read_until(self, inbox: Inbox, at: datetime) -> int:
        """Mark all unread entries created until then; return how many are unread after it."""
        ...


class InboxCursor(NamedTuple):
    """What was visible at a moment: the snapshot of Postgres, as text, and its history."""

    snapshot: str
    timeline: str


class InboxChange(NamedTuple):
    """An entry that was added or marked. `is_new`: it was added."""

    entry: Entry
    is_new: bool


class InboxChanges(NamedTuple):
    """The changes of some inboxes since a cursor, and how many entries of those are unread.

    `cursor` is where the next ones begin. Of the inboxes in `cut` changes are missing: there were
    too many, or the history of Postgres is another one.
    """

    cursor: InboxCursor
    changes: Mapping[Inbox, Sequence[InboxChange]]
    unread: Mapping[Inbox, int]
    cut: Collection[Inbox]


class InboxReader(Protocol):
    """Reads what happens in inboxes, for streams."""

    async def now(self) -> InboxCursor:
        """Return the cursor of this moment."""
        ...

    async def changes(self, cursor: InboxCursor, inboxes: Sequence[Inbox]) -> InboxChanges:
        """Return what was committed since the cursor, each change once."""
        ...
