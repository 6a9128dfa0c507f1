"""Drain workloads: sends per second from a backlog that exists when the workers start."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import asyncpg

from benchmarks.bench.children import answer
from benchmarks.bench.cost import Meter, hot_figures, updates
from benchmarks.bench.curve import Figures, Sample, throughput
from benchmarks.bench.place import Place, Servers
from benchmarks.bench.submitting import Void
from benchmarks.bench.systems import NOTIFIER, Contender, Document, Manning, a_notification
from harness.client import QUEUES
from notifier.embedded.free_ports import free_ports

DRAIN_S = 240.0
RECORDED_S = 30.0
AT_ITS_BEST = Manning(notifier_consumers=512)
SMS = "2010-04-01/Accounts/ACsandbox/Messages.json"


def drain(
    servers: Servers, system: Contender, count: int, manning: Manning = AT_ITS_BEST
) -> Figures:
    """No-op sends from one queue."""
    with servers.place(system.default_queue_type) as place:
        return drained(place, system, manning, [a_notification()] * count)


def drain_mixed(servers: Servers, count: int) -> Figures:
    """Notifier only, over nine queues."""
    many = [a_notification(QUEUES[number % len(QUEUES)]) for number in range(count)]
    with servers.place() as place:
        return drained(place, NOTIFIER, Manning(queues=QUEUES), many)


def drain_http(servers: Servers, system: Contender, count: int) -> Figures:
    """Each send is a POST to the sandbox, one Python process on the same machine."""
    with servers.place(system.default_queue_type) as place:
        manning = Manning(queues=("sms.medium",), sandbox_url=_sandbox(place), celery_processes=16)
        many = [a_notification("sms.medium", do="http")] * count
        return drained(place, system, manning, many)


def _sandbox(place: Place) -> str:
    http, smtp = free_ports(2)
    words = ["sandbox", "--http-port", str(http), "--smtp-port", str(smtp)]
    place.children.start("sandbox", [sys.executable, "-m", "notifier", *words], {})
    url = f"http://127.0.0.1:{http}"
    place.children.wait(lambda: answer(f"{url}/calls/summary") is not None, "the sandbox")
    return f"{url}/{SMS}"


def drained(place: Place, system: Contender, manning: Manning, many: Sequence[Document]) -> Figures:
    """Enqueue all, start the workers, wait until all are done, and stop every process."""
    place.log.write_bytes(b"")
    began = datetime.now(UTC)
    before = asyncio.run(updates(place))
    system.fill(place, manning, many)
    system.work(place, manning)
    figures = measured(place, len(many))
    if system is NOTIFIER:
        asyncio.run(_all_recorded(place, len(many), began))
    else:
        _all_acknowledged(place, system)
    place.children.stop()
    return {**figures, **hot_figures(before, asyncio.run(updates(place)), len(many))}


def measured(place: Place, count: int) -> Figures:
    """Wait until all are done; return their rate and what they cost."""
    meter = Meter(place, count)
    samples = watch(place, count, meter.see)
    return {"per_s": throughput(samples, count), **meter.figures()}


def watch(
    place: Place, count: int, see: Callable[[int], None] = lambda _: None
) -> Sequence[Sample]:
    """Wait until all are done; none may be done twice. `see` gets the number done at each poll."""
    samples = list[Sample]()

    def is_done() -> bool:
        size = place.log.stat().st_size
        samples.append((time.monotonic(), size))
        see(size)
        return size >= count

    place.children.wait(is_done, f"{count} sends", within=DRAIN_S)
    if samples[-1][1] != count:
        raise Void(f"{samples[-1][1]} sends of {count}")
    return samples


def _all_acknowledged(place: Place, system: Contender) -> None:
    """Check after the workers stopped: an unacknowledged job would still be in its queue."""
    place.children.stop("worker")
    if left := system.stored(place):
        raise Void(f"{left} sends were done and not acknowledged")


async def _all_recorded(place: Place, count: int, since: datetime) -> None:
    """Check that every notification has exactly one attempt, an accepted one, and none waits."""
    sql = """
        SELECT count(*), count(DISTINCT id) FILTER (WHERE outcome = 'accepted'),
               (SELECT count(*) FROM live)
        FROM attempts WHERE id >= uuid_at($1)"""
    connection = await asyncpg.connect(place.database_url)
    try:
        deadline = time.monotonic() + RECORDED_S
        while (seen := tuple((await connection.fetch(sql, since))[0])) != (count, count, 0):
            if time.monotonic() > deadline:
                raise Void(f"of {count}: attempts, sent, and rows that wait: {seen}")
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
