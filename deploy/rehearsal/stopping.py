"""Trial of a stop: sends in flight finish, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from deploy.rehearsal.engine import docker, inspect
from deploy.rehearsal.load import lost_and_duplicate
from deploy.rehearsal.stack import Stack, address
from harness.client import orders
from harness.figure import Figure, never

LATENCY_MS = 1000
WAITING = 500
MIN_CALLS = 20
REDELIVERED = "rabbitmq_global_messages_redelivered"
RABBITMQ_METRICS = 15692


async def stopped(stack: Stack) -> Sequence[Figure]:
    """Stop the only worker while it sends, then start it again and wait for the rest."""
    (worker,) = stack.containers("worker")
    await stack.client.set_behaviour(latency_ms=LATENCY_MS)
    before, calls = await _redelivered(stack), (await stack.client.summary())["calls"]
    ids = await stack.client.submit(orders(WAITING))
    await stack.client.wait_for_calls(calls + MIN_CALLS)
    started_at = time.monotonic()
    await asyncio.to_thread(docker, "stop", "-t", "35", worker)
    stop_s = time.monotonic() - started_at
    code = (await asyncio.to_thread(inspect, "container", worker))["State"]["ExitCode"]
    await stack.client.set_behaviour()
    await stack.compose("start", "worker")
    await stack.healthy()
    figures = await lost_and_duplicate(stack.client, ids)
    return [
        Figure(name="SIGTERM while sends take 1 s: exit", value=stop_s, unit="s", high=10),
        never("... exit code", code),
        *figures,
        Figure(name="... pointers delivered again", value=await _redelivered(stack) - before),
    ]


async def _redelivered(stack: Stack) -> float:
    """Return RabbitMQ's count of redelivered messages.

    There is no bound: messages that arrive during the cancel of a consumer are delivered again, but
    were not sent.
    """
    (broker,) = stack.containers("rabbitmq")
    broker_info = await asyncio.to_thread(inspect, "container", broker)
    url = f"http://{address(broker_info)}:{RABBITMQ_METRICS}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        if family.name == REDELIVERED
        for sample in family.samples
    )
