"""Migration 0009 runs beside the version before, and days have their keys afterwards."""

from __future__ import annotations

import asyncio

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.store import open_store
from notifier.domain.notification import Status
from tests.builders import a_key, a_notification, worker_id
from tests.revisions import all_from, open_at_revision


async def test_each_day_from_yesterday_on_has_keys_and_so_have_new_days(
    empty_database_url: str,
) -> None:
    async with (
        open_at_revision(empty_database_url, "0008") as old,
        open_store(ConnectionSettings(url=empty_database_url), worker_id()) as store,
    ):
        ensure = await old.prepare("SELECT ensure_days($1)")
        assert await ensure.fetchval(7) == 0
        assert await asyncio.to_thread(migrate, empty_database_url) == all_from("0009")
        assert await ensure.fetchval(9) == 2
        days = "SELECT array_agg(right(inhrelid::regclass::text, 8) ORDER BY 1) FROM pg_inherits"
        parents = ("ends", "idempotency_keys")
        ends, keys = [
            await old.fetchval(f"{days} WHERE inhparent = '{parent}'::regclass")
            for parent in parents
        ]
        assert keys == ends
        first, repeat = a_notification(key=a_key()), a_notification(key=a_key())
        assert (await store.insert_keyed([first])).owners == {}
        (owner,) = (await store.insert_keyed([repeat])).owners.values()
        assert (owner.id, owner.status) == (first.id, Status.QUEUED)
