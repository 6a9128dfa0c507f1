"""Migration 0010 runs beside the version before."""

from __future__ import annotations

import asyncio

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import open_controls
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.statements import statement
from notifier.domain.controls import Scope, ScopeKind
from tests.builders import worker_id
from tests.revisions import all_from, open_at_revision


async def test_pauses_of_tenants_are_in_a_table_that_the_version_before_does_not_read(
    empty_database_url: str,
) -> None:
    async with (
        open_at_revision(empty_database_url, "0009") as old,
        open_controls(ConnectionSettings(url=empty_database_url), worker_id()) as controls,
    ):
        read = await old.prepare(statement("controls_pauses"))
        assert await asyncio.to_thread(migrate, empty_database_url) == all_from("0010")
        await controls.pause(Scope(ScopeKind.TENANT, "shop"), note="", for_s=None)
        await controls.pause(Scope(ScopeKind.CHANNEL, "email"), note="", for_s=None)
        assert [row["name"] for row in await read.fetch()] == ["email"]
        assert len((await controls.read()).pauses) == 2
