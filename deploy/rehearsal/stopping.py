"""What is promised of a stop: what is being sent finishes, and nobody sends it again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from deploy.rehearsal.engine import docker, inspected
from deploy.rehearsal.load import lost_and_doubled
from deploy.rehearsal.stack import Stack, address
from harness.client import orders
from harness.figure import Figure, never

LATENCY_MS = 1000
WAITING = 500
BUSY_LEAST = 20
REDELIVERED = "rabbitmq_global_messages_redelivered"
RABBITMQ_METRICS = 15692


async def stopped(stack: Stack) -> Sequence[Figure]:
    """SIGTERM to the only worker while it sends; then it is started again and the rest goes out."""
    (worker,) = stack.containers("worker")
    await stack.client.set_behaviour(latency_ms=LATENCY_MS)
    before, calls = await _redelivered(stack), (await stack.client.summary())["calls"]
    ids = await stack.client.submit(orders(WAITING))
    await stack.client.wait_for_calls(calls + BUSY_LEAST)
    began = time.monotonic()
    await asyncio.to_thread(docker, "stop", "-t", "35", worker)
    took_s = time.monotonic() - began
    code = (await asyncio.to_thread(inspected, "container", worker))["State"]["ExitCode"]
    await stack.client.set_behaviour()
    await stack.compose("start", "worker")
    await stack.healthy()
    figures = await lost_and_doubled(stack.client, ids)
    return [
        Figure(name="SIGTERM while sends take 1 s: exit", value=took_s, unit="s", high=10),
        never("... exit code", code),
        *figures,
        Figure(name="... pointers delivered again", value=await _redelivered(stack) - before),
    ]


async def _redelivered(stack: Stack) -> float:
    """No promise: what RabbitMQ sent while its consumer was cancelled comes again, not yet sent."""
    (broker,) = stack.containers("rabbitmq")
    found = await asyncio.to_thread(inspected, "container", broker)
    url = f"http://{address(found)}:{RABBITMQ_METRICS}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        text = await answer.text()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        if family.name == REDELIVERED
        for sample in family.samples
    )
