"""`migrate`, `api`, `worker` and `sandbox` as separate processes on RabbitMQ and Postgres."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pytest

from harness.client import QUEUES, Client, orders, submit_body, until
from harness.rabbitmq import RabbitmqNode
from harness.system import System, running_system, urls
from notifier.domain.webhooks import WEBHOOK_QUEUE
from notifier.embedded.process import run_steps_async

NUMBER = 2000


class TestFromAnEmptyDatabase:
    @pytest.fixture
    def system(
        self, system_folder: Path, empty_database_url: str, vhost_url: str
    ) -> Iterator[System]:
        with running_system(system_folder, urls(empty_database_url, vhost_url)) as system:
            yield system

    async def test_every_notification_of_nine_queues_reaches_its_provider_exactly_once(
        self, system: System, client: Client, rabbitmq_server: RabbitmqNode, vhost_url: str
    ) -> None:
        assert system.run("migrate").returncode == 0
        system.start_all()
        ids = await client.submit(orders(NUMBER))
        assert await client.all_final(ids) == {"sent": NUMBER}
        assert await client.accepted() == Counter(ids)

        queues = await queues_of(rabbitmq_server, vhost_url)
        expected = {f"notifier.{queue}" for queue in (*QUEUES, WEBHOOK_QUEUE)}
        assert {queue["name"] for queue in queues} == expected
        for queue in queues:
            assert (queue["type"], queue["durable"]) == ("quorum", True)
            arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1000}
            assert queue["arguments"] == arguments


async def queues_of(server: RabbitmqNode, vhost_url: str) -> list[dict[str, Any]]:
    vhost = vhost_url.rpartition("/")[2]
    url = f"{server.management_url}/api/queues/{vhost}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        found: list[dict[str, Any]] = await answer.json()
        return found


async def test_a_message_names_its_row_and_holds_nothing_of_the_notification(
    system: System, client: Client, vhost_url: str
) -> None:
    system.start_sandbox()
    system.start_api()
    which = await client.submit_one(submit_body("sms.medium"))
    body = await body_of_the_next(vhost_url, "notifier.sms.medium")
    # Without `deployment` until the process has read it.
    assert body.keys() - {"deployment"} == {"pointers", "published_at", "sizes"}
    assert body["pointers"] == [[which, 0]]
    assert all(isinstance(size, int) for size in body["sizes"])
    system.start_worker()
    assert (await client.final(which))["status"] == "sent"


async def body_of_the_next(vhost_url: str, queue_name: str) -> dict[str, Any]:
    """Return the first message of a queue and leave it there."""
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(queue_name, passive=True)
        message = await until(lambda: queue.get(fail=False), lambda found: found is not None)
        body: dict[str, Any] = json.loads(message.body)
        await message.nack(requeue=True)
    return body


async def test_a_worker_and_an_api_stopped_under_load_lose_nothing_and_double_nothing(
    system: System, client: Client
) -> None:
    system.start_sandbox()
    await client.set_behaviour(latency_ms=1000)
    api, worker = system.start_api(), system.start_worker()
    ids = await client.submit(orders(300))
    await client.wait_for_calls(50)

    await run_steps_async(worker.stopping())
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(submit_until_refused(client)) for _ in range(20)]
        await until(client.statuses, lambda found: len(found) > len(ids))
        await run_steps_async(api.stopping())
    ids += [which for caller in callers for which in caller.result()]

    await client.set_behaviour()
    system.start_api()
    system.start_worker()
    assert await client.all_final(ids) == {"sent": len(ids)}
    accepted = await client.accepted()
    assert set(ids) <= set(accepted)
    assert set(accepted.values()) == {1}


async def submit_until_refused(client: Client) -> list[str]:
    """Submit one after the other until the API is gone; return the ids."""
    ids = list[str]()
    while True:
        try:
            status, _, document = await client.post(submit_body("push.high"))
        except aiohttp.ClientError:
            return ids
        if status != 202:
            return ids
        ids.append(document["id"])
