"""Faults between every two steps of accept, relay, claim, record and acknowledge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from harness.client import until
from harness.system import Child
from tests.chaos.processes import PROCESS_S, SETTLES_S
from tests.chaos.round import Fault, Round

ITEMS: Final = (80, 240)
LOSES_EVERY: Final = 40
RELAYED: Final = (10, 40)
"""As ITEMS, in a relay, which publishes only what the API has not published directly."""
LOSES_FOR_S: Final = 6.0
DIES_WITHIN_S: Final = 40.0


async def stopped_in_accept(round_: Round) -> float:
    return await _api_stops(round_)


async def stopped_in_relay(round_: Round) -> float:
    """Replace both workers by one that kills itself in its relay, and that by two others.

    Recovery counts from when the first of these is ready.
    """
    doomed = await round_.arena.join(**_kills(round_, RELAYED))
    for child in round_.arena.run.workers[:-1]:
        await round_.arena.run.stop(child)
    await _death_of(doomed)
    round_.arena.run.workers.remove(doomed)
    await round_.aim("queued", "sending")
    await round_.arena.join()
    ended_at = time.time()
    await round_.arena.join()
    return ended_at


async def stopped_in_claim(round_: Round) -> float:
    return await _worker_stops(round_)


async def stopped_in_record(round_: Round) -> float:
    return await _worker_stops(round_)


async def stopped_in_ack(round_: Round) -> float:
    return await _worker_stops(round_)


async def _api_stops(round_: Round) -> float:
    """Run an API that kills itself at the step, then start another one."""
    await round_.arena.start_api(**_kills(round_))
    died_at = await _death_of(round_.arena.api)
    await round_.aim("queued", "sending", more=round_.load.in_flight_submits)
    await round_.arena.start_api()
    return died_at


async def _worker_stops(round_: Round) -> float:
    """Run a third worker that kills itself at the step."""
    child = round_.arena.spawn_worker(**_kills(round_))
    worker = await round_.arena.run.identity(child)
    died_at = await _death_of(child)
    await asyncio.sleep(SETTLES_S)
    rows = await round_.arena.run.sending(worker)
    round_.hit({which for which, _ in rows})
    return died_at


async def _death_of(child: Child) -> float:
    async def is_running() -> bool:
        return child.is_running

    await until(is_running, lambda runs: not runs, DIES_WITHIN_S)
    return time.time()


def _kills(round_: Round, after: tuple[int, int] = ITEMS) -> dict[str, str]:
    items = round_.random.randint(*after)
    return {"CHAOS_STOP_AT": round_.variant, "CHAOS_HOW": "kill", "CHAOS_ITEMS": str(items)}


async def answers_lost_in_accept(round_: Round) -> float:
    await round_.arena.start_api(**_loses(round_))
    await asyncio.sleep(LOSES_FOR_S)
    await round_.aim("queued", "sending", more=round_.load.in_flight_submits)
    await round_.arena.start_api()
    return time.time()


async def answers_lost_in_relay(round_: Round) -> float:
    """Let a worker that loses replies hold all leases, then replace it by another one."""
    child = await round_.arena.join(**_loses(round_, RELAYED[0]))
    stopped = round_.arena.run.workers[:-1]
    for other in stopped:
        await round_.arena.run.stop(other)
    await asyncio.sleep(LOSES_FOR_S)
    await round_.aim("queued", "sending")
    for _ in stopped:
        await round_.arena.join()
    await round_.arena.run.stop(child)
    return time.time()


async def answers_lost_in_claim(round_: Round) -> float:
    """Run a worker that loses replies, then stop it with SIGTERM."""
    child = await round_.arena.join(**_loses(round_))
    worker = await round_.arena.run.identity(child)
    await asyncio.sleep(LOSES_FOR_S)
    round_.hit({which for which, _ in await round_.arena.run.sending(worker)})
    await round_.arena.run.stop(child)
    return time.time()


async def answers_lost_in_record(round_: Round) -> float:
    return await answers_lost_in_claim(round_)


def _loses(round_: Round, every: int = LOSES_EVERY) -> dict[str, str]:
    return {"CHAOS_STOP_AT": round_.variant, "CHAOS_HOW": "raise", "CHAOS_ITEMS": str(every)}


ACCEPT: Final = ("insert:before", "insert:after", "publish:after")
RELAY: Final = ("read_due:after", "publish:before", "publish:after")
CLAIM: Final = ("claim:before", "claim:after")
RECORD: Final = ("record:before", "record:after")
ACK: Final = ("ack:before", "ack:after")
STEPS: Final[Sequence[Fault]] = (
    Fault(
        strike=stopped_in_accept,
        variants=ACCEPT,
        timeout_s=PROCESS_S,
        text="The API kills itself right before or after the commit of a batch of submits, or "
        "after it has published them. A worker publishes what is unclaimed after 2 s.",
    ),
    Fault(
        strike=stopped_in_relay,
        variants=RELAY,
        timeout_s=PROCESS_S,
        text="The worker that holds all leases kills itself between the read of due rows and their "
        "publish, or after the publish; two others join. Counted from the first ready.",
    ),
    Fault(
        strike=stopped_in_claim,
        variants=CLAIM,
        timeout_s=PROCESS_S,
        text="A worker kills itself before or after a claim.",
    ),
    Fault(
        strike=stopped_in_record,
        variants=RECORD,
        timeout_s=PROCESS_S,
        text="A worker kills itself after provider calls, before or after their record.",
    ),
    Fault(
        strike=stopped_in_ack,
        variants=ACK,
        timeout_s=PROCESS_S,
        text="A worker kills itself before or after it acknowledges a message.",
    ),
    Fault(
        strike=answers_lost_in_accept,
        variants=(*ACCEPT, "publish:before"),
        timeout_s=PROCESS_S,
        text="For every fortieth row the API's store fails before or after an accept's commit, or "
        "its broker before or after the publish.",
    ),
    Fault(
        strike=answers_lost_in_relay,
        variants=("read_due:before", *RELAY),
        timeout_s=PROCESS_S,
        text="The same faults around the reads and the publishes of the worker that holds all "
        "leases.",
    ),
    Fault(
        strike=answers_lost_in_claim,
        variants=CLAIM,
        timeout_s=PROCESS_S,
        text="The same faults around a worker's claims.",
    ),
    Fault(
        strike=answers_lost_in_record,
        variants=RECORD,
        timeout_s=PROCESS_S,
        text="The same faults around a worker's records.",
    ),
)
