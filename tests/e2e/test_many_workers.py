"""Workers are killed, frozen or stopped under load; the sandbox's log is the judge."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.client import Client, orders, until
from harness.system import Child, System, running_system, urls

WAITING = 1500
LATENCY_MS = 400
IN_FLIGHT = 20


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    with running_system(system_folder, urls(database_url, vhost_url)) as system:
        yield system


async def under_load(system: System, client: Client, workers: int) -> tuple[list[Child], list[str]]:
    """Start `workers` workers and 1,500 slow sends; returns the additional workers and the ids."""
    system.start_all()
    others = [system.start_another_worker() for _ in range(workers - 1)]
    await client.set_behaviour(latency_ms=LATENCY_MS)
    ids = await client.submit(orders(WAITING))
    await client.wait_for_calls(100)
    return others, ids


async def ambiguous(client: Client, ids: list[str]) -> set[str]:
    """The notifications whose worker died while it was sending them."""
    notifications = [await client.notification(id_) for id_ in ids]
    return {
        notification["id"]
        for notification in notifications
        if "worker_died" in {attempt["code"] for attempt in notification["attempts"]}
    }


async def test_a_worker_recovers_the_sends_of_a_killed_one(system: System, client: Client) -> None:
    [doomed], ids = await under_load(system, client, 2)
    doomed.kill()
    doomed.has_started = False
    assert await client.all_final(ids) == {"sent": WAITING}
    accepted = await client.accepted()
    assert set(accepted) == set(ids)
    died = await ambiguous(client, ids)
    assert len(died) >= IN_FLIGHT, "too little was in flight"
    assert {id_ for id_, count in accepted.items() if count > 1} <= died
    assert max(accepted.values()) <= 2


async def test_a_worker_frozen_until_it_counts_as_dead_begins_no_call_when_it_continues(
    system: System, client: Client
) -> None:
    [frozen], ids = await under_load(system, client, 2)
    frozen.send(signal.SIGSTOP)
    try:
        assert await client.all_final(ids) == {"sent": WAITING}
        calls = (await client.summary())["calls"]
        died = await ambiguous(client, ids)  # before its late results amend them
    finally:
        frozen.send(signal.SIGCONT)
    assert len(died) >= IN_FLIGHT, "too little was in flight"
    await until(lambda: is_ready(client, frozen), bool)
    accepted = await client.accepted()
    assert (await client.summary())["calls"] == calls
    assert {id_ for id_, count in accepted.items() if count > 1} <= died
    frozen.stop()
    assert "outcome_recorded_late" in frozen.log.read_text()


async def is_ready(client: Client, child: Child) -> bool:
    status, _ = await client.readiness(child.url)
    return status == 200


async def test_workers_stopped_one_after_the_other_lose_and_duplicate_nothing(
    system: System, client: Client
) -> None:
    others, ids = await under_load(system, client, 3)
    for child in others:
        system.start_another_worker()
        child.stop()
    assert await client.all_final(ids) == {"sent": WAITING}
    accepted = await client.accepted()
    assert set(accepted) == set(ids)
    assert set(accepted.values()) == {1}
