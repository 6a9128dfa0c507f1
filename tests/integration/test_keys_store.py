"""Keys, tenants and the audit that processes share, on a real Postgres."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf, nan

import asyncpg
import pytest

from notifier.adapters.postgres.audit import MAX_CANDIDATES
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.keys import PostgresKeys, open_keys
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import open_store
from notifier.domain.audit import AuditEntry
from notifier.domain.credentials import ENTROPY_BYTES, Credential, KeyId, Mode, new_credential
from notifier.domain.key_rate import MAX_RATE_PER_S, MIN_RATE_PER_S
from notifier.domain.keys import MAX_KEYS, Key, KeyScope, NewKey
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.keys import AuditFilter, Author, KeyRefusal, TenantRefusal
from tests.builders import a_notification, worker_id
from tests.live_rows import SESSIONS_THAT_WAIT_FOR_A_LOCK

SHOP = TenantId("shop")
ADA = Author(actor="cli:ada@desk", request_id="r1")
LONG_S = 60.0
ALL = AuditFilter(is_all=True)
MANY_ENTRIES = """
    INSERT INTO audit (id, actor, action, target)
    SELECT (left(uuid_at(now() + interval '1 s')::text, 14) || '7000-8000-'
            || lpad(to_hex(n), 12, '0'))::uuid, 'key:x', 'pause.created', 'queue:email.low'
    FROM generate_series(1, $1::integer) AS n"""


@pytest.fixture
async def keys(database_url: str) -> AsyncIterator[PostgresKeys]:
    async with process_keys(database_url) as keys:
        yield keys


@asynccontextmanager
async def process_keys(url: str) -> AsyncIterator[PostgresKeys]:
    async with open_keys(ConnectionSettings(url=url)) as keys:
        yield keys


PAST = datetime(2000, 1, 1, tzinfo=UTC)


def a_credential(mode: Mode = Mode.LIVE) -> Credential:
    return new_credential(mode, os.urandom(ENTROPY_BYTES))


def a_new_key(tenant: TenantId | None = DEFAULT_TENANT) -> NewKey:
    return NewKey(
        tenant=tenant,
        mode=Mode.LIVE,
        scopes=(KeyScope.SUBMIT, KeyScope.READ),
        rate_per_s=50.0,
        note="web shop",
    )


async def created(keys: PostgresKeys, tenant: TenantId | None = DEFAULT_TENANT) -> Key:
    key = await keys.create(a_new_key(tenant), a_credential(), ADA)
    assert isinstance(key, Key)
    return key


@pytest.mark.parametrize("stored", [1e-300, 0.0, -1.0, 1e300, inf, nan])
async def test_a_stored_rate_that_no_key_can_be_held_to_is_read_as_the_nearest(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record], stored: float
) -> None:
    await created(keys)
    await connection.execute("UPDATE keys SET rate_per_s = $1", stored)
    (key,) = (await keys.read()).keys
    assert key.rate_per_s in {MIN_RATE_PER_S, MAX_RATE_PER_S}


async def test_a_stored_key_is_read_as_it_was_made_and_its_secret_is_not_stored(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    credential = a_credential(Mode.TEST)
    at = datetime(2100, 1, 1, tzinfo=UTC)
    new = NewKey(tenant=None, mode=Mode.TEST, scopes=(KeyScope.ADMIN,), expires_at=at)
    key = await keys.create(new, credential, ADA)
    assert isinstance(key, Key)
    read = await keys.read()
    assert list(read.keys) == [key]
    assert (key.id, key.digest, key.tenant) == (credential.id, credential.digest, None)
    assert (key.mode, key.scopes, key.rate_per_s) == (Mode.TEST, (KeyScope.ADMIN,), None)
    assert (key.created_by, key.last_used_at) == ("cli:ada@desk", None)
    assert key.expires_at == at
    assert key.created_at <= (await keys.state()).now
    for table in ("keys", "audit"):
        stored = await connection.fetchval(f"SELECT string_agg(t::text, ' ') FROM {table} t")
        assert credential.secret not in stored


async def test_a_key_needs_a_tenant_that_exists(keys: PostgresKeys) -> None:
    refused = await keys.create(a_new_key(SHOP), a_credential(), ADA)
    assert refused is KeyRefusal.UNKNOWN_TENANT
    await keys.put_tenant(SHOP, note="", author=ADA)
    assert (await created(keys, SHOP)).tenant == SHOP


async def test_a_tenant_has_a_maximum_of_keys_and_others_have_their_own(
    keys: PostgresKeys,
) -> None:
    for _ in range(MAX_KEYS):
        await created(keys)
    assert await keys.create(a_new_key(), a_credential(), ADA) is KeyRefusal.TOO_MANY
    await created(keys, None)


async def test_test_keys_and_expired_ones_leave_room_for_live_keys(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    for number in range(MAX_KEYS):
        mode, expires_at = (Mode.TEST, None) if number % 2 else (Mode.LIVE, PAST)
        new = replace(a_new_key(), mode=mode, expires_at=expires_at)
        assert isinstance(await keys.create(new, a_credential(mode), ADA), Key)
    for _ in range(MAX_KEYS):
        await created(keys)
    assert await keys.create(a_new_key(), a_credential(), ADA) is KeyRefusal.TOO_MANY
    new = replace(a_new_key(), mode=Mode.TEST)
    assert isinstance(await keys.create(new, a_credential(Mode.TEST), ADA), Key)
    removed = await connection.fetch(statement("keys_prune"), 30)
    assert len(removed) == MAX_KEYS / 2
    assert len((await keys.read()).keys) == 3 * MAX_KEYS / 2 + 1


async def test_a_tenant_is_deleted_with_its_expired_keys(keys: PostgresKeys) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    await keys.create(replace(a_new_key(SHOP), expires_at=PAST), a_credential(), ADA)
    assert await keys.delete_tenant(SHOP, ADA) is None
    assert not (await keys.read()).keys


async def test_a_key_is_revoked_by_its_tenant_or_for_the_deployment_and_only_once(
    keys: PostgresKeys,
) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    shop, default, deployment = [
        await created(keys, tenant) for tenant in (SHOP, DEFAULT_TENANT, None)
    ]
    assert not await keys.revoke(default.id, ADA, tenant=SHOP)
    assert not await keys.revoke(deployment.id, ADA, tenant=SHOP)
    assert await keys.revoke(shop.id, ADA, tenant=SHOP)
    assert not await keys.revoke(shop.id, ADA, tenant=SHOP)
    assert await keys.revoke(deployment.id, ADA, tenant=None)
    assert [key.id for key in (await keys.read()).keys] == [default.id]


async def test_another_process_hears_of_each_change_of_a_key(
    keys: PostgresKeys, database_url: str
) -> None:
    async with process_keys(database_url) as other:
        await other.wait_for_change(LONG_S)  # until it listens
        key = await created(keys)
        await other.wait_for_change(LONG_S)
        assert await keys.revoke(key.id, ADA, tenant=None)
        await other.wait_for_change(LONG_S)
        assert not (await other.read()).keys


async def test_a_later_use_counts(keys: PostgresKeys) -> None:
    key = await created(keys)
    await keys.note_used({key.id: 100.0, KeyId("unknown"): 0.0})
    [first] = (await keys.read()).keys
    await keys.note_used({key.id: 500.0})
    [second] = (await keys.read()).keys
    assert first.last_used_at == second.last_used_at
    await keys.note_used({key.id: 0.0})
    [third] = (await keys.read()).keys
    assert first.last_used_at
    assert third.last_used_at
    assert third.last_used_at - first.last_used_at >= timedelta(seconds=99)


async def test_what_a_newer_version_stores_does_not_stop_this_one(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    key = await created(keys)
    await created(keys)
    await connection.execute("UPDATE keys SET scopes = '{read,dance}' WHERE id = $1", key.id)
    await connection.execute("UPDATE keys SET mode = 'dry' WHERE id <> $1", key.id)
    [read] = (await keys.read()).keys
    assert (read.id, read.scopes) == (key.id, (KeyScope.READ,))


async def test_tenants_are_made_changed_and_deleted(keys: PostgresKeys) -> None:
    made = await keys.put_tenant(SHOP, note="the shop", author=ADA)
    changed = await keys.put_tenant(SHOP, note="the old shop", author=ADA)
    assert made
    assert changed
    assert (made.note, changed.note) == ("the shop", "the old shop")
    assert [tenant.name for tenant in await keys.tenants()] == ["default", "shop"]
    key = await created(keys, SHOP)
    assert await keys.delete_tenant(SHOP, ADA) is TenantRefusal.HAS_KEYS
    await keys.revoke(key.id, ADA, tenant=None)
    assert await keys.delete_tenant(SHOP, ADA) is None
    assert await keys.delete_tenant(SHOP, ADA) is TenantRefusal.UNKNOWN
    entries = await entries_of(keys, ALL)
    assert [entry.action.name for entry in entries] == [
        "tenant.deleted",
        "key.revoked",
        "key.created",
        "tenant.changed",
        "tenant.created",
    ]
    assert (entries[3].action.before, entries[3].action.after) == (
        {"note": "the shop", "senders": [], "locale": None, "topics": {}, "rate_per_s": None},
        {"note": "the old shop", "senders": [], "locale": None, "topics": {}, "rate_per_s": None},
    )


async def test_the_name_of_a_deleted_tenant_is_free_when_nothing_of_it_is_stored(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    await connection.execute("""
        INSERT INTO templates (id, tenant, name, version, channels, document, actor)
        SELECT gen_random_uuid(), tenant, 'a', 1, '{}', '', ''
        FROM unnest(ARRAY['shop', 'bank']) tenant;
        INSERT INTO suppressions (id, hash, tenant, mode, channel, topic, reason, note)
        SELECT gen_random_uuid(), gen_random_uuid(), tenant, 'live', 'email', '', 'manual', ''
        FROM unnest(ARRAY['shop', 'shop', 'bank']) tenant;
    """)
    assert await keys.delete_tenant(SHOP, ADA) is None
    today = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    for days, left in ((1, [3, 2]), (2, [2, 1]), (2, [1, 1])):
        assert await keys.put_tenant(SHOP, note="another", author=ADA) is None
        await connection.fetch(statement("tenants_prune"), today + timedelta(days=days), 1)
        stored = [
            await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("suppressions", "templates")
        ]
        assert stored == left
    freed = await connection.fetch(statement("tenants_prune"), today + timedelta(days=2), 1)
    assert [row["name"] for row in freed] == ["shop"]
    assert await keys.put_tenant(SHOP, note="another", author=ADA)


async def test_a_tenant_does_not_see_the_audit_of_an_earlier_one_of_its_name(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    key = await created(keys, SHOP)
    await keys.revoke(key.id, ADA, tenant=None)
    assert len(await targets(keys, AuditFilter(tenant=SHOP))) == 3
    assert await keys.delete_tenant(SHOP, ADA) is None
    await connection.execute("DELETE FROM deleted_tenants")
    await keys.put_tenant(SHOP, note="another", author=ADA)
    assert await targets(keys, AuditFilter(tenant=SHOP)) == ["tenant:shop"]
    assert len(await targets(keys, ALL)) == 5


async def until_waiting(connection: asyncpg.Connection[asyncpg.Record], *, sessions: int) -> None:
    """Return when so many sessions wait for a lock. A transaction sees them once unless cleared."""
    while await connection.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK) < sessions:
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        await asyncio.sleep(0.01)


async def test_a_tenant_that_is_being_deleted_is_not_changed_and_gets_no_key(
    keys: PostgresKeys, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    async with (
        process_keys(database_url) as others,
        asyncio.TaskGroup() as group,
        connection.transaction(),
    ):
        await connection.execute(statement("tenant_delete"), SHOP)
        putting = group.create_task(keys.put_tenant(SHOP, note="", author=ADA))
        making = group.create_task(others.create(a_new_key(SHOP), a_credential(), ADA))
        await until_waiting(connection, sessions=2)
    assert putting.result() is None
    assert making.result() is KeyRefusal.UNKNOWN_TENANT


async def test_a_tenant_is_not_deleted_while_a_key_of_it_is_being_made(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    async with asyncio.TaskGroup() as group, connection.transaction():
        await connection.execute("SELECT FROM tenants WHERE name = 'shop' FOR KEY SHARE")
        await connection.execute(
            """INSERT INTO keys (id, digest, tenant, mode, scopes, note, created_by)
                   VALUES ('abcdefghijkl', '\\x00', 'shop', 'live', '{read}', '', 'test')"""
        )
        deleting = group.create_task(keys.delete_tenant(SHOP, ADA))
        await until_waiting(connection, sessions=1)
    assert deleting.result() is TenantRefusal.HAS_KEYS


async def test_a_tenant_with_waiting_notifications_is_not_deleted(
    keys: PostgresKeys, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        await store.insert([a_notification()])
    await connection.execute("UPDATE notifications SET tenant = 'shop'")
    assert await keys.delete_tenant(SHOP, ADA) is TenantRefusal.BUSY
    await connection.execute("DELETE FROM live")
    assert await keys.delete_tenant(SHOP, ADA) is None


async def test_a_tenant_sees_its_own_entries_of_the_audit(keys: PostgresKeys) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    shop, default, _ = [await created(keys, tenant) for tenant in (SHOP, DEFAULT_TENANT, None)]
    assert await targets(keys, AuditFilter(tenant=SHOP)) == [f"key:{shop.id}", "tenant:shop"]
    assert await targets(keys, AuditFilter(tenant=DEFAULT_TENANT)) == [f"key:{default.id}"]
    assert await targets(keys, AuditFilter()) == []
    assert len(await targets(keys, ALL)) == 4
    assert await targets(keys, AuditFilter(is_all=True, action="tenant.created")) == ["tenant:shop"]
    assert await targets(keys, AuditFilter(is_all=True, actor="key:x")) == []
    assert await targets(keys, AuditFilter(is_all=True, target="tenant:shop")) == ["tenant:shop"]


async def entries_of(keys: PostgresKeys, selection: AuditFilter) -> list[AuditEntry]:
    return list((await keys.audit(selection)).entries)


async def targets(keys: PostgresKeys, selection: AuditFilter) -> list[str]:
    return [entry.action.target for entry in await entries_of(keys, selection)]


async def test_pages_of_the_audit_follow_each_other(keys: PostgresKeys) -> None:
    for _ in range(5):
        await created(keys)
    whole = await entries_of(keys, ALL)
    first = await keys.audit(AuditFilter(is_all=True, limit=2))
    rest = await keys.audit(AuditFilter(is_all=True, before=first.next_before))
    assert [*first.entries, *rest.entries] == whole
    assert rest.next_before is None
    now = whole[0].at.timestamp()
    assert not await entries_of(keys, AuditFilter(is_all=True, created_to=now - 60))
    assert len(await entries_of(keys, AuditFilter(is_all=True, created_from=now - 60))) == 5
    action = whole[0].action
    assert (action.actor, action.request_id, action.note) == ("cli:ada@desk", "r1", "web shop")
    assert action.after is not None
    assert action.after["scopes"] == ["submit", "read"]


async def test_a_page_of_the_audit_reads_a_limited_number_of_entries(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await keys.put_tenant(SHOP, note="", author=ADA)
    await connection.execute(MANY_ENTRIES, MAX_CANDIDATES)
    rare = AuditFilter(is_all=True, action="tenant.created")
    first = await keys.audit(rare)
    assert not first.entries
    assert first.next_before is not None
    last = await keys.audit(replace(rare, before=first.next_before))
    assert [entry.action.target for entry in last.entries] == ["tenant:shop"]
    assert last.next_before is None


@pytest.mark.parametrize(
    "change",
    ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "TRUNCATE audit"],
)
async def test_entries_of_the_audit_are_not_changed_and_new_ones_not_removed(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record], change: str
) -> None:
    await created(keys)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await connection.execute(change)
    assert len(await entries_of(keys, ALL)) == 1


async def test_old_entries_of_the_audit_are_removed(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await created(keys)
    await connection.execute(
        "INSERT INTO audit (id, at, actor, action, target) "
        "SELECT uuid_at(now() - make_interval(days => d)), now() - make_interval(days => d), "
        "'cli', 'key.created', 'key:' || d FROM unnest(ARRAY[364, 366, 400]) AS t (d)"
    )
    assert len(await connection.fetch(statement("audit_prune"), 365, 1)) == 1
    assert len(await connection.fetch(statement("audit_prune"), 365, 100)) == 1
    assert "key:364" in await targets(keys, ALL)


async def test_a_change_without_its_entry_is_not_made(
    keys: PostgresKeys, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("ALTER TABLE audit RENAME TO hidden")
    with pytest.raises(Exception, match="audit"):
        await created(keys)
    await connection.execute("ALTER TABLE hidden RENAME TO audit")
    assert not (await keys.read()).keys
