"""The keys that a process holds in memory: changes, expiry, and Postgres away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from typing_extensions import override

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.keys import PostgresKeys, open_keys
from notifier.api.auth import keyring as module
from notifier.api.auth.keyring import Keyring
from notifier.domain.credentials import ENTROPY_BYTES, Credential, KeyId, Mode, new_credential
from notifier.domain.errors import StoreUnavailable
from notifier.domain.keys import Key, KeyScope, NewKey
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.lifecycle import background_task, uptime_s
from notifier.ports.keys import Author, KeysRead

ADA = Author(actor="cli:ada@desk")
BOUND_S = 30.0
LONG_S = 3600.0


class Time:
    """The clock of a process, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return uptime_s() + self.ahead_s


@asynccontextmanager
async def process_keys(url: str) -> AsyncIterator[PostgresKeys]:
    async with open_keys(ConnectionSettings(url=url, statement_timeout_s=1.0)) as keys:
        yield keys


@pytest.fixture
async def keys(database_url: str) -> AsyncIterator[PostgresKeys]:
    async with process_keys(database_url) as keys:
        yield keys


async def make(keys: PostgresKeys, *, expires_in_s: float | None = None) -> Credential:
    credential = new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES))
    new = NewKey(
        tenant=DEFAULT_TENANT,
        mode=Mode.LIVE,
        scopes=(KeyScope.READ,),
        expires_at=None
        if expires_in_s is None
        else datetime.now(UTC) + timedelta(seconds=expires_in_s),
    )
    assert isinstance(await keys.create(new, credential, ADA), Key)
    return credential


async def until_refused(ring: Keyring, credential: Credential) -> None:
    async with asyncio.timeout(BOUND_S):
        while await ring.find(credential.text):
            await asyncio.sleep(0.01)


async def test_a_key_that_was_just_made_elsewhere_is_known_at_its_first_use(
    keys: PostgresKeys, database_url: str
) -> None:
    async with process_keys(database_url) as other:
        ring = Keyring(other)
        await ring.read()
        for _ in range(3):
            credential = await make(keys)
            found = await ring.find(credential.text)
            assert found is not None
            assert found.id == credential.id


async def test_a_revoked_key_is_refused_by_its_notification_alone(
    keys: PostgresKeys, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_INTERVAL_S", LONG_S)
    credential = await make(keys)
    async with process_keys(database_url) as other:
        ring = Keyring(other)
        async with background_task(ring, "keys"):
            await other.wait_for_change(BOUND_S)  # it listens
            assert await ring.find(credential.text)
            await keys.revoke(credential.id, ADA, tenant=None)
            await until_refused(ring, credential)
            assert ring.key(credential.id) is None


async def test_a_revoked_key_whose_notification_is_lost_is_refused_by_the_next_read(
    keys: PostgresKeys, database_url: str
) -> None:
    assert module.READ_INTERVAL_S < 5
    credential = await make(keys)
    async with open_proxy_for(database_url) as proxy, process_keys(proxy.url(database_url)) as far:
        silent = PostgresKeys(far._connection)  # without a listener
        ring = Keyring(silent)
        async with background_task(ring, "keys"):
            assert await ring.find(credential.text)
            await keys.revoke(credential.id, ADA, tenant=None)
            await until_refused(ring, credential)


async def test_while_postgres_is_away_known_keys_hold_and_unknown_ones_cannot_be_judged(
    keys: PostgresKeys, database_url: str
) -> None:
    known, unknown = await make(keys), new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES))
    async with open_proxy_for(database_url) as proxy, process_keys(proxy.url(database_url)) as far:
        ring = Keyring(far)
        await ring.read()
        proxy.cut()
        await ring.run_once()
        assert await ring.find(known.text)
        with pytest.raises(StoreUnavailable):
            await ring.find(unknown.text)
        assert await ring.find("ntf_live_nonsense") is None
        assert await ring.find(replace(known, secret=unknown.secret).text) is None
        proxy.heal()
        async with asyncio.timeout(BOUND_S):
            while True:
                try:
                    assert await ring.find(unknown.text) is None
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)


async def test_a_process_that_has_not_read_yet_knows_no_key(database_url: str) -> None:
    async with open_proxy_for(database_url) as proxy, process_keys(proxy.url(database_url)) as far:
        proxy.cut()
        ring = Keyring(far)
        with pytest.raises(StoreUnavailable):
            await ring.find(new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES)).text)


async def test_a_key_expires_also_while_postgres_is_away(
    keys: PostgresKeys, database_url: str
) -> None:
    credential, time = await make(keys, expires_in_s=100.0), Time()
    async with open_proxy_for(database_url) as proxy, process_keys(proxy.url(database_url)) as far:
        ring = Keyring(far, clock=time)
        key = await ring.find(credential.text)
        assert key is not None
        proxy.cut()
        time.ahead_s = 99.0 - BOUND_S
        assert await ring.find(credential.text)
        assert ring.holds(key)
        time.ahead_s = 100.0
        assert await ring.find(credential.text) is None
        assert not ring.holds(key)


class CountedKeys(PostgresKeys):
    """Counts how often all keys are read, and single ones looked up."""

    reads = finds = 0

    @override
    async def read(self) -> KeysRead:
        self.reads += 1
        return await super().read()

    @override
    async def find(self, ids: Collection[KeyId]) -> Sequence[Key]:
        self.finds += 1
        return await super().find(ids)


async def test_many_unknown_keys_cost_few_statements_and_none_that_reads_all(
    keys: PostgresKeys,
) -> None:
    counted = CountedKeys(keys._connection)
    ring = Keyring(counted)
    await ring.read()
    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            text = new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES)).text
            group.create_task(ring.find(text))
    assert (counted.reads, counted.finds) == (1, 1)


async def test_all_keys_are_read_only_if_something_has_changed(keys: PostgresKeys) -> None:
    credential = await make(keys)
    counted = CountedKeys(keys._connection)
    ring = Keyring(counted)
    for _ in range(3):
        await ring.read()
    assert counted.reads == 1
    key = await ring.find(credential.text)
    assert key is not None
    await keys.note_used({key.id: 0.0})
    await ring.read()
    assert counted.reads == 1
    await keys.put_tenant(TenantId("shop"), note="", author=ADA)
    await ring.read()
    assert TenantId("shop") in await ring.tenants({TenantId("shop")})
    await keys.revoke(key.id, ADA, tenant=None)
    await ring.read()
    assert await ring.find(credential.text) is None
    assert counted.reads == 3


async def test_a_key_that_was_looked_up_ends_when_it_is_revoked(keys: PostgresKeys) -> None:
    ring = Keyring(PostgresKeys(keys._connection))
    await ring.read()
    credential = await make(keys)
    assert await ring.find(credential.text)
    await keys.revoke(credential.id, ADA, tenant=None)
    await ring.read()
    assert await ring.find(credential.text) is None


async def test_a_server_that_does_not_answer_fails_all_who_wait_at_once(
    keys: PostgresKeys,
) -> None:
    class Silent(CountedKeys):
        @override
        async def find(self, ids: Collection[KeyId]) -> Sequence[Key]:
            self.finds += 1
            await asyncio.Event().wait()
            raise AssertionError

    silent = Silent(keys._connection)
    ring = Keyring(silent, deadline_s=0.2)
    await ring.read()

    async def judged() -> None:
        with pytest.raises(StoreUnavailable):
            await ring.find(new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES)).text)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(judged())
    assert silent.finds == 1


@pytest.mark.parametrize(("stored", "is_held"), [("infinity", True), ("-infinity", False)])
async def test_a_key_without_a_finite_expiry_is_judged(
    keys: PostgresKeys,
    connection: asyncpg.Connection[asyncpg.Record],
    stored: str,
    is_held: bool,
) -> None:
    credential = await make(keys)
    await connection.execute(f"UPDATE keys SET expires_at = '{stored}'")
    ring = Keyring(keys)
    await ring.read()
    assert (await ring.find(credential.text) is not None) is is_held


@pytest.mark.parametrize("by_session", [False, True])
async def test_the_use_of_a_key_is_noted_once_a_minute(
    keys: PostgresKeys,
    by_session: bool,
) -> None:
    credential, time = await make(keys), Time()
    ring = Keyring(keys, clock=time)
    await ring.read()
    assert ring.key(credential.id) if by_session else await ring.find(credential.text)
    await ring.run_once()
    assert (await keys.read()).keys[0].last_used_at is None
    time.ahead_s = module.USED_INTERVAL_S
    await ring.run_once()
    assert (await keys.read()).keys[0].last_used_at is not None
