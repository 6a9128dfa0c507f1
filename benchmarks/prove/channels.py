"""A deployment with many channels: its start, what it costs while idle, and a lone urgent send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import inf
from random import Random
from typing import Final
from uuid import UUID

from benchmarks.prove.metrics import series
from benchmarks.prove.processors import cpu_s
from harness.client import open_client, submit_body
from harness.figure import Figure
from harness.judge import first_calls, percentile, waits
from harness.run import Run
from harness.stack import Stack
from harness.system import Child, running_system, urls
from notifier.domain.notification import Priority
from notifier.embedded.process import run_steps_async

CHANNELS: Final = 100
FEW: Final = 3
READY_S: Final = 10.0
IDLE_CORES: Final = 0.05
LONE_P50_MS, LONE_P99_MS = 10.0, 30.0
"""The bounds of the line `idle_latency`, which has nine queues."""
SERIES: Final = 6_000
SETTLES_S: Final = 20.0
IDLE_S: Final = 30.0
LONE_PER_S, LONE_S = 5.0, 60.0
KINDS: Final = (("email", "smtp"), ("phone", "twilio"), ("token", "fcm"))
RECIPIENTS: Final = ("email.high", "sms.high", "push.high")
SEED: Final = 1
ACCEPTED_AT: Final = """SELECT id, extract(epoch FROM created_at)::float8 AS at
                        FROM notifications WHERE id = ANY($1)"""


async def channels(stack: Stack) -> Sequence[Figure]:
    """Run an API and a worker with 100 channels, 300 queues.

    They start on an empty database and an empty vhost, and once more on what the first start left.
    The processor time is that of a process that has nothing to do. Single notifications then go to
    the queues, five per second: 300 in a minute, each to a queue that was never used. The same with
    three channels, nine queues that get 33 each, is reported beside it: what is slow there too, the
    number of channels does not explain.
    """
    many, few = await _measure(stack, CHANNELS), await _measure(stack, FEW)
    return [
        *_figures(CHANNELS, many, _Bound(is_bounded=True)),
        *_figures(FEW, few, _Bound(is_bounded=False)),
        *(
            Figure(
                name=f"{CHANNELS} channels compared with {FEW}: {name}",
                value=value(many) / value(few),
            )
            for name, value in COMPARED.items()
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Measured:
    first_s: float
    again_s: float
    api_cores: float
    worker_cores: float
    lone_ms: Sequence[float]
    series: float

    def lone(self, share: float) -> float:
        """Return a percentile of the single sends in milliseconds."""
        return percentile(self.lone_ms, share)


COMPARED: Final[Mapping[str, Callable[[_Measured], float]]] = {
    "idle worker": lambda measured: measured.worker_cores,
    "single send, p50": lambda measured: measured.lone(0.5),
    "single send, p95": lambda measured: measured.lone(0.95),
    "single send, p99": lambda measured: measured.lone(0.99),
}


async def _measure(stack: Stack, count: int) -> _Measured:
    config = stack.folder / f"channels-{count}.toml"
    config.write_text(_settings(count))
    async with stack.place() as place:
        settings = {"config": config, **urls(place.database, place.broker)}
        with running_system(place.folder, settings) as system:
            await run_steps_async(system.spawn_sandbox().starting())
            first_s = await _start(api := system.spawn_api(), worker := system.spawn_worker())
            for child in (worker, api):
                await run_steps_async(child.stopping())
            again_s = await _start(api := system.spawn_api(), worker := system.spawn_worker())
            await asyncio.sleep(SETTLES_S)
            api_cores, worker_cores = await _cores(api, worker)
            async with open_client(system.api_url, system.sandbox_url) as client:
                run = Run(system, client, place.database, place.broker, [worker])
                lone_ms = await _lone(run, _queues(count))
            lines = max(await series(api), await series(worker))
    return _Measured(first_s, again_s, api_cores, worker_cores, lone_ms, lines)


def _figures(count: int, measured: _Measured, bound: _Bound) -> Sequence[Figure]:
    return [
        bound(f"{count} channels: first start", measured.first_s, "s", READY_S),
        bound("... next start", measured.again_s, "s", READY_S),
        bound("... idle API", measured.api_cores, "cores", IDLE_CORES),
        bound("... idle worker", measured.worker_cores, "cores", IDLE_CORES),
        bound("... single send, accepted to called, p50", measured.lone(0.5), "ms", LONE_P50_MS),
        bound("... p95", measured.lone(0.95), "ms", inf),
        bound("... p99", measured.lone(0.99), "ms", LONE_P99_MS),
        bound("... series of a process", measured.series, "", SERIES),
    ]


@dataclass(frozen=True, slots=True)
class _Bound:
    """Makes figures, whose bounds hold if `is_bounded`."""

    is_bounded: bool

    def __call__(self, name: str, value: float, unit: str, high: float) -> Figure:
        return Figure(name=name, value=value, unit=unit, high=high if self.is_bounded else inf)


def _settings(count: int) -> str:
    """Return the settings file; the names of the providers are those of `harness.system`."""
    tables = [
        f'[channels.c{number:03}]\naddress = "{address}"\nprovider = "{provider}"\n'
        for number in range(count)
        for address, provider in [KINDS[number % len(KINDS)]]
    ]
    return "\n".join(tables)


def _queues(count: int) -> Mapping[str, str]:
    """Return all queues, each with a queue of a default channel that has the same recipients."""
    return {
        f"c{number:03}.{priority}": RECIPIENTS[number % len(RECIPIENTS)]
        for number in range(count)
        for priority in Priority
    }


async def _start(*children: Child) -> float:
    """Wait until all are ready; return the seconds since they were spawned."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for child in children:
            group.create_task(run_steps_async(child.starting()), name=child.log.name)
    return time.monotonic() - began


async def _cores(*children: Child) -> Sequence[float]:
    """Return the processor time that each uses per second while it is idle."""
    before, began = [cpu_s(child.pid) for child in children], time.monotonic()
    await asyncio.sleep(IDLE_S)
    span_s = time.monotonic() - began
    return [(cpu_s(child.pid) - was) / span_s for child, was in zip(children, before, strict=True)]


async def _lone(run: Run, queues: Mapping[str, str]) -> Sequence[float]:
    """Submit single notifications to all queues in a random order; return their milliseconds."""
    random, began, at = Random(SEED), time.monotonic(), 0.0
    shuffled = random.sample(sorted(queues), len(queues))
    ids = list[str]()
    for queue in islice(cycle(shuffled), round(LONE_PER_S * LONE_S)):
        at += random.expovariate(LONE_PER_S)
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        channel, _, priority = queue.partition(".")
        body = submit_body(queues[queue]) | {"channel": channel, "priority": priority}
        ids.append(await run.client.submit_one(body))
    await run.all_final()
    rows = await run.rows(ACCEPTED_AT, [UUID(one) for one in ids])
    accepted = {str(row["id"]): float(row["at"]) for row in rows}
    return waits(accepted, first_calls(await run.client.log()))
