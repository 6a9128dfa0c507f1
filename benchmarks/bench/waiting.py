"""Wait of an urgent email, from submit to the start of its job, under a hang or a flood."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from benchmarks.bench.curve import Figures, latencies, waits_of
from benchmarks.bench.place import Place, Servers
from benchmarks.bench.submitting import Void
from benchmarks.bench.systems import Contender, Document, Manning, a_notification

URGENT = "email.high"
RATE = 50.0
WARM_S, DURING_S = 2.0, 8.0
SMS_RATE, SMS_S, HANG_S = 20.0, 10.0, 10.0
FLOOD, NAP_S = 40_000, 0.02
"""64 concurrent jobs need at least 12.5 s for the flood, longer than the measurement."""
LEFT_S = 90.0


def hang(servers: Servers, system: Contender) -> Figures:
    """One worker serves both queues; 20 SMS/s take no time at first, then 10 s each."""
    manning = Manning(
        processes=1,
        concurrency=64,
        prefetch=64,
        queues=(URGENT, "sms.medium"),
        celery_processes=0,
        dramatiq_threads=64,
    )
    with servers.place(system.default_queue_type) as place:
        url = _started(place, system, manning)
        return asyncio.run(_hang(place, url))


def flood(servers: Servers, system: Contender) -> Figures:
    """40,000 low jobs of 20 ms each wait; the peers use one queue with priorities."""
    manning = Manning(
        processes=1,
        concurrency=64,
        prefetch=64,
        queues=(URGENT, "email.low"),
        has_priorities=True,
        celery_processes=0,
        dramatiq_threads=64,
    )
    with servers.place() as place:
        place.log.touch()
        url = system.serve(place, manning, 1)
        low = a_notification("email.low", do="timed", at=time.time(), sleep_s=NAP_S)
        system.fill(place, manning, [low] * FLOOD, url)
        system.work(place, manning)
        place.children.wait(lambda: place.log.stat().st_size > 0, "the first low one")
        return asyncio.run(_flood(place, url))


def _started(place: Place, system: Contender, manning: Manning) -> str:
    """Start API and worker and wait until the worker has done one job."""
    place.log.touch()
    url = system.serve(place, manning, 1)
    system.work(place, manning)
    asyncio.run(_first(url))
    place.children.wait(lambda: place.log.stat().st_size > 0, "the first one")
    return url


async def _hang(place: Place, url: str) -> Figures:
    await _steady(url, WARM_S, sms_s=0.0)
    before = time.time()
    count = await _steady(url, SMS_S, sms_s=0.0)
    during = time.time()
    count += await _steady(url, SMS_S, sms_s=HANG_S)
    waits = await _waits(place, before, count)
    return {
        **latencies([wait for at, wait in waits if at < during], "_before"),
        **latencies([wait for at, wait in waits if at >= during], "_during"),
    }


async def _flood(place: Place, url: str) -> Figures:
    await _steady(url, WARM_S)
    began = time.time()
    count = await _steady(url, DURING_S)
    low = place.log.read_text().count("email.low")
    if low >= FLOOD:
        raise Void("the flood was over before the measurement")
    return latencies([wait for _, wait in await _waits(place, began, count)])


async def _waits(place: Place, since: float, count: int) -> Sequence[tuple[float, float]]:
    """Return the waits of all jobs submitted since, once all have started."""
    deadline = time.monotonic() + LEFT_S
    while True:
        waits = [one for one in waits_of(place.log.read_text(), URGENT) if one[0] >= since]
        if len(waits) >= count:
            return waits
        if time.monotonic() > deadline:
            raise Void(f"only {len(waits)} of {count} have begun after {LEFT_S:g} s")
        await asyncio.sleep(0.5)


async def _steady(url: str, span_s: float, *, sms_s: float | None = None) -> int:
    """Submit urgent jobs at a rate, one per request, and return their number.

    With `sms_s`, SMS jobs of that many seconds are submitted too.
    """
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        if sms_s is not None:
            group.create_task(_stream(session, url, "sms.medium", SMS_RATE, span_s, sms_s))
        return await _stream(session, url, URGENT, RATE, span_s, 0.0)


async def _stream(
    session: aiohttp.ClientSession, url: str, queue: str, rate: float, span_s: float, job_s: float
) -> int:
    """Submit all and return when all are accepted."""
    began, number = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while (at := number / rate) < span_s:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            group.create_task(_post(session, url, queue, job_s), name="submit")
            number += 1
    return number


async def _first(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        await _post(session, url, URGENT, 0.0)


async def _post(session: aiohttp.ClientSession, url: str, queue: str, sleep_s: float) -> None:
    one: Document = a_notification(queue, do="timed", at=time.time(), sleep_s=sleep_s)
    async with session.post(f"{url}/v1/notifications", json=one) as response:
        if response.status != 202:
            raise Void(f"{response.status}: {await response.text()}")
