"""Reads the metrics of processes from /metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from harness.system import Child

LOOK_EVERY_S = 1.0


async def samples(child: Child, family: str) -> Sequence[Sample]:
    """Return all series of a metric family of one process."""
    return [
        sample
        for one in text_string_to_metric_families(await _page(child))
        if one.name == family
        for sample in one.samples
        if not sample.name.endswith("_created")
    ]


async def total(children: Sequence[Child], family: str, **labels: str) -> float:
    """Return the sum over these processes of the series with these labels."""
    found = [sample for child in children for sample in await samples(child, family)]
    return sum(
        sample.value
        for sample in found
        if all(sample.labels.get(name) == value for name, value in labels.items())
    )


async def by_queue(children: Sequence[Child], family: str) -> Counter[str]:
    """Return the sum per queue as integers."""
    found = [sample for child in children for sample in await samples(child, family)]
    counted = Counter[str]()
    for sample in found:
        counted[sample.labels["queue"]] += round(sample.value)
    return counted


async def of_channel(children: Sequence[Child], family: str, channel: str) -> int:
    """Return the sum over all queues of a channel."""
    queues = await by_queue(children, family)
    return sum(count for queue, count in queues.items() if queue.startswith(f"{channel}."))


async def until_finished(children: Sequence[Child], count: float, within_s: float) -> None:
    """Wait until the processes report this many finished notifications.

    Metrics are read because counting rows repeatedly would slow what is measured.
    """
    async with asyncio.timeout(within_s):
        while True:
            if await total(children, "notifier_finished") >= count:
                return
            await asyncio.sleep(LOOK_EVERY_S)


async def series(child: Child) -> int:
    """Return the number of series of a process, as Prometheus counts them."""
    lines = (await _page(child)).splitlines()
    return sum(not line.startswith("#") for line in lines)


async def resident_mib(child: Child) -> float:
    """Return the resident memory of a process in MiB."""
    return await total([child], "process_resident_memory_bytes") / 2**20


async def _page(child: Child) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{child.url}/metrics") as answer:
        return await answer.text()
