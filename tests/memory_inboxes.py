"""Inboxes in memory, for tests of the API without Postgres."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from notifier.api.auth.user_tokens import UserTokens
from notifier.api.http.stream_slots import StreamSlots
from notifier.api.inbox.feed import InboxFeed
from notifier.api.routes.inbox import InboxSources
from notifier.domain.inbox import Inbox
from notifier.domain.notification import NotificationId
from notifier.ports.inbox import Entry, EntryPosition, InboxChanges, InboxCursor, InboxPage

SECRET = b"s" * 32


class FixedSecret:
    """Implements ports.keys.SecretReader."""

    async def signing_secret(self) -> bytes:
        return SECRET


@dataclass
class MemoryInbox:
    """Implements ports.inbox.InboxStore and InboxReader. Pages are not cut by bytes."""

    entries: dict[Inbox, list[Entry]] = field(default_factory=dict)

    async def page(
        self, inbox: Inbox, *, before: EntryPosition | None, limit: int, is_unread: bool
    ) -> InboxPage:
        found = [
            entry
            for entry in self._newest(inbox)
            if (before is None or (entry.created_at, entry.id) < before)
            and not (is_unread and entry.read_at)
        ]
        page = found[:limit]
        last = EntryPosition(page[-1].created_at, page[-1].id) if len(found) > limit else None
        return InboxPage(page, last, self._unread(inbox))

    async def mark_read(self, inbox: Inbox, ids: Collection[NotificationId]) -> int:
        self._mark(inbox, [entry for entry in self._newest(inbox) if entry.id in ids])
        return self._unread(inbox)

    async def mark_read_until(self, inbox: Inbox, at: datetime) -> int:
        self._mark(inbox, [entry for entry in self._newest(inbox) if entry.created_at <= at])
        return self._unread(inbox)

    async def now(self) -> InboxCursor:
        return InboxCursor("", "")

    async def changes(self, cursor: InboxCursor, inboxes: Sequence[Inbox]) -> InboxChanges:
        return InboxChanges(cursor, {}, dict.fromkeys(inboxes, 0), ())

    def _newest(self, inbox: Inbox) -> Sequence[Entry]:
        return sorted(
            self.entries.get(inbox, ()), key=lambda each: (each.created_at, each.id), reverse=True
        )

    def _mark(self, inbox: Inbox, read: Collection[Entry]) -> None:
        now = datetime.now(UTC)
        self.entries[inbox] = [
            entry._replace(read_at=entry.read_at or now) if entry in read else entry
            for entry in self._newest(inbox)
        ]

    def _unread(self, inbox: Inbox) -> int:
        return sum(entry.read_at is None for entry in self._newest(inbox))


def memory_inboxes(store: MemoryInbox | None = None) -> InboxSources:
    """Returns inboxes whose streams nothing reads."""
    store = store or MemoryInbox()
    feed = InboxFeed(reader=store, slots=StreamSlots())
    return InboxSources(store, feed, UserTokens(FixedSecret()))
