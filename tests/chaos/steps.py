"""Stops between every two steps of accept, relay, claim, record, acknowledge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from harness.client import until
from harness.system import Child
from tests.chaos.processes import PROCESS_S, RESCUE_S, SETTLES_S
from tests.chaos.round import Fault, Round

ITEMS: Final = (80, 240)
LOSES_EVERY: Final = 40
LOSES_FOR_S: Final = 6.0
DIES_WITHIN_S: Final = 40.0


async def stopped_in_accept(this: Round) -> float:
    return await _api_stops(this)


async def stopped_in_relay(this: Round) -> float:
    return await _api_stops(this)


async def stopped_in_claim(this: Round) -> float:
    return await _worker_stops(this)


async def stopped_in_record(this: Round) -> float:
    return await _worker_stops(this)


async def stopped_in_ack(this: Round) -> float:
    return await _worker_stops(this)


async def _api_stops(this: Round) -> float:
    """The API of this round kills itself at the step; another takes its place."""
    await this.arena.start_api(**_kills(this))
    died_at = await _death_of(this.arena.api)
    await this.aim("queued", "sending", more=this.load.under_way)
    await this.arena.start_api()
    return died_at


async def _worker_stops(this: Round) -> float:
    """A third worker joins and kills itself at the step."""
    child = this.arena.spawn_worker(**_kills(this))
    worker = await this.arena.run.identity(child)
    died_at = await _death_of(child)
    await asyncio.sleep(SETTLES_S)
    rows = await this.arena.run.sending(worker)
    this.hit({which for which, _ in rows})
    return died_at


async def _death_of(child: Child) -> float:
    async def is_running() -> bool:
        return child.is_running

    await until(is_running, lambda runs: not runs, DIES_WITHIN_S)
    return time.time()


def _kills(this: Round) -> dict[str, str]:
    items = this.random.randint(*ITEMS)
    return {"CHAOS_STOP_AT": this.variant, "CHAOS_HOW": "kill", "CHAOS_ITEMS": str(items)}


async def answers_lost_in_accept(this: Round) -> float:
    await this.arena.start_api(**_loses(this))
    await asyncio.sleep(LOSES_FOR_S)
    await this.aim("queued", "sending", more=this.load.under_way)
    await this.arena.start_api()
    return time.time()


async def answers_lost_in_relay(this: Round) -> float:
    return await answers_lost_in_accept(this)


async def answers_lost_in_claim(this: Round) -> float:
    """A worker that loses answers works, and stops in order."""
    child = await this.arena.join(**_loses(this))
    worker = await this.arena.run.identity(child)
    await asyncio.sleep(LOSES_FOR_S)
    this.hit({which for which, _ in await this.arena.run.sending(worker)})
    await this.arena.run.stop(child)
    return time.time()


async def answers_lost_in_record(this: Round) -> float:
    return await answers_lost_in_claim(this)


def _loses(this: Round) -> dict[str, str]:
    every = str(LOSES_EVERY)
    return {"CHAOS_STOP_AT": this.variant, "CHAOS_HOW": "raise", "CHAOS_ITEMS": every}


ACCEPT: Final = ("insert:before", "insert:after")
RELAY: Final = ("take_due:before", "take_due:after", "publish:after")
CLAIM: Final = ("claim:before", "claim:after")
RECORD: Final = ("record:before", "record:after")
ACK: Final = ("ack:before", "ack:after")
STEPS: Final[Sequence[Fault]] = (
    Fault(
        strike=stopped_in_accept,
        variants=ACCEPT,
        within_s=PROCESS_S,
        says="The API kills itself right before, or right after, the commit of a batch of submits. "
        "What its relay had taken is due again when the workers take it for dead.",
    ),
    Fault(
        strike=stopped_in_relay,
        variants=RELAY,
        within_s=PROCESS_S,
        says="The API kills itself before its relay takes due rows, between that commit and the "
        "publish, or after the publish. What it had taken is due again when the workers take it "
        "for dead.",
    ),
    Fault(
        strike=stopped_in_claim,
        variants=CLAIM,
        within_s=PROCESS_S,
        says="A worker kills itself before or after a claim.",
    ),
    Fault(
        strike=stopped_in_record,
        variants=RECORD,
        within_s=PROCESS_S,
        says="A worker kills itself after calls and before, or after, their record.",
    ),
    Fault(
        strike=stopped_in_ack,
        variants=ACK,
        within_s=PROCESS_S,
        says="A worker kills itself before or after it acknowledges a message.",
    ),
    Fault(
        strike=answers_lost_in_accept,
        variants=ACCEPT,
        within_s=PROCESS_S,
        says="For every fortieth row the API's store fails before or after an accept's commit.",
    ),
    Fault(
        strike=answers_lost_in_relay,
        variants=(*RELAY, "publish:before"),
        within_s=RESCUE_S,
        says="The same around the taking of due rows and around the publish.",
    ),
    Fault(
        strike=answers_lost_in_claim,
        variants=CLAIM,
        within_s=PROCESS_S,
        says="The same around a worker's claims.",
    ),
    Fault(
        strike=answers_lost_in_record,
        variants=RECORD,
        within_s=PROCESS_S,
        says="The same around a worker's records.",
    ),
)
