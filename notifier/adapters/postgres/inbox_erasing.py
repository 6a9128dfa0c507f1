"""Removes entries of inboxes whose users are erased. Called in the transaction of an erasure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from notifier.adapters.postgres.inbox import inbox_columns
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.inbox import Inbox
from notifier.domain.tenants import TenantId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncpg import Connection, Record

    from notifier.domain.notification import NotificationId

MAX_INBOXES: Final = 2000
_FIRST: Final = ("", "", "")


class ErasedUsers(Protocol):
    """Which users are erased. It knows keyed hashes alone, which Postgres cannot compute."""

    def has(self, inbox: Inbox) -> bool:
        """Whether the user of this inbox is erased."""
        ...


async def erase_entries(connection: Connection[Record], ids: Sequence[NotificationId]) -> int:
    """Remove the entries of these notifications; return how many there were."""
    return len(await connection.fetch(statement("inbox_erase"), [], [], [], None, ids))


async def erase_inboxes(
    connection: Connection[Record], users: ErasedUsers, *, until_at: datetime, after: Inbox | None
) -> Inbox | None:
    """Look at some inboxes, and remove what erased users had until an instant.

    Entries outlive their notifications, so their users are looked for here, too. Returns the inbox
    after which to go on; None: that was all.
    """
    rows = await connection.fetch(statement("inbox_users"), *(after or _FIRST), MAX_INBOXES)
    found = [Inbox(TenantId(row["tenant"]), Mode(row["mode"]), row["user_id"]) for row in rows]
    erased = [inbox for inbox in found if users.has(inbox)]
    if erased:
        await connection.fetch(statement("inbox_erase"), *inbox_columns(erased), until_at, [])
    return found[-1] if len(found) == MAX_INBOXES else None
