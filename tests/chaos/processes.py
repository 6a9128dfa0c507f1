"""Faults of Notifier's processes: killed, frozen, replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Final

from harness.client import until
from harness.system import Child
from notifier.embedded.process import run_steps_async
from tests.chaos.round import Fault, Round

PROCESS_S: Final = 10.0
RESCUE_S: Final = 30.0
"""Bound where a pointer is lost and no process died: the rescuer acts after at least 10 s."""
FROZEN_S, WRONG_S = 20.0, 4.0
PAIR: Final = ("--processes", "2")
WORK_S: Final = 2.0
"""Time after which two workers that have just joined share the work."""
SETTLES_S: Final = 0.3
"""Time for the server to commit what a killed client had sent."""


async def api_killed(round_: Round) -> float:
    await round_.aim("queued", "sending", more=round_.load.in_flight_submits)
    round_.arena.api.kill()
    killed_at = time.time()
    await round_.arena.start_api()
    return killed_at


async def worker_killed(round_: Round) -> float:
    return await _killed(round_, round_.arena.run.workers[0])


async def _killed(round_: Round, child: Child) -> float:
    worker = await round_.arena.run.identity(child)
    killed_at = round_.arena.run.kill(child)
    await asyncio.sleep(SETTLES_S)
    round_.hit({which for which, _ in await round_.arena.run.sending(worker)})
    await round_.arena.join()
    return killed_at


async def all_workers_killed(round_: Round) -> float:
    """Kill all workers. Recovery counts from when the first new worker is ready."""
    workers = list(round_.arena.run.workers)
    for child in workers:
        round_.arena.run.kill(child)
    await asyncio.sleep(SETTLES_S)
    await round_.aim("sending")
    await round_.arena.join()
    ended_at = time.time()
    for _ in workers[1:]:
        await round_.arena.join()
    return ended_at


async def one_of_a_pair_killed(round_: Round) -> float:
    """Kill a child of `notifier worker --processes 2`, whose parent restarts it.

    A parent that loses a child again within a minute waits longer before it starts the next: each
    round has a parent of its own.
    """
    (previous,) = round_.arena.run.workers
    parent = await round_.arena.join(*PAIR)
    await round_.arena.run.stop(previous)
    workers = {pid: await round_.arena.run.identity_of(pid) for pid in _children(parent.pid)}
    await asyncio.sleep(WORK_S)
    pid = round_.random.choice(sorted(workers))
    os.kill(pid, signal.SIGKILL)
    killed_at = time.time()
    await asyncio.sleep(SETTLES_S)
    round_.hit({which for which, _ in await round_.arena.run.sending(workers[pid])})
    return killed_at


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[1]) == parent:
            found.append(int(entry.name))
    return sorted(found)


async def worker_frozen(round_: Round) -> float:
    """Freeze a worker for longer than its peers consider it alive; they send what it held."""
    child = round_.arena.run.workers[0]
    worker = await round_.arena.run.identity(child)
    child.send(signal.SIGSTOP)
    try:
        frozen_at = time.time()
        await asyncio.sleep(SETTLES_S)
        round_.hit({which for which, _ in await round_.arena.run.sending(worker)})
        await asyncio.sleep(frozen_at + FROZEN_S - time.time())
    finally:
        child.send(signal.SIGCONT)
    return time.time()


async def rolling_restart(round_: Round) -> float:
    """Replace every worker in turn: a new one joins, the old one stops."""
    for child in list(round_.arena.run.workers):
        await round_.arena.join()
        worker = await round_.arena.run.identity(child)
        round_.hit({which for which, _ in await round_.arena.run.sending(worker)})
        await round_.arena.run.stop(child)
    return time.time()


async def clock_off(round_: Round) -> float:
    """A worker whose clock is ten minutes wrong joins; it never becomes ready, but it sends."""
    child = round_.arena.spawn_worker(CHAOS_CLOCK_S=round_.variant)
    worker = await round_.arena.run.identity(child)
    await until(lambda: round_.arena.run.sending(worker), bool)
    await asyncio.sleep(WRONG_S)
    round_.hit({which for which, _ in await round_.arena.run.sending(worker)})
    await run_steps_async(child.stopping())
    return time.time()


PROCESSES: Final = (
    Fault(
        strike=api_killed,
        timeout_s=PROCESS_S,
        text="The API is killed (-9) and restarted. A worker publishes what the API had stored and "
        "not published.",
    ),
    Fault(
        strike=worker_killed,
        timeout_s=PROCESS_S,
        text="One of two workers is killed (-9); another joins.",
    ),
    Fault(
        strike=all_workers_killed,
        timeout_s=PROCESS_S,
        text="Both workers are killed (-9); two others join. Counted from the first ready.",
    ),
    Fault(
        strike=one_of_a_pair_killed,
        timeout_s=PROCESS_S,
        workers=(PAIR,),
        text="Two workers of one parent on one host; one is killed, the parent restarts it.",
    ),
    Fault(
        strike=worker_frozen,
        timeout_s=PROCESS_S,
        text="One of two workers is stopped (SIGSTOP) for 20 s, longer than its peers consider it "
        "alive, and then continued. Counted from then.",
    ),
    Fault(
        strike=rolling_restart,
        timeout_s=PROCESS_S,
        text="Both workers are replaced one after the other with SIGTERM.",
    ),
    Fault(
        strike=clock_off,
        timeout_s=PROCESS_S,
        variants=("600", "-600"),
        text="A third worker joins whose clock is ten minutes fast or slow, works, and stops.",
    ),
)
