"""Changes that people make of notifications: they are cancelled, or sent again after they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from notifier.adapters.postgres.finding import find, matching, seen
from notifier.adapters.postgres.queue_names import channel_of, known_queue, mode_of
from notifier.adapters.postgres.searching import NO_SEARCH, search_of
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.suppressions import read_suppressed
from notifier.domain.lookups import LookupScope
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import suppression_of
from notifier.ports.store import ExpiredRow
from notifier.ports.suppressions import Recipient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.adapters.postgres.event_writing import EventWriting
    from notifier.adapters.postgres.lookups import LookupKey
    from notifier.domain.notification import NotificationId
    from notifier.ports.queries import Filter


class Ended(NamedTuple):
    """A notification that has ended, with what decides whether it may be sent again."""

    id: NotificationId
    queue: str
    channel: str
    topic: str | None
    recipient: Recipient
    has_content: bool


class FoundIds(NamedTuple):
    """Ids, the newest first, and the position after which the search goes on; None: it is over."""

    ids: Sequence[NotificationId]
    before: UUID | None


async def find_page(
    connection: Connection[Record], key: LookupKey, selection: Filter, ids: Sequence[NotificationId]
) -> FoundIds:
    """Return the next notifications of a filter, or those of these ids that it selects.

    `ids` are in the order of the search, the newest first.
    """
    if ids:
        return await _of_ids(connection, selection, ids)
    search = await search_of(connection, key, selection)
    found = await find(connection, selection, search)
    page = found.ids[: selection.limit]
    return FoundIds(page, page[-1] if len(found.ids) > len(page) else found.floor)


async def _of_ids(
    connection: Connection[Record], selection: Filter, ids: Sequence[NotificationId]
) -> FoundIds:
    before = selection.before
    left = [id_ for id_ in ids if before is None or id_ < before]
    page = left[: selection.limit]
    found = await matching(connection, page, selection, NO_SEARCH, len(page))
    found = await seen(connection, found, selection.view)
    return FoundIds(found, page[-1] if len(left) > len(page) else None)


async def cancel(
    connection: Connection[Record],
    ids: Sequence[NotificationId],
    *,
    accepted_by: datetime | None = None,
    events: EventWriting,
) -> Sequence[ExpiredRow]:
    """End those of these notifications that wait, and were accepted until this instant."""
    rows = await connection.fetch(events.statement("cancel", 2), ids, accepted_by)
    return [ExpiredRow(row["id"], known_queue(row["queue"]), row["age_s"]) for row in rows]


async def count_left(
    connection: Connection[Record], ids: Sequence[NotificationId], accepted_by: datetime
) -> int:
    """Return how many of these notifications may still have to be cancelled."""
    count: int = await connection.fetchval(statement("cancel_left"), ids, accepted_by)
    return count


async def retry(
    connection: Connection[Record],
    ids: Sequence[NotificationId],
    *,
    ended_by: datetime | None = None,
    operation: UUID | None = None,
) -> Sequence[NotificationId]:
    """Let those of these notifications wait again that have ended, until this instant."""
    rows = await connection.fetch(statement("retry"), ids, min(ids), max(ids), ended_by, operation)
    return [row["id"] for row in rows]


async def expire(
    connection: Connection[Record], ids: Sequence[NotificationId], events: EventWriting
) -> None:
    """End those of these notifications as expired whose time is over, before the sweeper does."""
    await connection.fetch(events.statement("sweep", 1), ids)


async def read_ended(
    connection: Connection[Record],
    ids: Sequence[NotificationId],
    *,
    ended_by: datetime | None = None,
) -> Sequence[Ended]:
    """Return those of these notifications that had ended by then, other than by being sent.

    The newest come first.
    """
    rows = await connection.fetch(statement("retry_candidates"), ids, min(ids), max(ids), ended_by)
    return sorted(map(_ended, rows), key=_by_id, reverse=True)


async def without_suppressed(
    connection: Connection[Record], key: LookupKey, ended: Sequence[Ended]
) -> Sequence[Ended]:
    """Return those whose recipients are not suppressed now."""
    if not ended:
        return []
    found = await read_suppressed(connection, key, {each.recipient for each in ended})
    return [
        each
        for each in ended
        if suppression_of(found.get(each.recipient, ()), each.channel, each.topic) is None
    ]


def _by_id(ended: Ended) -> NotificationId:
    return ended.id


def _ended(row: Record) -> Ended:
    return Ended(
        id=row["id"],
        queue=row["queue"],
        channel=channel_of(row),
        topic=row["topic"],
        recipient=Recipient(
            LookupScope(row["tenant"], mode_of(row)), recipient_identity(row["recipient"])
        ),
        has_content=row["has_content"],
    )
