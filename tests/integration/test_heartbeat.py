"""Heartbeat rows on a real Postgres."""

from __future__ import annotations

import asyncpg

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.heartbeat import PostgresHeartbeat, open_heartbeat
from notifier.domain.breaker import ProviderFigures
from notifier.ports.heartbeat import Figures, HeartbeatReply, QueueFigures
from tests.builders import EMAIL_HIGH, EMAIL_LOW, worker_id

NOTHING = Figures(queues={}, providers={})
MUCH = Figures(
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
            mark=None,
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
            mark=1_800_000_000.5,
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
    heartbeat: PostgresHeartbeat, number: int, figures: Figures = NOTHING
) -> HeartbeatReply:
    return await heartbeat.beat(kind="worker", host="h", pid=7, beat=number, figures=figures)


async def test_what_a_process_says_is_read_back_whole_by_the_others(database_url: str) -> None:
    link = ConnectionSettings(url=database_url)
    async with open_heartbeat(link, worker_id()) as one, open_heartbeat(link, worker_id()) as two:
        assert (await beat(one, 1, MUCH)).others == []
        await beat(one, 2, MUCH)
        [seen] = (await beat(two, 1)).others
    assert (seen.id, seen.kind, seen.host, seen.pid, seen.beat) == (one.worker, "worker", "h", 7, 2)
    assert (seen.queues, seen.providers) == (MUCH.queues, MUCH.providers)
    assert 0 <= seen.age_s < 60


async def test_one_that_leaves_has_no_row(database_url: str) -> None:
    link = ConnectionSettings(url=database_url)
    async with open_heartbeat(link, worker_id()) as one, open_heartbeat(link, worker_id()) as two:
        await beat(one, 1)
        await one.leave()
        assert (await beat(two, 1)).others == []


async def test_a_row_of_an_older_version_says_less(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "INSERT INTO workers (id, kind, host, pid, beat, figures)"
        " VALUES (gen_random_uuid(), 'worker', 'h', 1, 1, '{\"queues\": {}}')"
    )
    await connection.close()
    async with open_heartbeat(ConnectionSettings(url=database_url), worker_id()) as heartbeat:
        [seen] = (await beat(heartbeat, 1)).others
    assert (seen.queues, seen.providers) == ({}, {})
