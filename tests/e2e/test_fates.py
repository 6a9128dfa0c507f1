"""The way of a notification from the submit to the last attempt, for every fate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from harness.client import Client, Document, open_client, submit_body, until
from harness.rabbitmq import RabbitmqNode
from harness.system import System, running_system, urls
from notifier.embedded.postgres import PostgresServer
from tests.conftest import execute

TRIES = 3
# A gap lies between x/2 and x: with a factor of 3 each is longer than any before it.
RETRIES = {"retry_base_s": 0.4, "retry_factor": 3, "retry_cap_s": 10, "tries": TRIES}
SETTINGS = {
    **{
        f"priorities.{priority}.{key}": value
        for priority in ("high", "medium", "low")
        for key, value in RETRIES.items()
    },
    "channels.email.ambiguous": "resend",
    "channels.sms.ambiguous": "hold",
    "channels.push.max_consumers": 1,
}
EACH_CHANNEL = pytest.mark.parametrize("queue", ["email.high", "sms.medium", "push.low"])


@pytest.fixture(scope="module")
def system(
    e2e_folder: Path,
    postgres_server: PostgresServer,
    migrated_template: str,
    rabbitmq_server: RabbitmqNode,
) -> Iterator[System]:
    """One system for all fates, which depend on the recipient."""
    execute(postgres_server, f"CREATE DATABASE fates TEMPLATE {migrated_template}")
    rabbitmq_server.create_vhost("fates")
    at = urls(postgres_server.url("fates"), rabbitmq_server.url("fates"))
    with running_system(e2e_folder / "fates", at | SETTINGS) as system:
        system.start_all()
        yield system


@pytest.fixture
async def client(system: System) -> AsyncIterator[Client]:
    async with open_client(system.api_url, system.sandbox_url) as client:
        yield client
        await client.set_behaviour()


async def failure_of(client: Client, which: str) -> Document:
    (row,) = [row for row in await client.failures() if row["id"] == which]
    return row


def gap(attempt: Document) -> timedelta:
    """Return the seconds from each attempt until the next one was due."""
    due, ended = (datetime.fromisoformat(attempt[key]) for key in ("next_at", "finished_at"))
    return due - ended


@EACH_CHANNEL
async def test_unavailable_twice_ends_sent_after_two_growing_gaps(
    client: Client, queue: str
) -> None:
    found = await client.final(await client.submit_one(submit_body(queue, "flaky-2")))
    *failed, last = found["attempts"]
    assert (found["status"], found["tries"]) == ("sent", 3)
    assert [attempt["outcome"] for attempt in failed] == ["unavailable"] * 2
    assert last["outcome"] == "accepted"
    # Half of a delay is random.
    base = timedelta(seconds=RETRIES["retry_base_s"] / 2)
    assert [gap(failed[0]) >= base, gap(failed[1]) >= base * RETRIES["retry_factor"]] == [True] * 2
    for before, after in pairwise(found["attempts"]):
        assert after["started_at"] >= before["next_at"]


@EACH_CHANNEL
async def test_throttled_twice_waits_what_it_was_told_and_spends_no_try(
    client: Client, queue: str
) -> None:
    found = await client.final(await client.submit_one(submit_body(queue, "throttle-2")))
    assert (found["status"], found["tries"]) == ("sent", 1)
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["throttled", "accepted"]
    calls = await client.calls(found["id"])
    assert len(calls) == 3
    for before, after in pairwise(calls):
        assert after["at"] - before["at"] >= timedelta(seconds=1)


@EACH_CHANNEL
async def test_refused_fails_after_one_attempt_and_leaves_a_failure(
    client: Client, queue: str
) -> None:
    found = await client.final(await client.submit_one(submit_body(queue, "refuse")))
    assert found["status"] == "failed"
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["refused"]
    assert len(await client.calls(found["id"])) == 1
    failure = await failure_of(client, found["id"])
    assert (failure["result"]["reason"], failure["tries"], failure["queue"]) == (
        "refused",
        1,
        queue,
    )


@EACH_CHANNEL
async def test_always_unavailable_uses_its_tries_and_leaves_one_failure_with_the_last_code(
    client: Client, queue: str
) -> None:
    found = await client.final(await client.submit_one(submit_body(queue, "down")))
    assert (found["status"], found["tries"]) == ("failed", TRIES)
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["unavailable"] * TRIES
    failure = await failure_of(client, found["id"])
    assert (failure["result"]["reason"], failure["tries"]) == ("exhausted", TRIES)
    assert failure["result"]["code"] == found["attempts"][-1]["code"] != ""


async def test_cut_is_sent_again_once_where_the_channel_resends(
    client: Client,
) -> None:
    found = await client.final(await client.submit_one(submit_body("email.high", "cut")))
    assert found["status"] == "failed"
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["ambiguous"] * 2
    assert len(await client.calls(found["id"])) == 2
    assert (await failure_of(client, found["id"]))["result"]["reason"] == "ambiguous"


async def test_cut_is_never_sent_again_where_the_channel_holds(client: Client) -> None:
    found = await client.final(await client.submit_one(submit_body("sms.high", "cut")))
    assert found["status"] == "failed"
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["ambiguous"]
    assert len(await client.calls(found["id"])) == 1
    assert (await failure_of(client, found["id"]))["result"]["reason"] == "ambiguous"


async def test_what_waits_longer_than_its_ttl_expires_without_a_call(client: Client) -> None:
    await client.set_behaviour(channel="push", latency_ms=1500)
    ahead = await client.submit([submit_body("push.medium")] * 2)
    await until(lambda: client.calls(ahead[0]), bool)
    which = await client.submit_one(submit_body("push.medium", ttl_s=1))
    found = await client.final(which)
    assert (found["status"], found["attempts"]) == ("expired", [])
    assert await client.calls(which) == []
    assert await client.all_final(ahead) == {"sent": 2}


async def test_what_is_sent_at_an_instant_arrives_not_before(client: Client) -> None:
    at = datetime.now(UTC) + timedelta(seconds=2)
    which = await client.submit_one(submit_body("email.medium", send_at=at.isoformat()))
    assert (await client.notification(which))["status"] == "scheduled"
    assert (await client.final(which))["status"] == "sent"
    (call,) = await client.calls(which)
    assert call["at"] >= at
