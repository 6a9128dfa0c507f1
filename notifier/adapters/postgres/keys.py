"""Keys, tenants and the audit in Postgres. Every change is one transaction with its audit entry.

All spans and instants are by Postgres's clock.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from notifier.adapters.postgres.audit import add_action, read_audit
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.listening import NotifyListener, open_listener
from notifier.adapters.postgres.statements import statement
from notifier.domain.audit import Action
from notifier.domain.credentials import KeyId, Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.key_rate import usable_rate
from notifier.domain.keys import MAX_KEYS, Key, KeyScope
from notifier.domain.senders import Senders
from notifier.domain.tenants import DEFAULT_TENANT, NO_TOPICS, Tenant, TenantId, tenant_name
from notifier.ports.keys import KeyRefusal, KeysRead, KeysState, TenantRefusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from asyncpg import Record

    from notifier.domain.credentials import Credential
    from notifier.domain.keys import NewKey
    from notifier.ports.keys import AuditFilter, AuditPage, Author

CONNECTIONS: Final = 2
"""How many connections `open_keys` opens at most."""
CHANNEL: Final = "notifier_keys"
SCOPES: Final = frozenset(KeyScope)
"""A newer version may grant what this one does not know."""
MODES: Final = frozenset(Mode)
ROWS_AT_ONCE: Final = 1000
"""How many keys are made of rows before requests get a turn on the loop."""


class PostgresKeys:
    """Implements ports.keys.KeyReader, KeyStore, TenantStore, AuditReader, SecretReader.

    Without a listener, for a command, it does not hear of changes.
    """

    def __init__(
        self, connection: PostgresConnection, listener: NotifyListener | None = None
    ) -> None:
        self._connection = connection
        self._listener = listener

    async def state(self) -> KeysState:
        (row,) = await self._connection.fetch(statement("keys_state"))
        return KeysState(text=row["state"], now=row["now"])

    async def read(self) -> KeysRead:
        keys = await self.keys(None)
        tenants = await self._connection.fetch(statement("tenants_read"))
        return KeysRead(keys=keys, tenants=list(map(_tenant, tenants)))

    async def find(self, ids: Collection[KeyId]) -> Sequence[Key]:
        return await _keys(await self._connection.fetch(statement("keys_find"), list(ids)))

    async def keys(self, tenant: TenantId | None) -> Sequence[Key]:
        rows = await self._connection.fetch(statement("keys_read"), tenant, tenant is None)
        return await _keys(rows)

    async def wait_for_change(self, timeout_s: float) -> None:
        if self._listener is None:
            await asyncio.sleep(timeout_s)
        else:
            await self._listener.wait(timeout_s)

    async def note_used(self, idle_s: Mapping[KeyId, float]) -> None:
        await self._connection.fetch(statement("keys_used"), list(idle_s), list(idle_s.values()))

    async def create(self, new: NewKey, credential: Credential, author: Author) -> Key | KeyRefusal:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                statement("key_create"),
                credential.id,
                credential.digest,
                new.tenant,
                new.mode,
                list(new.scopes),
                new.rate_per_s,
                new.note,
                author.actor,
                new.expires_at,
                MAX_KEYS,
            )
            if row is None:
                names = [row["name"] for row in await connection.fetch(statement("tenants_read"))]
                is_known = new.tenant in {None, "", *names}
                return KeyRefusal.TOO_MANY if is_known else KeyRefusal.UNKNOWN_TENANT
            key = _key(row)
            await add_action(
                connection, _key_action(key, author, name="key.created", after=_shown(key))
            )
        return key

    async def revoke(
        self,
        id: KeyId,  # noqa: A002 the port's name
        author: Author,
        *,
        tenant: TenantId | None,
    ) -> bool:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statement("key_revoke"), id, tenant, tenant is None)
            if row is not None:
                key = _key(row)
                await add_action(
                    connection, _key_action(key, author, name="key.revoked", before=_shown(key))
                )
        return row is not None

    async def tenants(self) -> Sequence[Tenant]:
        return list(map(_tenant, await self._connection.fetch(statement("tenants_read"))))

    async def put_tenant(
        self,
        tenant: TenantId,
        *,
        note: str,
        author: Author,
        senders: Sequence[str] = (),
        locale: str | None = None,
        topics: Mapping[str, str] = NO_TOPICS,
        rate_per_s: float | None = None,
    ) -> Tenant | None:
        after = {
            "note": note,
            "senders": list(senders),
            "locale": locale,
            "topics": dict(topics),
            "rate_per_s": rate_per_s,
        }
        async with self._connection.acquire() as connection, connection.transaction():
            await connection.execute(statement("tenant_lock"), tenant)
            row = await connection.fetchrow(
                statement("tenant_put"),
                tenant,
                note,
                list(senders),
                locale,
                msgspec.json.encode(topics).decode(),
                rate_per_s,
            )
            if row is None:
                return None
            before = row["before"]
            action = Action(
                actor=author.actor,
                name="tenant.created" if before is None else "tenant.changed",
                target=f"tenant:{tenant_name(tenant)}",
                tenant=tenant,
                before=None if before is None else msgspec.json.decode(before),
                after=after,
                request_id=author.request_id,
            )
            await add_action(connection, action)
        return _tenant(row)

    async def delete_tenant(self, tenant: TenantId, author: Author) -> TenantRefusal | None:
        async with self._connection.acquire() as connection, connection.transaction():
            await connection.execute(statement("tenant_lock"), tenant)
            row = await connection.fetchrow(statement("tenant_delete"), tenant)
            if row is None:
                return TenantRefusal.UNKNOWN
            if refusal := _refusal(row):
                return refusal
            action = Action(
                actor=author.actor,
                name="tenant.deleted",
                target=f"tenant:{tenant}",
                tenant=tenant,
                before={"note": row["note"]},
                request_id=author.request_id,
            )
            await add_action(connection, action)
        return None

    async def signing_secret(self) -> bytes:
        rows = await self._connection.fetch("SELECT value FROM secrets WHERE name = 'signing'")
        if not rows:
            raise StoreUnavailable("Postgres: the table `secrets` has no secret for signing")
        return bytes(rows[0]["value"])

    async def audit(self, selection: AuditFilter) -> AuditPage:
        async with self._connection.acquire() as connection:
            return await read_audit(connection, selection)


def _instant(stored: datetime | None) -> datetime | None:
    """Return an instant of Postgres; the driver gives `infinity` without a time zone."""
    return stored.replace(tzinfo=UTC) if stored and stored.tzinfo is None else stored


async def _keys(rows: Sequence[Record]) -> Sequence[Key]:
    """Return the keys of this version's modes."""
    keys: list[Key] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        part = rows[start : start + ROWS_AT_ONCE]
        keys += [_key(row) for row in part if row["mode"] in MODES]
    return keys


def _key(row: Record) -> Key:
    """A row of keys_read.sql."""
    return Key(
        id=KeyId(row["id"]),
        digest=row["digest"],
        tenant=row["tenant"],
        mode=Mode(row["mode"]),
        scopes=tuple(KeyScope(scope) for scope in row["scopes"] if scope in SCOPES),
        rate_per_s=None if row["rate_per_s"] is None else usable_rate(row["rate_per_s"]),
        note=row["note"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        expires_at=_instant(row["expires_at"]),
        last_used_at=row["last_used_at"],
    )


def _shown(key: Key) -> Mapping[str, object]:
    """What the audit keeps of a key."""
    return {
        "tenant": None if key.tenant is None else tenant_name(key.tenant),
        "mode": key.mode,
        "scopes": key.scopes,
        "rate_per_s": key.rate_per_s,
        "expires_at": msgspec.to_builtins(key.expires_at),
    }


def _key_action(
    key: Key,
    author: Author,
    *,
    name: str,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> Action:
    return Action(
        actor=author.actor,
        name=name,
        target=f"key:{key.id}",
        tenant=key.tenant,
        before=before,
        after=after,
        note=key.note,
        request_id=author.request_id,
    )


def _refusal(row: Record) -> TenantRefusal | None:
    """Return why tenant_delete.sql has not deleted a tenant, None if it has."""
    if row["has_keys"]:
        return TenantRefusal.HAS_KEYS
    if row["has_schedules"]:
        return TenantRefusal.HAS_SCHEDULES
    return TenantRefusal.BUSY if row["busy"] else None


def _tenant(row: Record) -> Tenant:
    id_ = TenantId(row["name"])
    return Tenant(
        id=id_,
        note=row["note"],
        created_at=row["created_at"],
        senders=Senders(tuple(row["senders"]), is_open=id_ == DEFAULT_TENANT),
        locale=row["locale"],
        topics=msgspec.json.decode(row["topics"], type=dict[str, str]),
        rate_per_s=None if row["rate_per_s"] is None else usable_rate(row["rate_per_s"]),
    )


@asynccontextmanager
async def open_keys(settings: ConnectionSettings) -> AsyncIterator[PostgresKeys]:
    """Yield the keys with two connections of their own: one reads and writes, one listens."""
    async with (
        open_connection(settings) as connection,
        open_listener(settings, CHANNEL, name="keys listener") as listener,
    ):
        yield PostgresKeys(connection, listener)
