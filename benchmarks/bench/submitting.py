"""Submit workloads: submits per second, single by wrk and, for Notifier, in batches."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import aiohttp

from benchmarks.bench.children import run_to_end
from benchmarks.bench.curve import Figures
from benchmarks.bench.place import Place, Servers
from benchmarks.bench.systems import NOTIFIER, Contender, Manning, a_notification

SCRIPT = Path(__file__).with_name("submit.lua")
CONNECTIONS = 64
WARM_S, SPAN_S = 1, 5
SETTLE_S, SETTLE_EVERY_S = 20.0, 0.5
BATCH, CALLERS = 1000, 4


class Void(Exception):
    """A response was not a 202, or stored counts differ; the round does not count."""


def single(servers: Servers, system: Contender, processes: int) -> Figures:
    with servers.place(system.default_queue_type) as place:
        url = system.serve(place, Manning(), processes)
        wrk(url, WARM_S)
        before = _settled(place, system)
        figures = wrk(url, SPAN_S)
        place.children.check()
        stored = _settled(place, system) - before
    if not all_kept(figures["requests"], stored):
        raise Void(f"{figures['requests']:g} submits were answered with 202, {stored} are kept")
    return figures


def all_kept(answered: float, stored: int) -> bool:
    """Check that every 202 is stored; open requests may add one per connection."""
    return answered <= stored <= answered + CONNECTIONS


def _settled(place: Place, system: Contender) -> int:
    """Return the stored count once it is stable; requests of wrk may finish after its exit."""
    seen, deadline = -1, time.monotonic() + SETTLE_S
    while seen != (now := system.stored(place)):
        if time.monotonic() > deadline:
            raise Void(f"still more is stored {SETTLE_S:g} s after the last submit: {now}")
        seen = now
        time.sleep(SETTLE_EVERY_S)
    return seen


def wrk(url: str, span_s: int, script: Path = SCRIPT) -> Figures:
    """Submit to the API at this URL. Raises Void if a response is not a 202."""
    how = ["-t1", f"-c{CONNECTIONS}", f"-d{span_s}s", "--timeout", "10s", "-s", str(script)]
    said = run_to_end(["wrk", *how, f"{url}/v1/notifications"], {}, span_s + 30)
    seen = json.loads(said.splitlines()[-1])
    if seen["errors"] or not seen["requests"]:
        raise Void(f"of {seen['requests']} submits {seen['errors']} were not answered with 202")
    return {
        "requests": seen["requests"],
        "per_s": seen["requests"] / seen["duration_us"] * 1e6,
        "p50_ms": seen["p50_us"] / 1000,
        "p99_ms": seen["p99_us"] / 1000,
    }


def batches(servers: Servers, processes: int) -> Figures:
    """Four callers submit 1,000 per request; timed from the first request to the last response."""
    with servers.place() as place:
        url = NOTIFIER.serve(place, Manning(), processes)
        asyncio.run(_submit(url, WARM_S))
        return {"per_s": asyncio.run(_submit(url, SPAN_S))}


async def _submit(url: str, span_s: float) -> float:
    body = json.dumps({"notifications": [a_notification()] * BATCH}).encode()
    headers = {"Content-Type": "application/json"}
    began, accepted = time.monotonic(), 0

    async def call(session: aiohttp.ClientSession) -> None:
        nonlocal accepted
        while time.monotonic() - began < span_s:
            async with session.post(f"{url}/v1/notifications/batch", data=body) as response:
                said = await response.text()
                if (good := said.count('"queued"')) != BATCH:
                    raise Void(f"{good} of {BATCH} were accepted: {response.status} {said[:300]}")
                accepted += good

    async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(call(session), name=f"caller {number}")
    return accepted / (time.monotonic() - began)
