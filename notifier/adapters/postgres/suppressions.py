"""Suppressions in Postgres. Every change of a person is one transaction with its audit entry."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from notifier.adapters.postgres.audit import add_action
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.lookups import LookupKey, recipient_lookup
from notifier.adapters.postgres.statements import statement
from notifier.domain.audit import Action
from notifier.domain.events import EventType
from notifier.domain.lookups import LookupScope
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import SuppressedOn, Suppression, SuppressionReason
from notifier.ports.suppressions import (
    UNKNOWN_FOR_S,
    AddedSuppression,
    Recipient,
    SuppressionPage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from asyncpg import Connection, Record

    from notifier.domain.lookups import LookupHasher
    from notifier.domain.suppressions import NewSuppression, SuppressionScope
    from notifier.domain.unsubscribing import Unsubscribe
    from notifier.ports.keys import Author
    from notifier.ports.suppressions import SuppressionFilter

CONNECTIONS: Final = 1
"""How many connections `open_suppressions` opens."""
SPREAD_AFTER_S: Final = 15.0
"""Every process knows that there are suppressions if one is so old: longer than any transaction."""
MAX_CANDIDATES: Final = 2000


def hashes_of(hasher: LookupHasher, recipients: Collection[Recipient]) -> Mapping[Recipient, UUID]:
    """Return the hash of each recipient, as suppressions and lookups are stored."""
    return {
        each: hasher.digest(each.scope, recipient_lookup(each.recipient)) for each in recipients
    }


async def read_suppressed(
    connection: Connection[Record], key: LookupKey, recipients: Collection[Recipient]
) -> Mapping[Recipient, Sequence[SuppressedOn]]:
    """Implements ports.suppressions.SuppressionReader.suppressed."""
    hasher = await key.hasher(connection)
    by_hash = {hash_: each for each, hash_ in hashes_of(hasher, recipients).items()}
    rows = await connection.fetch(statement("suppressed"), list(by_hash))
    found: defaultdict[Recipient, list[SuppressedOn]] = defaultdict(list)
    for row in rows:
        found[by_hash[row["hash"]]].append(
            SuppressedOn(row["channel"], row["topic"], row["reason"])
        )
    return found


class PostgresSuppressions:
    """Implements ports.suppressions.SuppressionPort."""

    def __init__(self, connection: PostgresConnection, events: EventWriting = WRITE_EVENTS) -> None:
        self._connection = connection
        self._events = events
        self._key = LookupKey()

    async def add(
        self, scope: SuppressionScope, new: Sequence[NewSuppression], author: Author
    ) -> Sequence[AddedSuppression]:
        async with self._connection.acquire() as connection, connection.transaction():
            hashes = await self._hashes(connection, scope, [each.recipient for each in new])
            unique = {
                (hash_, each.channel, each.topic or ""): each
                for hash_, each in zip(hashes, new, strict=True)
            }
            rows = await connection.fetch(
                statement("suppressions_add"),
                scope.tenant,
                scope.mode,
                [uuid7() for _ in unique],
                [hash_ for hash_, _, _ in unique],
                [channel for _, channel, _ in unique],
                [topic for _, _, topic in unique],
                [each.recipient for each in unique.values()],
                [each.reason for each in unique.values()],
                [each.note for each in unique.values()],
                [each.expires_at for each in unique.values()],
                [None for _ in unique],
            )
            await add_action(connection, _added(scope, rows, author))
            await self._announce(connection, scope, rows)
        await self._wait_until_known()
        added = {
            (row["hash"], row["channel"], row["topic"]): AddedSuppression(
                _suppression(row), row["is_new"]
            )
            for row in rows
        }
        first: set[UUID] = set()
        return [
            _once(added[hash_, each.channel, each.topic or ""], first)
            for hash_, each in zip(hashes, new, strict=True)
        ]

    async def suppressions(self, selection: SuppressionFilter) -> SuppressionPage:
        scope = selection.scope
        async with self._connection.acquire() as connection:
            hashes = await self._hashes(connection, scope, selection.recipient)
            _, greatest = id_bounds(None, None, selection.before)
            rows = await connection.fetch(
                statement("suppressions_list"),
                scope.tenant,
                scope.mode,
                greatest,
                selection.limit + 1,
                MAX_CANDIDATES,
                hashes or None,
                list(selection.channel) or None,
                list(selection.topic) or None,
                list(selection.reason) or None,
            )
        found = [_suppression(row) for row in rows if row["id"] is not None]
        shown = found[: selection.limit]
        if len(found) > len(shown):
            return SuppressionPage(suppressions=shown, next_before=shown[-1].id)
        is_last = rows[0]["count"] < MAX_CANDIDATES
        return SuppressionPage(suppressions=shown, next_before=None if is_last else rows[0]["last"])

    async def remove(
        self,
        scope: SuppressionScope,
        id: UUID,  # noqa: A002 the port's name
        author: Author,
    ) -> bool:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                statement("suppression_remove"), id, scope.tenant, scope.mode
            )
            if row is not None:
                action = Action(
                    actor=author.actor,
                    name="suppression.deleted",
                    target=f"suppression:{id}",
                    tenant=scope.tenant,
                    before=_shown(row),
                    request_id=author.request_id,
                )
                await add_action(connection, action)
                await self._events.add(
                    connection,
                    EventType.SUPPRESSION_DELETED,
                    {id: {"id": id, "recipient": None, **_shown(row)}},
                    tenant=scope.tenant,
                    mode=scope.mode,
                )
        return row is not None

    async def unsubscribe(self, wish: Unsubscribe) -> UUID:
        async with self._connection.acquire() as connection, connection.transaction():
            (row,) = await connection.fetch(
                statement("suppressions_add"),
                wish.scope.tenant,
                wish.scope.mode,
                [uuid7()],
                [wish.recipient],
                [wish.channel],
                [wish.topic],
                [await self._recipient_of(connection, wish)],
                [SuppressionReason.UNSUBSCRIBE],
                [""],
                [None],
                [wish.notification],
            )
            await self._announce(connection, wish.scope, [row])
        await self._wait_until_known()
        id_: UUID = row["id"]
        return id_

    async def _announce(
        self, connection: Connection[Record], scope: SuppressionScope, rows: Sequence[Record]
    ) -> None:
        """Write the events of new suppressions. Their recipients are read with the events."""
        created = {
            row["id"]: {
                "id": row["id"],
                "recipient": None,
                **_shown(row),
                "notification": row["notification"],
            }
            for row in rows
            if row["is_new"]
        }
        await self._events.add(
            connection,
            EventType.SUPPRESSION_CREATED,
            created,
            tenant=scope.tenant,
            mode=scope.mode,
        )

    async def _recipient_of(self, connection: Connection[Record], wish: Unsubscribe) -> str | None:
        """Return the recipient of the notification, None if it is gone or erased."""
        recipient = await connection.fetchval(
            "SELECT recipient FROM notifications WHERE id = $1", wish.notification
        )
        if recipient is None:
            return None
        identity = recipient_identity(recipient)
        (hash_,) = await self._hashes(connection, wish.scope, [identity])
        return identity if hash_ == wish.recipient else None

    async def _hashes(
        self,
        connection: Connection[Record],
        scope: SuppressionScope,
        recipients: Sequence[str],
    ) -> list[UUID]:
        hasher = await self._key.hasher(connection)
        of = LookupScope(scope.tenant, scope.mode)
        return [hasher.digest(of, recipient_lookup(recipient)) for recipient in recipients]

    async def _wait_until_known(self) -> None:
        """Wait until no process believes any more that there are no suppressions.

        A process that has seen none does not ask for them at each submit: see
        delivery/suppression_check.py.
        """
        (row,) = await self._connection.fetch(
            "SELECT EXISTS (SELECT FROM suppressions"
            " WHERE created_at < now() - $1 * interval '1 second') AS is_known",
            SPREAD_AFTER_S,
        )
        if not row["is_known"]:
            await asyncio.sleep(UNKNOWN_FOR_S)


def _once(added: AddedSuppression, seen: set[UUID]) -> AddedSuppression:
    """Return what was added; the second of two equal ones in a call is not new."""
    is_first = added.suppression.id not in seen
    seen.add(added.suppression.id)
    return added if is_first else AddedSuppression(added.suppression, is_new=False)


def _added(scope: SuppressionScope, rows: Sequence[Record], author: Author) -> Action:
    """What the audit keeps: no recipient, which could be erased nowhere else."""
    is_one = len(rows) == 1
    return Action(
        actor=author.actor,
        name="suppression.created",
        target=f"suppression:{rows[0]['id']}" if is_one else "suppressions",
        tenant=scope.tenant,
        after=_shown(rows[0]) if is_one else {"count": len(rows)},
        note=rows[0]["note"] if is_one else "",
        request_id=author.request_id,
    )


def _shown(row: Record) -> Mapping[str, object]:
    return {
        "channel": row["channel"],
        "topic": row["topic"] or None,
        "reason": row["reason"],
        "expires_at": msgspec.to_builtins(row["expires_at"]),
    }


def _suppression(row: Record) -> Suppression:
    return Suppression(
        id=row["id"],
        channel=row["channel"],
        recipient=row["recipient"],
        topic=row["topic"] or None,
        reason=row["reason"],
        note=row["note"],
        notification=row["notification"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


@asynccontextmanager
async def open_suppressions(
    settings: ConnectionSettings, *, events: EventWriting = WRITE_EVENTS
) -> AsyncIterator[PostgresSuppressions]:
    """Suppressions on a connection of their own."""
    async with open_connection(settings) as connection:
        yield PostgresSuppressions(connection, events)
