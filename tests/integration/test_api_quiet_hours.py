"""Quiet hours over the API, and in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import open_controls
from notifier.adapters.postgres.keys import open_keys
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.errors import FeatureUnavailable
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.keys import Author
from tests.builders import worker_id
from tests.unit.fakes_api import MemoryStore, make_api, open_client

if TYPE_CHECKING:
    from tests.live_rows import Connection

NIGHT = {"start": "21:00", "end": "08:00", "time_zone": "Europe/Berlin"}
ADA = Author(actor="key:ada")
HOURS = QuietHours(start=time(21), end=time(8), time_zone="Europe/Berlin")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store)) as client:
        yield client


def path(tenant: str = "shop") -> str:
    return f"/v1/tenants/{tenant}/quiet-hours"


@pytest.mark.parametrize("tenant", ["shop", "default"])
async def test_quiet_hours_are_set_read_and_removed(
    client: aiohttp.ClientSession, store: MemoryStore, tenant: str
) -> None:
    stored = {"tenant": tenant, **NIGHT}
    async with client.get(path(tenant)) as response:
        assert response.status == 404
    async with client.put(path(tenant), json=NIGHT) as response:
        assert (response.status, await response.json()) == (200, stored)
    id_ = DEFAULT_TENANT if tenant == "default" else TenantId(tenant)
    assert store.quiet == {id_: HOURS}
    async with client.get(path(tenant)) as response:
        assert (response.status, await response.json()) == (200, stored)
    for was_set in (True, False):
        async with client.delete(path(tenant)) as response:
            assert (response.status, await response.json()) == (200, {"was_set": was_set})


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"start": "9:00"}, ["start"]),
        ({"start": "24:00", "end": "08:60"}, ["start", "end"]),
        ({"end": "21:00"}, ["end"]),
        ({"time_zone": "Berlin"}, ["time_zone"]),
        ({"end": "8", "time_zone": "CEST"}, ["end", "time_zone"]),
        ({"start": 21}, ["start"]),
    ],
)
async def test_what_is_wrong_is_named(
    client: aiohttp.ClientSession, store: MemoryStore, changes: dict[str, object], fields: list[str]
) -> None:
    async with client.put(path(), json={**NIGHT, **changes}) as response:
        problem = await response.json()
        assert response.status == 400
    assert [error["field"] for error in problem["errors"]] == fields
    assert store.quiet == {}


async def test_a_tenant_that_is_unknown_has_none(client: aiohttp.ClientSession) -> None:
    async with client.put(path("nobody"), json=NIGHT) as response:
        assert response.status == 404
    async with client.put(path("No-Name"), json=NIGHT) as response:
        assert response.status == 400


async def test_they_are_not_set_while_a_worker_would_not_keep_them(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    store.lacking = FeatureUnavailable("holds", "the worker on host node-1 does not understand it")
    async with client.put(path(), json=NIGHT) as response:
        assert response.status == 503
    assert store.quiet == {}


async def test_postgres_keeps_them_for_tenants_that_exist(
    database_url: str, connection: Connection
) -> None:
    async with open_controls(ConnectionSettings(url=database_url), worker_id()) as controls:
        shop = TenantId("shop")
        assert not await controls.put_quiet_hours(shop, HOURS, ADA)
        await connection.execute("INSERT INTO tenants (name) VALUES ('shop')")
        assert await controls.put_quiet_hours(shop, HOURS, ADA)
        later = QuietHours(start=time(22, 30), end=time(8), time_zone="UTC")
        assert await controls.put_quiet_hours(DEFAULT_TENANT, HOURS, ADA)
        assert await controls.put_quiet_hours(DEFAULT_TENANT, later, ADA)
        assert await controls.quiet_hours() == {shop: HOURS, DEFAULT_TENANT: later}
        assert (await controls.read()).quiet_hours == await controls.quiet_hours()
        assert await controls.delete_quiet_hours(shop, ADA)
        assert not await controls.delete_quiet_hours(shop, ADA)
        assert await controls.quiet_hours() == {DEFAULT_TENANT: later}
        actions = await connection.fetch(
            "SELECT action, target, tenant, actor FROM audit ORDER BY id"
        )
        assert [tuple(row) for row in actions] == [
            ("quiet_hours.set", "tenant:shop", "shop", "key:ada"),
            ("quiet_hours.set", "tenant:default", "", "key:ada"),
            ("quiet_hours.set", "tenant:default", "", "key:ada"),
            ("quiet_hours.deleted", "tenant:shop", "shop", "key:ada"),
        ]


async def test_a_tenant_that_is_deleted_leaves_no_quiet_hours_and_no_pause(
    database_url: str, connection: Connection
) -> None:
    settings, shop = ConnectionSettings(url=database_url), TenantId("shop")
    async with open_controls(settings, worker_id()) as controls, open_keys(settings) as keys:
        await keys.put_tenant(shop, note="", author=ADA)
        for tenant in (shop, DEFAULT_TENANT):
            assert await controls.put_quiet_hours(tenant, HOURS, ADA)
        for name in ("shop", "default"):
            await controls.pause(Scope(ScopeKind.TENANT, name), note="", for_s=None)
        assert await keys.delete_tenant(shop, ADA) is None
        left = await controls.read()
        assert list(left.quiet_hours) == [DEFAULT_TENANT]
        assert [pause.scope.name for pause in left.pauses] == ["default"]
