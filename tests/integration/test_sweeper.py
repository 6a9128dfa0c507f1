"""The sweeper on a real Postgres: which rows it ends, whatever the data of one of them is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.notification import Channel, NewNotification
from notifier.recovery.sweeper import Sweeper
from tests.builders import QUEUES, a_notification, worker_id
from tests.live_rows import end_of, live_row
from tests.one_worker import REJECTED, reject

ROWS: Final = 8
OVER: Final = timedelta(microseconds=1)


class Sweeping(NamedTuple):
    """A sweeper with its store and its metrics."""

    store: PostgresStore
    sweeper: Sweeper
    registry: CollectorRegistry

    def expired(self) -> float:
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "notifier_finished_total" and sample.labels["status"] == "expired"
        )


@pytest.fixture
async def sweeping(database_url: str) -> AsyncIterator[Sweeping]:
    registry = CollectorRegistry()
    observer = Metrics(QUEUES, {Channel("email"): ["smtp"]}, version="0", registry=registry)
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield Sweeping(store, Sweeper(store=store, observer=observer), registry)


def expired_rows() -> Sequence[NewNotification]:
    """Rows whose time is over; the first is the one that Postgres refuses."""
    return [
        a_notification(ttl=OVER, max_tries=None if number else REJECTED) for number in range(ROWS)
    ]


@pytest.mark.parametrize("sqlstate", ["21000", "22008", "23514"])
@pytest.mark.parametrize(
    ("event", "table", "when"),
    [
        ("DELETE", "live", f"OLD.max_tries = {REJECTED}"),
        ("INSERT", "ends", "NEW.id = '{id}'"),
    ],
)
async def test_a_row_that_postgres_refuses_to_expire_stays_and_harms_no_other(
    sweeping: Sweeping,
    connection: asyncpg.Connection[asyncpg.Record],
    event: str,
    table: str,
    when: str,
    sqlstate: str,
) -> None:
    refused, *others = expired_rows()
    await sweeping.store.insert([refused])  # the longest expired
    await sweeping.store.insert(others)
    await connection.execute(reject(sqlstate, event, table, when.format(id=refused.id)))
    with capture_logs() as logs:
        assert await sweeping.sweeper.run_once() == len(others)
    assert [log["id"] for log in logs if log["event"] == "expiry_rejected"] == [str(refused.id)]
    assert sweeping.expired() == len(others)
    assert await live_row(connection, refused.id) is not None
    assert all([await end_of(connection, other.id) for other in others])
    assert await sweeping.sweeper.run_once() == 0
    await connection.execute(f"DROP TRIGGER reject ON {table}")
    assert await sweeping.sweeper.run_once() == 1


@pytest.mark.parametrize("queue", ["fax.high", "email.urgent", ".", ""])
async def test_a_row_of_a_queue_that_the_settings_lack_is_expired_with_the_others(
    sweeping: Sweeping, connection: asyncpg.Connection[asyncpg.Record], queue: str
) -> None:
    stray, *others = expired_rows()
    await sweeping.store.insert([stray, *others])
    await connection.execute("UPDATE live SET queue = $1 WHERE id = $2", queue, stray.id)
    await sweeping.sweeper.run_once()
    assert all([await end_of(connection, row.id) for row in (stray, *others)])
    assert sweeping.expired() >= len(others)
