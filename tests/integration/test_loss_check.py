"""The loss check: it counts notifications without any row that says what became of them."""

from __future__ import annotations

import asyncpg
from structlog.testing import capture_logs

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import open_store
from notifier.recovery.loss_check import LossCheck
from tests.builders import a_notification, worker_id


class CountingObserver:
    """Keeps the counts that the check reports."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def lost_counted(self, count: int) -> None:
        self.counts.append(count)


async def test_lost_notifications_are_counted_and_the_newest_is_logged(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    observer = CountingObserver()
    items = [a_notification() for _ in range(3)]
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        check = LossCheck(store=store, observer=observer)
        await store.insert(items)
        await check.run_once()
        await connection.execute("DELETE FROM live WHERE id <> $1", items[2].id)
        with capture_logs() as logs:
            await check.run_once()
    assert observer.counts == [0, 2]
    assert logs == [
        {
            "event": "notifications_lost",
            "log_level": "error",
            "count": 2,
            "newest": str(items[1].id),
        }
    ]


async def test_an_unreachable_postgres_is_logged_and_reports_no_count() -> None:
    observer = CountingObserver()
    settings = ConnectionSettings(url="postgresql://nobody@127.0.0.1:1/nowhere")
    async with open_store(settings, worker_id()) as store:
        with capture_logs() as logs:
            await LossCheck(store=store, observer=observer).run_once()
    assert observer.counts == []
    assert [log["event"] for log in logs] == ["loss_check_failed"]
