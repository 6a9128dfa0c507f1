"""The key of lookups in Postgres, and the hashes of what is stored and searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.statements import Part, statement
from notifier.domain.errors import StoreUnavailable
from notifier.domain.lookups import ANY_SCOPE, Lookup, LookupHasher, LookupKind
from notifier.domain.recipients import recipient_identity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.notification import NewNotification
    from notifier.domain.recipient_caps import CappedRecipient
    from notifier.ports.store import AttemptResult

_COLLAPSE: Final = "collapse"
_READ_KEY: Final = "SELECT value FROM secrets WHERE name = 'lookups'"


class LookupKey:
    """The deployment's key, read from the table `secrets` at the first use."""

    def __init__(self) -> None:
        self._hasher: LookupHasher | None = None

    async def hasher(self, connection: Connection[Record]) -> LookupHasher:
        """Return the hasher. Raises StoreUnavailable if the table has no key."""
        if self._hasher is None:
            key = await connection.fetchval(_READ_KEY)
            if not key:
                raise StoreUnavailable("Postgres: the table `secrets` has no key for lookups")
            self._hasher = LookupHasher(bytes(key))
        return self._hasher


async def lookup_parts(
    connection: Connection[Record], key: LookupKey, items: Sequence[NewNotification]
) -> Sequence[Part]:
    """Return the part of an insert that stores the lookups; none if there are none."""
    if not any(item.lookups for item in items):
        return ()
    hasher = await key.hasher(connection)
    ids: list[UUID] = []
    hashes: list[UUID] = []
    for item in items:
        for lookup in item.lookups:
            ids.append(item.id)
            hashes.append(hasher.digest(item.scope, lookup))
    return (Part("insert_lookups", (ids, hashes)),)


async def reference_parts(
    connection: Connection[Record], key: LookupKey, results: Sequence[AttemptResult]
) -> Sequence[Part]:
    """Return the part of a record that stores the lookups of the provider's references."""
    found = [result for result in results if result.reference]
    if not found:
        return ()
    hasher = await key.hasher(connection)
    hashes = [hasher.digest(ANY_SCOPE, reference_lookup(result.reference)) for result in found]
    return (Part("record_lookups", ([result.id for result in found], hashes)),)


async def store_late_references(
    connection: Connection[Record], key: LookupKey, results: Sequence[AttemptResult]
) -> None:
    """Store the lookups of the references of late results, before these are written.

    The other way round a crash could leave a reference that is never found.
    """
    found = {result.id: result.reference for result in results if result.reference}
    if not found:
        return
    hasher = await key.hasher(connection)
    hashes = [hasher.digest(ANY_SCOPE, reference_lookup(text)) for text in found.values()]
    await connection.fetch(
        statement("record_late_lookups"), list(found), hashes, min(found), max(found)
    )


def reference_lookup(reference: str) -> Lookup:
    """Return the lookup of a provider's id of a message."""
    return Lookup(LookupKind.REFERENCE, reference)


def recipient_lookup(recipient: str) -> Lookup:
    """Return the lookup of a recipient in its normal form."""
    return Lookup(LookupKind.RECIPIENT, recipient)


def collapse_hash(hasher: LookupHasher, item: NewNotification) -> UUID:
    """Return the hash of a collapse key, whose scope is the channel and the recipient."""
    recipient = recipient_identity(item.recipient)
    value = f"{item.queue.channel}\0{recipient}\0{item.collapse_key}"
    return hasher.digest(item.scope, Lookup(_COLLAPSE, value))


def count_hash(hasher: LookupHasher, recipient: CappedRecipient) -> UUID:
    """Return the hash of a recipient on a channel. No name of a channel contains NUL."""
    value = f"{recipient.channel}\0{recipient.recipient}"
    return hasher.digest(recipient.scope, Lookup(LookupKind.RECIPIENT, value))
