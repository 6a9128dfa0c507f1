"""Which lookups a filter asks for, and whether a notification that they find really matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.statements import statement
from notifier.domain.lookups import (
    ANY_SCOPE,
    Lookup,
    LookupKind,
    LookupScope,
    metadata_kind,
    metadata_lookups,
)
from notifier.domain.notification import WEBHOOK_CHANNEL
from notifier.domain.recipients import recipient_identity
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.domain.webhooks import OF_DEPLOYMENT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.adapters.postgres.lookups import LookupKey
    from notifier.domain.notification import NotificationView
    from notifier.ports.queries import Filter

_Group = tuple[Lookup, ...]
"""Lookups of which a notification has one."""


@dataclass(frozen=True, slots=True)
class LookupSearch:
    """The groups of lookups that a filter asks for, and their hashes."""

    groups: Sequence[_Group] = ()
    hashes: Sequence[Sequence[UUID]] = ()

    @property
    def is_used(self) -> bool:
        """Whether the filter asks for any lookup."""
        return bool(self.groups)

    @property
    def other_groups(self) -> Sequence[Sequence[UUID]]:
        """The hashes of all groups but the first, in arrays of one length, as Postgres needs them.

        The last hash of a shorter one is repeated.
        """
        others = self.hashes[1:]
        width = max(map(len, others), default=0)
        return [[*hashes, *[hashes[-1]] * (width - len(hashes))] for hashes in others]

    def matches(self, view: NotificationView) -> bool:
        """Return whether a notification has a lookup of each group."""
        if not self.groups:
            return True
        own = {
            Lookup(LookupKind.RECIPIENT, recipient_identity(view.recipient)),
            Lookup(LookupKind.TAG, view.tag or ""),
            Lookup(LookupKind.REFERENCE, view.reference or ""),
        }
        keys = [
            lookup.kind.partition(".")[2]
            for group in self.groups
            for lookup in group
            if lookup.kind.startswith(f"{LookupKind.METADATA}.")
        ]
        own.update(metadata_lookups(view.metadata, keys))
        return all(not own.isdisjoint(group) for group in self.groups)


NO_SEARCH: Final = LookupSearch()


async def search_of(
    connection: Connection[Record], key: LookupKey, selection: Filter
) -> LookupSearch:
    """Return the search that a filter asks for."""
    groups = list(_groups(selection))
    if not groups:
        return NO_SEARCH
    hasher = await key.hasher(connection)
    scopes = await _scopes(connection, selection)
    hashes = [
        [
            hasher.digest(scope, lookup)
            for lookup in group
            for scope in ([ANY_SCOPE] if _is_reference(lookup) else scopes)
        ]
        for group in groups
    ]
    return LookupSearch(groups, hashes)


def _groups(selection: Filter) -> Sequence[_Group]:
    """Return the groups, the one first that fewest notifications have."""
    groups = [
        tuple(Lookup(LookupKind.REFERENCE, text) for text in selection.reference),
        _group_of_text(selection.q),
        tuple(Lookup(LookupKind.RECIPIENT, text) for text in selection.recipient),
        *(
            tuple(Lookup(metadata_kind(key), text) for text in values)
            for key, values in selection.metadata
        ),
        tuple(Lookup(LookupKind.TAG, text) for text in selection.tag),
    ]
    return [group for group in groups if group]


def _group_of_text(text: str | None) -> _Group:
    if text is None:
        return ()
    return (
        Lookup(LookupKind.RECIPIENT, recipient_identity(text)),
        Lookup(LookupKind.REFERENCE, text),
    )


async def _scopes(connection: Connection[Record], selection: Filter) -> Sequence[LookupScope]:
    """Return whose notifications the filter selects."""
    view = selection.view
    if view.tenant is not None:
        return [LookupScope(view.tenant, view.mode)]
    rows = await connection.fetch(statement("tenants_read"))
    tenants = [DEFAULT_TENANT, *(row["name"] for row in rows)]
    if WEBHOOK_CHANNEL in selection.channel:
        tenants.append(OF_DEPLOYMENT)
    return [LookupScope(tenant, view.mode) for tenant in tenants]


def _is_reference(lookup: Lookup) -> bool:
    return lookup.kind == LookupKind.REFERENCE
