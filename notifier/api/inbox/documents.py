"""Documents of inboxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from notifier.api.requests import Instant, NullableObject
from notifier.domain.inbox import DEFAULT_TOKEN_S, MAX_MARKED, MAX_TOKEN_S, MAX_UNREAD
from notifier.domain.notification import NotificationId
from notifier.ports.inbox import Entry

Unread = Annotated[
    int,
    Meta(
        description=f"How many entries of the inbox are unread; {MAX_UNREAD:,} stands for as many "
        "or more."
    ),
]


class InboxItem(msgspec.Struct, kw_only=True):
    """An entry of an inbox. Its id is that of its notification; its texts are not HTML."""

    id: NotificationId
    subject: str | None
    body: str
    data: NullableObject
    created_at: Instant
    read_at: Instant | None
    expires_at: Instant

    @classmethod
    def of(cls, entry: Entry) -> InboxItem:
        """Builds the document of an entry."""
        return cls(
            id=entry.id,
            subject=entry.subject,
            body=entry.body,
            data=None if entry.data is None else msgspec.Raw(entry.data.encode()),
            created_at=entry.created_at,
            read_at=entry.read_at,
            expires_at=entry.expires_at,
        )


class InboxPage(msgspec.Struct):
    """Entries of an inbox, the newest first. `next_cursor` is null on the last page."""

    items: Sequence[InboxItem]
    next_cursor: str | None
    unread: Unread


class InboxReadRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which entries were read: those with these ids, or all that were created until an instant."""

    ids: Annotated[
        Annotated[tuple[UUID, ...], Meta(max_length=MAX_MARKED)] | None,
        Meta(description="Ids of other inboxes change nothing."),
    ] = None
    until_at: Annotated[
        Instant | None,
        Meta(description="Such as `created_at` of the newest entry that is shown."),
    ] = None


class InboxUnread(msgspec.Struct):
    """What is left to be read."""

    unread: Unread


class InboxTokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """For how long a user token is valid."""

    ttl_s: Annotated[float, Meta(ge=1, le=MAX_TOKEN_S)] = float(DEFAULT_TOKEN_S)


class InboxToken(msgspec.Struct):
    """A token with which a user reads and marks one inbox."""

    token: str
    expires_at: Instant


class InboxAdded(msgspec.Struct):
    """The data of the event `inbox.added`."""

    item: InboxItem
    unread: Unread


class InboxRead(msgspec.Struct):
    """The data of the event `inbox.read`."""

    ids: Sequence[NotificationId]
    unread: Unread
