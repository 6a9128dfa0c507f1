"""Kills the API during a batch, and between the commit of an accept and its direct publish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

import aiohttp

from benchmarks.prove.load import SEED
from benchmarks.prove.metrics import total
from harness.client import QUEUES, orders, until
from harness.figure import Figure, never
from harness.run import MIN_IN_FLIGHT, Run, TooFewInFlight
from harness.stack import Stack
from harness.statuses import UNCLAIMED
from harness.tcp_proxy import TcpProxy, open_proxy_for
from notifier.domain.due import DueClass
from notifier.embedded.process import run_steps_async

KILLS = 20
TRIES = 80
RECOVERY_S = 30.0
BURST_S = 8.0
"""A burst of kills is shorter than any rescue, so that no pointer is lost twice."""
CALLERS, BATCH = 4, 25
STUCK = 400
PUBLISHED_S = 0.1
SETTLES_S = 0.5
"""Time for the API to learn that the queues are empty; it then publishes without polling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """`ids` got a 202 before the kill; the pointers of `lost` rows were published and lost."""

    at: float
    ids: Sequence[str]
    in_flight: int
    lost: int = 0


async def api_killed(stack: Stack) -> Sequence[Figure]:
    async with stack.running() as run:
        random = Random(SEED)
        kills = await _counted(run, lambda: _kill_in_mid_batch(run, random))
        return await _judged(run, f"API killed in mid-batch, {KILLS} times", kills)


async def direct_publish_lost(stack: Stack) -> Sequence[Figure]:
    """A proxy between API and RabbitMQ keeps what the API published directly forever."""
    async with stack.running() as run, open_proxy_for(run.broker) as proxy:
        _kill_api(run)
        await run.client.set_behaviour(latency_ms=100)
        await _start_api(run, proxy)
        kills = await _counted(run, lambda: _kill_before_publish(run, proxy))
        name = f"API killed before its direct publish, {KILLS} times"
        lost = sum(kill.lost for kill in kills)
        return [
            *await _judged(run, name, kills),
            Figure(name="... published by them and lost", value=lost, low=KILLS, always=True),
        ]


async def _counted(run: Run, kill: Callable[[], Awaitable[Kill]]) -> list[Kill]:
    """Kill until enough kills had enough in flight; after each burst all must become final."""
    kills, began = list[Kill](), time.monotonic()
    for _ in range(TRIES):
        kills.append(await kill())
        if sum(one.in_flight >= MIN_IN_FLIGHT for one in kills) == KILLS:
            return kills
        if time.monotonic() - began > BURST_S:
            await run.all_final()
            began = time.monotonic()
    raise TooFewInFlight(f"fewer than {KILLS} of {TRIES} kills hit enough")


async def _judged(run: Run, name: str, kills: Sequence[Kill]) -> list[Figure]:
    await run.all_final()
    ids = [which for kill in kills for which in kill.ids]
    recoveries = [await run.last_end(kill.ids) - kill.at for kill in kills if kill.ids]
    accepted = await run.accepted()
    in_flight = sorted(kill.in_flight for kill in kills)[-KILLS:]
    return [
        Figure(name=f"{name}: longest recovery", value=max(recoveries), unit="s", high=RECOVERY_S),
        never("... accepted (202) and not sent", await run.not_sent(ids)),
        never("... accepted (202) and never called", len(set(ids) - set(accepted))),
        Figure(name="... fewest in flight at a kill", value=in_flight[0], low=20, always=True),
    ]


async def _kill_in_mid_batch(run: Run, random: Random) -> Kill:
    """Return the ids from all callers; each had one batch in flight at the kill."""
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(_answered(run)) for _ in range(CALLERS)]
        await asyncio.sleep(random.uniform(0.1, 0.2))
        _kill_api(run)
        killed_at = time.time()
    ids = [which for caller in callers for which in caller.result()[0]]
    cut = sum(caller.result()[1] for caller in callers)
    await run_steps_async(run.system.spawn_api().starting())
    return Kill(at=killed_at, ids=ids, in_flight=cut if ids else 0)


async def _answered(run: Run) -> tuple[list[str], int]:
    """Submit batches until the API is gone; return the ids and the size of the open batch."""
    ids = list[str]()
    while True:
        try:
            ids += await run.client.submit(orders(BATCH))
        except aiohttp.ClientConnectorError:
            return ids, 0
        except aiohttp.ClientError:
            return ids, BATCH


async def _kill_before_publish(run: Run, proxy: TcpProxy) -> Kill:
    """In flight are ids with a 202 that were not called; a kill without a loss does not count."""
    proxy.blackhole()
    ids = await run.client.submit(orders(STUCK))
    await asyncio.sleep(PUBLISHED_S)
    _kill_api(run)
    killed_at = time.time()
    lost = await _lost(run, ids)
    called = {call["notification_id"] for call in await run.client.log()}
    proxy.cut()
    proxy.heal()
    await _start_api(run, proxy)
    in_flight = len(set(ids) - called) if lost else 0
    return Kill(at=killed_at, ids=ids, in_flight=in_flight, lost=lost)


async def _lost(run: Run, ids: Sequence[str]) -> int:
    """Count the rows that the API was to publish itself and that nobody has claimed."""
    sql = "SELECT count(*) FROM live WHERE id = ANY($1) AND class = $2 AND claimed_by = $3"
    wanted = [UUID(which) for which in ids]
    return round(await run.number(sql, wanted, DueClass.DIRECT, UNCLAIMED))


async def _start_api(run: Run, proxy: TcpProxy) -> None:
    """Start an API that reaches RabbitMQ only through the proxy, and wait until it publishes."""
    child = run.system.spawn_api(NOTIFIER_BROKER__URL=proxy.url(run.broker))
    await run_steps_async(child.starting())

    async def published() -> float:
        await run.client.submit(orders(len(QUEUES)))
        return await total([child], "notifier_published")

    await until(published, bool)
    await asyncio.sleep(SETTLES_S)


def _kill_api(run: Run) -> None:
    (api,) = (
        child for child in run.system.children if child.is_running and child.url == run.client.api
    )
    api.kill()
