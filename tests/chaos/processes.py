"""Our own processes are killed, frozen, replaced."""

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
"""A pointer was lost, and no process died of it: it is rescued, at the earliest after 10 s."""
FROZEN_S, WRONG_S = 20.0, 4.0
PAIR: Final = ("--processes", "2")
WORK_S: Final = 2.0
"""Two that have just joined have shared the work by then."""
SETTLES_S: Final = 0.3
"""What a killed client had sent, its server still commits."""


async def api_killed(this: Round) -> float:
    await this.aim("queued", "sending", more=this.load.under_way)
    this.arena.api.kill()
    killed_at = time.time()
    await this.arena.start_api()
    return killed_at


async def worker_killed(this: Round) -> float:
    return await _killed(this, this.arena.run.workers[0])


async def _killed(this: Round, child: Child) -> float:
    worker = await this.arena.run.identity(child)
    killed_at = this.arena.run.kill(child)
    await asyncio.sleep(SETTLES_S)
    this.hit({which for which, _ in await this.arena.run.sending(worker)})
    await this.arena.join()
    return killed_at


async def all_workers_killed(this: Round) -> float:
    """Until the first of the new is ready there is nobody who could recover."""
    workers = list(this.arena.run.workers)
    for child in workers:
        this.arena.run.kill(child)
    await asyncio.sleep(SETTLES_S)
    await this.aim("sending")
    await this.arena.join()
    ended_at = time.time()
    for _ in workers[1:]:
        await this.arena.join()
    return ended_at


async def one_of_a_pair_killed(this: Round) -> float:
    """`notifier worker --processes 2`: the parent starts the killed one again.

    A parent that loses a child again within a minute waits longer before it starts the next: each
    round has a parent of its own.
    """
    (worn,) = this.arena.run.workers
    parent = await this.arena.join(*PAIR)
    await this.arena.run.stop(worn)
    workers = {pid: await this.arena.run.identity_of(pid) for pid in _children(parent.pid)}
    await asyncio.sleep(WORK_S)
    pid = this.random.choice(sorted(workers))
    os.kill(pid, signal.SIGKILL)
    killed_at = time.time()
    await asyncio.sleep(SETTLES_S)
    this.hit({which for which, _ in await this.arena.run.sending(workers[pid])})
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


async def worker_frozen(this: Round) -> float:
    """For longer than the others take it for alive; what it held they send meanwhile."""
    child = this.arena.run.workers[0]
    worker = await this.arena.run.identity(child)
    child.send(signal.SIGSTOP)
    try:
        frozen_at = time.time()
        await asyncio.sleep(SETTLES_S)
        this.hit({which for which, _ in await this.arena.run.sending(worker)})
        await asyncio.sleep(frozen_at + FROZEN_S - time.time())
    finally:
        child.send(signal.SIGCONT)
    return time.time()


async def rolling_restart(this: Round) -> float:
    """Every worker in turn: another joins, this one stops."""
    for child in list(this.arena.run.workers):
        await this.arena.join()
        worker = await this.arena.run.identity(child)
        this.hit({which for which, _ in await this.arena.run.sending(worker)})
        await this.arena.run.stop(child)
    return time.time()


async def clock_off(this: Round) -> float:
    """A worker joins whose clock is ten minutes off; it is never ready, and it sends."""
    child = this.arena.spawn_worker(CHAOS_CLOCK_S=this.variant)
    worker = await this.arena.run.identity(child)
    await until(lambda: this.arena.run.sending(worker), bool)
    await asyncio.sleep(WRONG_S)
    this.hit({which for which, _ in await this.arena.run.sending(worker)})
    await run_steps_async(child.stopping())
    return time.time()


PROCESSES: Final = (
    Fault(
        strike=api_killed,
        within_s=PROCESS_S,
        says="The API is killed (-9) and started again. What its relay had taken and not published "
        "is due again when the workers take it for dead.",
    ),
    Fault(
        strike=worker_killed,
        within_s=PROCESS_S,
        says="One of two workers is killed (-9); another joins.",
    ),
    Fault(
        strike=all_workers_killed,
        within_s=PROCESS_S,
        says="Both workers are killed (-9); two others join. Counted from when the first is ready.",
    ),
    Fault(
        strike=one_of_a_pair_killed,
        within_s=PROCESS_S,
        workers=(PAIR,),
        says="Two workers of one parent on one host; one is killed, the parent starts it again.",
    ),
    Fault(
        strike=worker_frozen,
        within_s=PROCESS_S,
        says="One of two workers is stopped (SIGSTOP) for 20 s, which is past its death, and goes "
        "on. Counted from then.",
    ),
    Fault(
        strike=rolling_restart,
        within_s=PROCESS_S,
        says="Both workers are replaced one after the other, in order.",
    ),
    Fault(
        strike=clock_off,
        within_s=PROCESS_S,
        variants=("600", "-600"),
        says="A third worker joins whose clock is ten minutes fast or slow, works, and stops.",
    ),
)
