"""The audit in Postgres: a table to which entries are only added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from uuid_utils.compat import uuid7

from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.statements import statement
from notifier.domain.audit import Action, AuditEntry
from notifier.ports.keys import AuditPage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpg import Connection, Record

    from notifier.ports.keys import AuditFilter, Author

MAX_CANDIDATES: Final = 10_000
"""How many entries are read for a page, whatever of them matches."""


async def add_action(connection: Connection[Record], action: Action) -> None:
    """Add an entry, in the transaction of the change that it tells of."""
    await connection.execute(
        statement("audit_add"),
        uuid7(),
        action.tenant,
        action.actor,
        action.name,
        action.target,
        _encoded(action.before),
        _encoded(action.after),
        action.note,
        action.request_id,
    )


def row_action(
    kind: str,
    verb: str,
    row: Record,
    author: Author,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> Action:
    """Return what somebody did with a row of this kind that has `id`, `tenant` and `note`."""
    return Action(
        actor=author.actor,
        name=f"{kind}.{verb}",
        target=f"{kind}:{row['id']}",
        tenant=row["tenant"],
        before=before,
        after=after,
        note=row["note"],
        request_id=author.request_id,
    )


async def read_audit(connection: Connection[Record], selection: AuditFilter) -> AuditPage:
    """Read a page, newest first."""
    rows = await connection.fetch(
        statement("audit_list"),
        selection.tenant,
        selection.is_all,
        selection.actor,
        selection.action,
        selection.target,
        *id_bounds(selection.created_from, selection.created_to, selection.before),
        selection.limit,
        MAX_CANDIDATES,
    )
    entries = [_entry(row) for row in rows if row["id"] is not None]
    is_full = len(entries) == selection.limit
    return AuditPage(entries=entries, next_before=entries[-1].id if is_full else rows[0]["floor"])


def _entry(row: Record) -> AuditEntry:
    return AuditEntry(
        id=row["id"],
        at=row["at"],
        action=Action(
            actor=row["actor"],
            name=row["action"],
            target=row["target"],
            tenant=row["tenant"],
            before=_decoded(row["before"]),
            after=_decoded(row["after"]),
            note=row["note"],
            request_id=row["request_id"],
        ),
    )


def _encoded(document: Mapping[str, object] | None) -> str | None:
    return None if document is None else msgspec.json.encode(document).decode()


def _decoded(document: str | None) -> Mapping[str, object] | None:
    return None if document is None else msgspec.json.decode(document, type=dict[str, object])
