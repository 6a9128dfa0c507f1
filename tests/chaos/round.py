"""One round: load, a fault during the load, and the verdict when all is final."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from harness.client import QUEUES, Document, until
from harness.run import MIN_IN_FLIGHT, TooFewInFlight
from harness.statuses import on_statuses
from harness.webhook_receiver import Receiver
from notifier.domain.notification import FINAL
from tests.chaos.arena import Arena
from tests.chaos.events import begin_reading, broken_events, read_events
from tests.chaos.judge import Row, judge, recovery_s
from tests.chaos.load import Load
from tests.chaos.results import Result
from tests.chaos.trace import Event, Kind, Trace

RATE, LATENCY_MS = 110.0, 700
FINAL_WITHIN_S: Final = 300.0
"""Breakers of providers may be open meanwhile."""
EVIDENCE: Final = 20


class Pace(NamedTuple):
    """Seconds of load before and after a fault."""

    before_s: float = 3.0
    after_s: float = 4.0


PACE: Final = Pace()


@dataclass(slots=True, kw_only=True)
class Round:
    """One round as its fault sees it; `held` was in flight when the fault began.

    A check adds to `broken` the promises that were broken, a sentence each, to `excused` the ids
    that may end otherwise than their fate says, and to `found` what a reader of the result wants to
    know. `shown` has what the mail of an id must contain, if it is not that of the load. Operations
    let `sent_again` wait again.
    """

    arena: Arena
    load: Load
    random: Random
    variant: str
    held: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)
    found: list[str] = field(default_factory=list)
    shown: dict[str, Sequence[str]] = field(default_factory=dict)
    sent_again: set[str] = field(default_factory=set)

    @property
    def trace(self) -> Trace:
        assert self.arena.trace, "the fault needs traced=True"
        return self.arena.trace

    @property
    def receiver(self) -> Receiver:
        assert self.arena.receiver, "the fault needs receives=True"
        return self.arena.receiver

    async def aim(self, *statuses: str, more: int = 0) -> None:
        """Record the ids with these statuses as in flight. Raises TooFewInFlight.

        `more` is added to their count.
        """
        rows = await _rows(self.arena, self.load.accepted)
        self.hit({which for which, row in rows.items() if row.status in statuses}, more=more)

    def hit(self, held: Collection[str], *, more: int = 0) -> None:
        """Record these ids as in flight. Raises TooFewInFlight."""
        if len(held) + more < MIN_IN_FLIGHT:
            raise TooFewInFlight(f"{len(held) + more} in flight, expected {MIN_IN_FLIGHT}")
        self.held |= set(held)

    def require(self, text: str, *, holds: bool) -> None:
        """Note a broken promise."""
        if not holds:
            self.broken.append(text)


Strike = Callable[[Round], Awaitable[float]]
"""Injects a fault, heals it, and returns the time at which recovery begins."""
Check = Callable[[Round], Awaitable[None]]
"""Checks a fault's own promises once all is final. Raises TooFewInFlight like a strike."""


async def nothing_more(_: Round) -> None:
    """Check nothing beyond what the judge checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault. Its `variants` alternate from round to round. The load goes to `queues`.

    `keyed`: the API asks for keys, and the load has one of the deployment. `receives`: the arena
    has a receiver of webhooks. With `upgrades_from` each round begins with a system of that commit.
    """

    strike: Strike
    text: str
    timeout_s: float
    variants: Sequence[str] = ("",)
    workers: Sequence[Sequence[str]] = ((), ())
    linked: bool = False
    on_small_disk: bool = False
    on_cluster: bool = False
    traced: bool = False
    keyed: bool = False
    receives: bool = False
    upgrades_from: str = ""
    queues: Sequence[str] = QUEUES
    check: Check = nothing_more
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.strike.__name__


async def play(arena: Arena, fault: Fault, *, number: int, seed: int, pace: Pace = PACE) -> Result:
    """Play one round. Raises TooFewInFlight, perhaps in a group, if it does not count."""
    random = Random(f"{seed} {fault.name} {number}")
    variant = fault.variants[(number - 1) % len(fault.variants)]
    load = Load(arena.run.client, random, RATE, queues=fault.queues)
    round_ = Round(arena=arena, load=load, random=random, variant=variant)
    await arena.run.client.set_behaviour(latency_ms=LATENCY_MS)
    began = datetime.now(UTC)
    # An earlier commit may write no events.
    cursor = "" if fault.upgrades_from else await begin_reading(arena.run.client)
    if arena.trace:
        arena.trace.start()
    ended_at = await _loaded(round_, fault.strike, pace)
    await arena.supervise()
    rows = await _all_final(round_)
    calls = [
        *await arena.run.client.log(since=began.isoformat().replace("+00:00", "Z")),
        *_accepted(arena.trace.events() if arena.trace else ()),
    ]
    await fault.check(round_)
    if cursor:
        read = await read_events(arena.run.client, cursor)
        round_.broken += broken_events(read, {id_: row.status for id_, row in rows.items()})
    played = Result(
        fault=fault.name, variant=variant, round=number, seed=seed, within_s=fault.timeout_s
    )
    return _result(round_, played, rows, calls, ended_at)


def _result(
    round_: Round,
    result: Result,
    rows: Mapping[str, Row],
    calls: Sequence[Document],
    ended_at: float,
) -> Result:
    """Fill in the verdict."""
    load = round_.load
    verdict = judge(load.accepted, rows, calls, round_.excused)
    recovered_s = recovery_s(
        ended_at,
        held=round_.held - round_.excused,
        asked_at=load.asked_at,
        accepted=load.accepted,
        rows=rows,
    )
    evidence = [
        *(f"{which} {why}" for which, why in verdict.lost.items()),
        *(f"{which} doubled, unmarked" for which in verdict.unmarked),
    ]
    return msgspec.structs.replace(
        result,
        accepted=len(load.accepted),
        unanswered=load.unanswered,
        in_flight=len(round_.held),
        final=verdict.final,
        lost=len(verdict.lost),
        doubled=len(verdict.doubled),
        unmarked=len(verdict.unmarked),
        ambiguous=sum(row.is_ambiguous for row in rows.values()),
        recovery_s=recovered_s,
        broke="; ".join(round_.broken),
        evidence=[*evidence[:EVIDENCE], *round_.found, *round_.arena.ended],
    )


def _accepted(events: Iterable[Event]) -> Sequence[Document]:
    """Return the calls that the traced provider accepted, in the form of the sandbox's log."""
    return [
        {
            "notification_id": key.id,
            "accepted": True,
            "at": datetime.fromtimestamp(event.at, UTC),
        }
        for event in events
        if event.kind is Kind.ACCEPTED
        for key in event.keys
    ]


async def _loaded(round_: Round, strike: Strike, pace: Pace) -> float:
    """Inject the fault under load; the load continues for a while."""
    async with asyncio.TaskGroup() as group:
        submitting = group.create_task(round_.load.run(), name="load")
        await asyncio.sleep(pace.before_s + round_.random.random())
        ended_at = await strike(round_)
        await asyncio.sleep(pace.after_s)
        submitting.cancel()
    return ended_at


async def _all_final(round_: Round) -> Mapping[str, Row]:
    """Return the rows once all are final or the time is over."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(round_.load.keep_company(stop), name="company")
        await _wait_until_final(round_)
        stop.set()
    return await _wait_until_final(round_)


async def _wait_until_final(round_: Round) -> Mapping[str, Row]:
    """Return the rows of what is accepted now, once all are final or the time is over."""
    deadline = time.monotonic() + FINAL_WITHIN_S
    ids = list(round_.load.accepted)

    async def read() -> Mapping[str, Row]:
        return await _rows(round_.arena, ids)

    def is_done(rows: Mapping[str, Row]) -> bool:
        is_late = time.monotonic() > deadline
        return is_late or sum(row.status in FINAL for row in rows.values()) == len(ids)

    found: Mapping[str, Row] = await until(read, is_done, FINAL_WITHIN_S * 2)
    return found


async def _rows(arena: Arena, ids: Collection[str]) -> Mapping[str, Row]:
    sql = on_statuses("""SELECT id, status, at, attempts, is_ambiguous, is_late
              FROM statuses WHERE id = ANY($1)""")
    rows = await arena.run.rows(sql, [UUID(which) for which in list(ids)])
    return {
        str(row["id"]): Row(
            status=row["status"],
            at=row["at"],
            is_ambiguous=row["is_ambiguous"],
            is_late=row["is_late"],
            attempts=row["attempts"],
        )
        for row in rows
    }
