"""The templates in Postgres: a table to which versions are only added."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from notifier.adapters.postgres.audit import add_action
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.audit import Action
from notifier.domain.errors import StoreUnavailable
from notifier.domain.templates import MAX_TEMPLATES, TemplateRef, TemplateVersion
from notifier.ports.templates import SavedTemplate, TemplateSummary

if TYPE_CHECKING:
    from asyncpg import Record

    from notifier.domain.tenants import TenantId
    from notifier.ports.keys import Author
    from notifier.ports.templates import NewTemplate

CONNECTIONS: Final = 1
"""How many connections `open_templates` opens at most."""


class PostgresTemplates:
    """Implements ports.templates.TemplateStore."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def find(
        self, tenant: TenantId, refs: Collection[TemplateRef]
    ) -> Mapping[TemplateRef, UUID]:
        rows = await self._connection.fetch(
            statement("templates_find"),
            tenant,
            [ref.name for ref in refs],
            [ref.version for ref in refs],
        )
        return {TemplateRef(row["name"], row["version"]): row["id"] for row in rows}

    async def load(self, id: UUID) -> TemplateVersion | None:  # noqa: A002 the port's name
        rows = await self._connection.fetch(statement("template_load"), id)
        return _version(rows[0]) if rows else None

    async def save(
        self, tenant: TenantId, new: NewTemplate, author: Author
    ) -> SavedTemplate | None:
        async with self._connection.acquire() as connection, connection.transaction():
            await connection.execute(statement("template_lock"), tenant, new.name)
            names = {row["name"] for row in await connection.fetch(*_list(tenant))}
            if len(names) >= MAX_TEMPLATES and new.name not in names:
                return None
            row = await connection.fetchrow(
                statement("template_save"),
                uuid7(),
                tenant,
                new.name,
                list(new.channels),
                new.document,
                None if new.compiled == new.document else new.compiled,
                author.actor,
            )
            if row is None:
                raise StoreUnavailable("Postgres: a stored template was not returned")
            saved = SavedTemplate(_summary(row), row["is_new"])
            if saved.is_new:
                await add_action(connection, _added(tenant, saved.summary, author))
        return saved

    async def templates(self, tenant: TenantId) -> Sequence[TemplateSummary]:
        return list(map(_summary, await self._connection.fetch(*_list(tenant))))

    async def template(self, tenant: TenantId, name: str) -> TemplateSummary | None:
        rows = await self._connection.fetch(statement("template_versions"), tenant, name)
        return _summary(rows[0], [row["version"] for row in rows]) if rows else None

    async def document(self, tenant: TenantId, name: str, version: int) -> bytes | None:
        rows = await self._connection.fetch(statement("template_document"), tenant, name, version)
        return rows[0]["document"] if rows else None


def _list(tenant: TenantId) -> tuple[str, TenantId, int]:
    return statement("templates_list"), tenant, MAX_TEMPLATES


def _version(row: Record) -> TemplateVersion | None:
    """Return the version, None if another version of Notifier wrote what this one cannot read."""
    document: bytes = row["document"]
    try:
        decoded = msgspec.json.decode(document, type=dict[str, Any])
        schema = decoded.get("schema")
        return msgspec.convert(
            {
                "id": row["id"],
                "tenant": row["tenant"],
                "name": row["name"],
                "version": row["version"],
                "default_locale": decoded["default_locale"],
                "locales": decoded["locales"],
                "schema": b"" if schema is None else msgspec.json.encode(schema),
                "size": len(document),
            },
            TemplateVersion,
        )
    except (msgspec.MsgspecError, LookupError, TypeError, UnicodeError):
        return None


def _summary(row: Record, versions: Sequence[int] = ()) -> TemplateSummary:
    return TemplateSummary(
        name=row["name"],
        version=row["version"],
        channels=row["channels"],
        created_at=row["created_at"],
        actor=row["actor"],
        versions=versions,
    )


def _added(tenant: TenantId, added: TemplateSummary, author: Author) -> Action:
    return Action(
        actor=author.actor,
        name="template.saved",
        target=f"template:{added.name}@{added.version}",
        tenant=tenant,
        after={"channels": list(added.channels)},
        request_id=author.request_id,
    )


@asynccontextmanager
async def open_templates(settings: ConnectionSettings) -> AsyncIterator[PostgresTemplates]:
    """Yield the templates with a connection of their own, which connects at the first use."""
    async with open_connection(settings) as connection:
        yield PostgresTemplates(connection)
