"""Heartbeat rows on a real Postgres."""

from __future__ import annotations

import asyncpg
import pytest
from structlog.testing import capture_logs

from notifier import __version__
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.heartbeat import PostgresHeartbeat, open_heartbeat
from notifier.adapters.postgres.reader import open_reader
from notifier.domain.breaker import ProviderFigures
from notifier.domain.features import ALL_FEATURES
from notifier.ports.heartbeat import NO_FIGURES, Figures, HeartbeatReply, QueueFigures
from tests.builders import EMAIL_HIGH, EMAIL_LOW, worker_id

FIGURES = Figures(
    queues={
        EMAIL_HIGH: QueueFigures(
            consumers=3,
            busy=2,
            held=5,
            done=1000,
            done_per_s=12.5,
            service_s=0.25,
            limited_by="rate",
            held_since=1_800_000_000.25,
            watermark=None,
            drained_s=0.0,
        ),
        EMAIL_LOW: QueueFigures(
            consumers=1,
            busy=0,
            held=0,
            done=0,
            done_per_s=0.0,
            service_s=0.1,
            limited_by="need",
            held_since=None,
            watermark=1_800_000_000.5,
            drained_s=7.5,
        ),
    },
    providers={
        "smtp": ProviderFigures(
            calls=20, failures=3, streak=1, streak_s=0.5, answered_s=2.0, credentials=True
        ),
        "twilio": ProviderFigures(calls=0, failures=0, streak=0, streak_s=0.0, answered_s=None),
    },
)


async def beat(
    heartbeat: PostgresHeartbeat, number: int, figures: Figures = NO_FIGURES
) -> HeartbeatReply:
    return await heartbeat.beat(kind="worker", host="h", pid=7, beat=number, figures=figures)


async def test_other_processes_read_all_figures_that_a_process_wrote(database_url: str) -> None:
    settings = ConnectionSettings(url=database_url)
    async with (
        open_heartbeat(settings, worker_id()) as one,
        open_heartbeat(settings, worker_id()) as two,
    ):
        assert (await beat(one, 1, FIGURES)).others == []
        await beat(one, 2, FIGURES)
        [row] = (await beat(two, 1)).others
    assert (row.id, row.kind, row.host, row.pid, row.beat) == (one.worker, "worker", "h", 7, 2)
    assert (row.queues, row.providers) == (FIGURES.queues, FIGURES.providers)
    assert (row.version, row.features) == (__version__, ALL_FEATURES)
    assert 0 <= row.age_s < 60


async def test_the_live_processes_are_listed_with_version_and_consumers(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    settings = ConnectionSettings(url=database_url)
    await insert_row(database_url, '{"queues": {"email.high": {"consumers": 4, "busy": 1}}}')
    await insert_row(database_url, '{"queues": []}')
    await insert_row(database_url, "{}")
    await connection.execute(
        "UPDATE workers SET beat_at = now() - interval '2 minutes' WHERE figures = '{}'"
    )
    async with (
        open_heartbeat(settings, worker_id()) as own,
        open_reader(settings) as reader,
    ):
        await beat(own, 1, FIGURES)
        earlier, unreadable, listed = await reader.workers()
    assert (earlier.version, earlier.consumers, earlier.busy) == (None, 4, 1)
    assert (unreadable.version, unreadable.consumers, unreadable.busy) == (None, 0, 0)
    assert (listed.id, listed.kind, listed.host, listed.pid) == (own.worker, "worker", "h", 7)
    assert (listed.version, listed.consumers, listed.busy) == (__version__, 4, 2)
    assert set(earlier.lacks) == ALL_FEATURES
    assert listed.lacks == ()
    assert listed.started_at <= listed.beat_at


async def test_a_process_that_leaves_has_no_row(database_url: str) -> None:
    settings = ConnectionSettings(url=database_url)
    async with (
        open_heartbeat(settings, worker_id()) as one,
        open_heartbeat(settings, worker_id()) as two,
    ):
        await beat(one, 1)
        await one.leave()
        assert (await beat(two, 1)).others == []


async def insert_row(url: str, figures: str) -> None:
    """Write another process's heartbeat row, as a different version would."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO workers (id, kind, host, pid, beat, figures)"
        " VALUES (gen_random_uuid(), 'worker', 'h', 1, 1, $1)",
        figures,
    )
    await connection.close()


async def test_a_row_with_fewer_fields_is_read_with_defaults(database_url: str) -> None:
    await insert_row(database_url, '{"queues": {}}')
    async with open_heartbeat(ConnectionSettings(url=database_url), worker_id()) as heartbeat:
        [row] = (await beat(heartbeat, 1)).others
    assert (row.queues, row.providers) == ({}, {})


@pytest.mark.parametrize(
    "entry",
    ['{"email.high": {"consumers": "three"}}', '{"email.urgent": {}}'],
    ids=["type", "queue"],
)
async def test_a_queue_that_cannot_be_decoded_is_left_out(database_url: str, entry: str) -> None:
    await insert_row(database_url, f'{{"queues": {entry}, "draining": true}}')
    async with open_heartbeat(ConnectionSettings(url=database_url), worker_id()) as heartbeat:
        [row] = (await beat(heartbeat, 1)).others
    assert (row.queues, row.providers, row.is_draining) == ({}, {}, True)


@pytest.mark.parametrize(
    "figures",
    [
        '{"queues": []}',
        "[]",
    ],
    ids=["shape", "list"],
)
async def test_a_row_that_cannot_be_decoded_is_a_live_process_without_figures(
    database_url: str, figures: str
) -> None:
    await insert_row(database_url, figures)
    async with open_heartbeat(ConnectionSettings(url=database_url), worker_id()) as heartbeat:
        with capture_logs() as logs:
            await beat(heartbeat, 1)
            [row] = (await beat(heartbeat, 2)).others
    assert (row.kind, row.queues, row.providers) == ("worker", {}, {})
    assert [entry["event"] for entry in logs] == ["heartbeat_unreadable"]
