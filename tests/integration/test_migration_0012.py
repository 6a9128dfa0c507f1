"""Migrations 0012 and 0013 run beside the version before; each day has lookups afterwards."""

from __future__ import annotations

import asyncio
from typing import Final

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.store import open_store
from notifier.domain.lookups import Lookup
from tests.builders import a_notification, new_id, worker_id
from tests.live_rows import DAYS
from tests.revisions import all_from, open_at_revision

OLD_INSERT: Final = """
    INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata)
    VALUES ($1, now(), now() + interval '1 day', 'email.high', 'ada@example.com', '{}', '{}')"""


async def test_the_version_before_stores_before_and_after_and_each_day_has_lookups(
    empty_database_url: str,
) -> None:
    async with (
        open_at_revision(empty_database_url, "0011") as old,
        open_store(ConnectionSettings(url=empty_database_url), worker_id()) as store,
    ):
        insert = await old.prepare(OLD_INSERT)
        ensure = await old.prepare("SELECT ensure_days($1)")
        await insert.fetch(new_id())
        assert await asyncio.to_thread(migrate, empty_database_url) == all_from("0012")
        await insert.fetch(new_id())
        assert await ensure.fetchval(9) == 2
        days = [await old.fetchval(DAYS, parent) for parent in ("notifications", "lookups")]
        assert days[0] == days[1]
        item = a_notification()
        await store.insert([item])
        found = a_notification(lookups=(Lookup("tag", "t"),))
        await store.insert([found])
        assert await old.fetchval("SELECT id FROM lookups") == found.id
        rows = await old.fetch("SELECT tag, topic FROM notifications")
        assert [tuple(row) for row in rows] == [(None, None)] * 4
