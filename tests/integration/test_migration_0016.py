"""Migration 0016 runs beside the version before."""

from __future__ import annotations

import asyncio
from typing import Final

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.keys import open_keys
from notifier.adapters.postgres.migrate import migrate
from notifier.domain.tenants import TenantId
from notifier.ports.keys import Author
from tests.revisions import all_from, open_at_revision

ADA: Final = Author(actor="cli:ada@desk")
OLD_BLOB: Final = """
    INSERT INTO blobs (tenant, hash, size, last_day, data) VALUES ($1, '', 0, now(), '')"""
DELETED: Final = (
    "INSERT INTO audit (id, actor, action, target) VALUES ($1::uuid, 'cli', 'tenant.deleted', $2)"
)


async def test_names_that_the_version_before_frees_earlier_and_later_are_kept(
    empty_database_url: str,
) -> None:
    async with (
        open_at_revision(empty_database_url, "0015") as old,
        open_keys(ConnectionSettings(url=empty_database_url)) as keys,
    ):
        put_blob = await old.prepare(OLD_BLOB)
        await old.execute("INSERT INTO tenants (name) VALUES ('cafe'), ('shop')")
        delete = await old.prepare("DELETE FROM tenants WHERE name = $1")
        for number, name in enumerate(("bank", "bank", "cafe")):
            await old.execute(DELETED, f"{number:032x}", f"tenant:{name}")
        assert await asyncio.to_thread(migrate, empty_database_url) == all_from("0016")
        await delete.fetch("shop")
        await put_blob.fetch("cafe")
        assert await old.fetchval("SELECT senders FROM blobs") is None
        made = {
            name: await keys.put_tenant(TenantId(name), note="", author=ADA) is not None
            for name in ("bank", "cafe", "shop", "new")
        }
        assert [tenant.name for tenant in await keys.tenants()] == ["default", "cafe", "new"]
        assert made == {"bank": False, "cafe": True, "shop": False, "new": True}
