"""Finds what is stored of a recipient, and erases it.

Erasures keep no recipient, only hashes. Lookups find what was stored since they are kept; all other
notifications are read and compared, in this process, which has the key of the hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import msgspec

from notifier.adapters.postgres import changing
from notifier.adapters.postgres.audit import add_action
from notifier.adapters.postgres.inbox import inbox_columns
from notifier.adapters.postgres.lookups import recipient_lookup, reference_lookup
from notifier.adapters.postgres.queue_names import channel_of, known_queue, mode_of
from notifier.adapters.postgres.statements import statement
from notifier.domain.audit import Action
from notifier.domain.blobs import BlobId, blobs_of, digest_of, is_blob_id
from notifier.domain.credentials import Mode
from notifier.domain.erasure import (
    Erasure,
    all_metadata_keys,
    erased_recipient,
    erasure_hash,
    names_recipient,
    without_recipients,
)
from notifier.domain.errors import StoreConflict
from notifier.domain.inbox import INBOX, Inbox
from notifier.domain.lookups import (
    ANY_SCOPE,
    FILE,
    Lookup,
    LookupKind,
    LookupScope,
    metadata_lookups,
)
from notifier.domain.notification import NotificationId
from notifier.domain.recipients import recipient_identity
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.domain.webhooks import WEBHOOK_QUEUE, event_lookup, without_person
from notifier.ports.store import ExpiredRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from asyncpg import Connection, Record

    from notifier.adapters.postgres.event_writing import EventWriting
    from notifier.domain.lookups import LookupHasher
    from notifier.domain.operations import Operation
    from notifier.ports.queries import Filter, View

MAX_SCANNED: Final = 5000
"""Notifications that are read at a time."""
MAX_ERASED: Final = 500
"""Notifications that are erased at a time."""
MAX_READ: Final = 1000
"""Schedules, fallbacks, receipts, inboxes and filters of operations that are read at a time."""
MAX_ENTRIES: Final = 5000
"""Entries of inboxes that are removed at a time."""
BLOBS_KEPT_S: Final = 120.0
"""Longer than an API process remembers that a blob exists (api/submission/submit_blobs.py), and
than a submit takes after that."""
_READ_LOOKUPS_SINCE: Final = (
    "SELECT uuid_at(since + interval '1 hour') FROM lookup_starts WHERE kind = 'recipient'"
)
_FIRST: Final = UUID(int=0)
_FROM_FIRST: Final[Mapping[str, object]] = MappingProxyType({"id": _FIRST})


class Scope(NamedTuple):
    """Which notifications an erasure concerns: what it says of them, and whose they are."""

    erasure: Erasure
    view: View


class FoundRows(NamedTuple):
    """Ids, the newest first, and the position after which the search goes on; None: it is over."""

    ids: Sequence[NotificationId]
    before: UUID | None


class Erased(NamedTuple):
    """What was erased, what of it waited and ended, and what must be erased later."""

    ids: Sequence[NotificationId]
    ended: Sequence[ExpiredRow]
    left: Sequence[NotificationId]


async def erasure_of(
    connection: Connection[Record], hasher: LookupHasher, selection: Filter
) -> Erasure:
    """Return what an erasure of the recipients of a filter concerns."""
    view = selection.view
    tenants: Iterable[str] = {view.tenant or DEFAULT_TENANT}
    if view.tenant is None:
        rows = await connection.fetch(statement("erase_tenants"))
        tenants = {DEFAULT_TENANT, *(row["name"] for row in rows)}
    return Erasure(
        recipients=[erasure_hash(hasher, each) for each in selection.recipient],
        lookups=[
            hasher.digest(LookupScope(tenant, view.mode), recipient_lookup(each))
            for tenant in sorted(tenants)
            for each in selection.recipient
        ],
        channels=selection.channel,
    )


async def find_of_recipient(
    connection: Connection[Record], hasher: LookupHasher, scope: Scope, greatest: UUID
) -> FoundRows:
    """Return notifications of the recipients, up to an id; it reads a bounded number of rows."""
    looked_up_from = await connection.fetchval(_READ_LOOKUPS_SINCE)
    if looked_up_from is not None and greatest >= looked_up_from:
        return await _look_up(connection, hasher, scope, looked_up_from, greatest)
    rows = await connection.fetch(statement("erase_scan"), _FIRST, greatest, MAX_SCANNED)
    found = _matching(rows, hasher, scope)
    if len(found) > MAX_ERASED:
        return FoundRows(found[:MAX_ERASED], found[MAX_ERASED - 1])
    return FoundRows(found, rows[-1]["id"] if len(rows) == MAX_SCANNED else None)


async def _look_up(
    connection: Connection[Record],
    hasher: LookupHasher,
    scope: Scope,
    least: UUID,
    greatest: UUID,
) -> FoundRows:
    (page,) = await connection.fetch(
        statement("list_lookup"), least, greatest, MAX_ERASED, scope.erasure.lookups
    )
    before = page["last"] if page["count"] == MAX_ERASED else least
    return FoundRows(await _checked(connection, hasher, scope, page["ids"]), before)


async def _checked(
    connection: Connection[Record],
    hasher: LookupHasher,
    scope: Scope,
    ids: Sequence[NotificationId],
) -> Sequence[NotificationId]:
    """Return those that the erasure concerns: a hash may be that of another value."""
    if not ids:
        return []
    rows = await connection.fetch(statement("erase_read"), ids, min(ids), max(ids))
    return sorted(_matching(rows, hasher, scope), reverse=True)


def _matching(
    rows: Iterable[Record], hasher: LookupHasher, scope: Scope
) -> Sequence[NotificationId]:
    channels = scope.erasure.channels
    return [
        row["id"]
        for row in rows
        if row["recipient"]
        and mode_of(row) is scope.view.mode
        and scope.view.tenant in {None, row["tenant"]}
        and (not channels or channel_of(row) in channels)
        and erasure_hash(hasher, row["recipient"]) in scope.erasure.recipients
    ]


async def erase(
    connection: Connection[Record],
    hasher: LookupHasher,
    ids: Sequence[NotificationId],
    operation: Operation,
    events: EventWriting,
) -> Erased:
    """Erase those of these notifications that were accepted before an operation.

    What waits ends. What is being sent is left.
    """
    if not ids:
        return Erased((), (), ())
    bounds = min(ids), max(ids)
    locked = await connection.fetch(statement("erase_lock"), ids, *bounds, operation.created_at)
    concerned = [row["id"] for row in locked]
    await changing.expire(connection, concerned, events)
    ended = await connection.fetch(events.statement("erase_end", 1), concerned)
    wiped = await connection.fetch(statement("erase_wipe"), concerned, *bounds)
    references = {row["id"]: row["refs"] for row in wiped}
    await connection.execute(statement("fallbacks_drop"), list(references))
    await connection.execute(statement("inbox_erase"), list(references))
    await _erase_calls(connection, hasher, [row for row in locked if row["id"] in references])
    lookups = [
        (hash_, row["id"])
        for row in locked
        if row["id"] in references
        for hash_ in _lookups_of(row, references[row["id"]], hasher)
    ]
    if lookups:
        hashes, of = zip(*lookups, strict=True)
        await connection.execute(statement("erase_lookups"), hashes, of, *bounds)
    await _note_blobs(connection, hasher, operation, [r for r in locked if r["id"] in references])
    return Erased(
        ids=list(references),
        ended=[ExpiredRow(row["id"], known_queue(row["queue"]), row["age_s"]) for row in ended],
        left=[id_ for id_ in concerned if id_ not in references],
    )


async def _erase_calls(
    connection: Connection[Record], hasher: LookupHasher, erased: Sequence[Record]
) -> None:
    """Remove what the calls of webhooks say of these notifications: their events stay.

    Who stores such a call locks the notification, and stores none once it is erased.
    """
    hashes = [
        hasher.digest(_lookup_scope(row), event_lookup(NotificationId(row["id"]))) for row in erased
    ]
    calls = await connection.fetch(statement("erase_calls_read"), hashes, str(WEBHOOK_QUEUE))
    if calls:
        ids = [row["id"] for row in calls]
        contents = [without_person(row["content"]) for row in calls]
        await connection.execute(statement("erase_calls"), ids, contents, min(ids), max(ids))


def _lookup_scope(row: Record) -> LookupScope:
    return LookupScope(row["tenant"], mode_of(row))


def _lookups_of(row: Record, references: Sequence[str], hasher: LookupHasher) -> Iterator[UUID]:
    """Yield the hashes of all lookups that the settings may have asked for."""
    scope = _lookup_scope(row)
    yield hasher.digest(scope, recipient_lookup(recipient_identity(row["recipient"])))
    if row["tag"] is not None:
        yield hasher.digest(scope, Lookup(LookupKind.TAG, row["tag"]))
    for reference in references:
        yield hasher.digest(ANY_SCOPE, reference_lookup(reference))
    for blob in _blobs_of(row):
        yield hasher.digest(scope, Lookup(FILE, blob))
    for lookup in metadata_lookups(row["metadata"], all_metadata_keys(row["metadata"])):
        yield hasher.digest(scope, lookup)


def _blobs_of(row: Record) -> Sequence[BlobId]:
    if row["content"] is None:
        return []
    return [BlobId(name) for name in blobs_of(_decoded(row["content"])) if is_blob_id(name)]


async def _note_blobs(
    connection: Connection[Record],
    hasher: LookupHasher,
    operation: Operation,
    erased: Sequence[Record],
) -> None:
    """Note the blobs that only these notifications had, to be removed later."""
    blobs = sorted({(row["tenant"], blob) for row in erased for blob in _blobs_of(row)})
    if blobs:
        lookups = {
            mode: [hasher.digest(LookupScope(of, mode), Lookup(FILE, blob)) for of, blob in blobs]
            for mode in Mode
        }
        await connection.execute(
            statement("erase_blobs"),
            operation.id,
            [tenant for tenant, _ in blobs],
            [digest_of(blob) for _, blob in blobs],
            lookups[Mode.LIVE],
            lookups[Mode.TEST],
            BLOBS_KEPT_S,
        )


async def remove_blobs(connection: Connection[Record], operation: Operation) -> bool:
    """Remove the blobs that were noted long enough ago; return whether others remain."""
    remaining: int = await connection.fetchval(statement("erase_blobs_due"), operation.id)
    return remaining > 0


async def erase_elsewhere(
    connection: Connection[Record], hasher: LookupHasher, scope: Scope, operation: Operation
) -> None:
    """Erase the recipients where they are not those of a notification.

    Suppressions stay as hashes. Schedules that would send to them are deleted, fallbacks dropped,
    their inboxes emptied, and the filters of other operations that name them are changed.
    """
    # First, since it may take long, and what the others lock is needed by submits.
    await _erase_inboxes(connection, hasher, scope, operation)
    await connection.execute(
        statement("erase_suppressions"),
        scope.erasure.lookups,
        list(scope.erasure.channels) or None,
        operation.created_at,
    )
    await _erase_schedules(connection, hasher, scope, operation)
    await _erase_fallbacks(connection, hasher, scope, operation)
    await _erase_receipts(connection, hasher, scope, operation)
    await _erase_filters(connection, hasher, scope, operation)


async def _erase_schedules(
    connection: Connection[Record], hasher: LookupHasher, scope: Scope, operation: Operation
) -> None:
    asked = scope.view.tenant, scope.view.mode, operation.created_at
    async for rows in _pages(connection, "erase_schedules_read", asked):
        of_recipient = [row for row in rows if _submits_to(row["notification"], hasher, scope)]
        deleted = await connection.fetch(
            statement("erase_schedules"),
            [row["id"] for row in of_recipient],
            [row["notification"] for row in of_recipient],
        )
        for row in deleted:
            await add_action(connection, _schedule_deleted(row, operation))


async def _pages(
    connection: Connection[Record],
    name: str,
    asked: Sequence[object],
    after: Mapping[str, object] = _FROM_FIRST,
) -> AsyncIterator[Sequence[Record]]:
    """Yield what sql/<name>.sql returns, at most MAX_READ rows at a time.

    Its parameters are `asked`, the position after which it begins, and the maximum. `after` has
    the columns of the position, and the first one.
    """
    columns, position = list(after), list(after.values())
    while True:
        rows = await connection.fetch(statement(name), *asked, *position, MAX_READ)
        yield rows
        if len(rows) < MAX_READ:
            return
        position = [rows[-1][column] for column in columns]


def _submits_to(notification: bytes, hasher: LookupHasher, scope: Scope) -> bool:
    """Whether a stored submit, or the fallback in it, is to an erased recipient."""
    submit = _decoded(notification)
    fallback = submit.get("fallback")
    return any(
        (not scope.erasure.channels or each.get("channel") in scope.erasure.channels)
        and names_recipient(hasher, scope.erasure, each.get("recipient"))
        for each in (submit, fallback)
        if isinstance(each, dict)
    )


def _schedule_deleted(row: Record, operation: Operation) -> Action:
    return Action(
        actor=operation.actor,
        name="schedule.deleted",
        target=f"schedule:{row['id']}",
        tenant=row["tenant"],
        before={
            "cron": row["cron"],
            "time_zone": row["time_zone"],
            "paused": row["paused"],
            "operation": str(operation.id),
        },
    )


async def _erase_fallbacks(
    connection: Connection[Record], hasher: LookupHasher, scope: Scope, operation: Operation
) -> None:
    asked = scope.view.tenant, scope.view.mode is Mode.TEST, operation.created_at
    async for rows in _pages(connection, "erase_fallbacks_read", asked):
        of_recipient = [
            row["id"]
            for row in rows
            if row["is_concerned"] and _submits_to(row["submit"] or b"", hasher, scope)
        ]
        if of_recipient:
            await connection.execute(statement("fallbacks_drop"), of_recipient)


async def _erase_receipts(
    connection: Connection[Record], hasher: LookupHasher, scope: Scope, operation: Operation
) -> None:
    """Erase the recipients that receipts name whose notification is not known, and so no tenant."""
    asked, after = (operation.created_at,), {"provider": "", "key": _FIRST}
    async for rows in _pages(connection, "erase_receipts_read", asked, after):
        of_recipient = [
            (row["provider"], row["key"], erased_recipient(hasher, row["recipient"]))
            for row in rows
            if names_recipient(hasher, scope.erasure, row["recipient"])
        ]
        if of_recipient:
            columns = zip(*of_recipient, strict=True)
            await connection.execute(statement("erase_receipts"), *columns)


async def _erase_inboxes(
    connection: Connection[Record], hasher: LookupHasher, scope: Scope, operation: Operation
) -> None:
    """Remove what their inboxes had before the operation: entries outlive their notifications."""
    channels, tenant, mode = scope.erasure.channels, scope.view.tenant, scope.view.mode
    if channels and INBOX not in channels:
        return
    is_one = tenant is not None
    first = {"tenant": tenant or "", "mode": mode if is_one else "", "user_id": ""}
    async for rows in _pages(connection, "inbox_users", (), first):
        concerned = [row for row in rows if row["mode"] == mode and tenant in {None, row["tenant"]}]
        of_recipient = [
            Inbox(row["tenant"], mode, row["user_id"])
            for row in concerned
            if names_recipient(hasher, scope.erasure, row["user_id"])
        ]
        if of_recipient:
            await _erase_entries(connection, of_recipient, operation)
        if is_one and len(concerned) < len(rows):
            return  # the others follow in the order of tenant and mode


async def _erase_entries(
    connection: Connection[Record], inboxes: Sequence[Inbox], operation: Operation
) -> None:
    removed = MAX_ENTRIES
    while removed == MAX_ENTRIES:
        removed = await connection.fetchval(
            statement("inbox_erase_users"),
            *inbox_columns(inboxes),
            operation.created_at,
            MAX_ENTRIES,
        )


async def _erase_filters(
    connection: Connection[Record], hasher: LookupHasher, scope: Scope, operation: Operation
) -> None:
    asked = scope.view.tenant, scope.view.mode, operation.created_at
    async for rows in _pages(connection, "erase_operations_read", asked):
        for row in rows:
            texts = [row["filter"], row["selection"]]
            before = [_decoded(text.encode()) for text in texts]
            erased = [without_recipients(hasher, scope.erasure, each) for each in before]
            if erased != before:
                after_texts = (msgspec.json.encode(each).decode() for each in erased)
                changed = await connection.fetch(
                    statement("erase_operations"), row["id"], *after_texts, *texts
                )
                if not changed:
                    msg = "another erasure has changed the filter of an operation meanwhile"
                    raise StoreConflict(msg)


def _decoded(document: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):  # of a later version
        return {}
