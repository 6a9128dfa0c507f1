"""Faults amid full messages: many rows are claimed ahead, and some have begun when it happens.

Each fault adds a backlog of one queue to the load. Its provider accepts at once and leaves no call
in the sandbox's log, so the trace of the processes is the judge of it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final
from uuid import UUID

import asyncpg

from harness.client import submit_body, until
from harness.judge import count_within, max_in_any_second, percentile
from harness.run import TooFewInFlight
from harness.statuses import on_statuses
from harness.system import Child
from notifier.embedded.process import run_steps_async
from tests.chaos.backlog import BATCH, MANY, backlog_bodies, submit_backlog
from tests.chaos.processes import FROZEN_S, PROCESS_S, RESCUE_S, SETTLES_S
from tests.chaos.round import Fault, Round
from tests.chaos.servers import SERVER_S
from tests.chaos.trace import Event, Key, Kind, keys_of, of_kind
from tests.chaos.traced import FULL, POISON, PROVIDER, Answer

LEAST_MS, FEW_MS, MORE_MS, LONG_MS = 5, 20, 50, 100
"""The times of a call of the backlog: the shorter, the more is claimed ahead."""
MIN_UNBEGUN: Final = 5
"""Rows that must be claimed and not begun when a worker is frozen."""
MIN_OUT: Final = 500
"""Pointers that must be published and not claimed when RabbitMQ is wiped."""
DEATHS: Final = 3
DIES_WITHIN_S: Final = 40.0
UNDER_WAY_S: Final = 0.5
"""A claim that was requested this long before a kill may have been written and not answered."""
UNBEGUN_S: Final = 3.5
"""No claimed row waits longer for its call: it goes back after 2 s, and that takes a moment."""
HANG_S, CUT_S, STOPPED_S = 12.0, 12.0, 6.0
HANG_SETTINGS: Final[Mapping[str, object]] = {f"channels.{FULL.channel}.max_consumers": 24}
"""A backlog takes all consumers that it may have before its hang is noticed (see ADR 17). The other
channels need about 50 of those that are left."""
DOWN_WITHIN_S: Final = 20.0
RATE: Final = 400
CUT_SHARE: Final = 5
"""Each second a throttled rate falls by 0.3 of itself and grows by a twentieth of the full rate: to
a sixth of the full rate. A fifth leaves room for retries that come late."""
CUT_AFTER_S: Final = 9.0
TARGETS_S: Final[Mapping[str, float]] = {"high": 1.0, "medium": 10.0, "low": 60.0}
OTHERS: Final = ("email", "sms")


async def poison_in_a_message(round_: Round) -> float:
    """Let a row kill three workers. Recovery counts from the third death."""
    await submit_backlog(round_, 2, FEW_MS)
    bodies = backlog_bodies(BATCH, FEW_MS)
    bodies[BATCH // 2] = submit_body(str(FULL), recipient=POISON)
    ids = await round_.load.submit(bodies)
    round_.load.accepted[ids[BATCH // 2]] = "poison"
    workers = {child.pid: await round_.arena.run.identity(child) for child in _workers(round_)}
    died_at, held = 0.0, set[str]()
    for _ in range(DEATHS):
        child = await _next_death(round_)
        died_at = time.time()
        round_.arena.run.workers.remove(child)
        await asyncio.sleep(SETTLES_S)
        if child.pid in workers:
            held |= await _sending(round_, workers[child.pid])
        another = await round_.arena.join()
        workers[another.pid] = await round_.arena.run.identity(another)
    round_.hit(held)
    return died_at


async def _poison_is_alone(round_: Round) -> None:
    """Only the poison failed, at its third call, and from the second on it was alone."""
    (poison,) = (which for which, fate in round_.load.accepted.items() if fate == "poison")
    events = round_.trace.events()
    (row,) = await _rows(round_, [poison])
    end = (row["status"], row["reason"])
    round_.require(f"the poison ended as {end}", holds=end == ("failed", "poison"))
    calls = [event for event in _calls(events) if event.keys[0].id == poison]
    killed = {event.pid for event in calls}
    round_.require(f"the poison killed {len(killed)} workers", holds=len(killed) == DEATHS)
    sizes = [
        (key.claim, len(event.keys))
        for event in of_kind(events, Kind.MESSAGE)
        for key in event.keys
        if key.id == poison
    ]
    # The first message need not be that of the first call: a give-back raises the claim, too.
    first_death = min(event.keys[0].claim for event in calls)
    is_alone = all(size == 1 for claim, size in sizes if claim > first_death)
    text = f"the poison's messages by claim and pointers: {sizes}"
    if not any(size >= MANY for claim, size in sizes if claim == first_death):
        raise TooFewInFlight(text)
    round_.require(text, holds=is_alone)
    await _check_tries(round_)


async def worker_killed_while_holding(round_: Round) -> float:
    await submit_backlog(round_, 3, LONG_MS)
    child = round_.arena.run.workers[0]
    worker = await round_.arena.run.identity(child)
    killed_at = round_.arena.run.kill(child)
    await asyncio.sleep(SETTLES_S)
    round_.hit(await _sending(round_, worker))
    events = round_.trace.events()
    unbegun = keys_of(events, Kind.MESSAGE, pid=child.pid) - keys_of(events, Kind.CALLED)
    if len(unbegun) < 2 * MANY:
        raise TooFewInFlight(f"{len(unbegun)} unbegun pointers in the messages of the worker")
    round_.found.append(f"{len(unbegun)} unbegun pointers in its messages")
    await round_.arena.join()
    return killed_at


async def _only_begun_failed(round_: Round) -> None:
    """What fails as ambiguous was called, or its claim was under way when the worker died."""
    events = round_.trace.events()
    called = {key.id for key in keys_of(events, Kind.CALLED)}
    rows = await _rows(round_, round_.load.accepted)
    failed = {str(row["id"]): row for row in rows if row["reason"] == "ambiguous"}
    unbegun = {which: row for which, row in failed.items() if which not in called}
    last_at = {key.id: event.at for event in of_kind(events, Kind.REQUESTED) for key in event.keys}
    dead = {event.pid for event in events} - {child.pid for child in _workers(round_)}
    ended_at = max(event.at for event in _calls(events) if event.pid in dead)
    under_way = {which for which in unbegun if last_at[which] > ended_at - UNDER_WAY_S}
    round_.excused |= (set(failed) & called) | under_way
    round_.found.append(
        f"failed as ambiguous: {len(set(failed) & called)} begun, {len(under_way)} under way"
    )
    for which in sorted(set(unbegun) - under_way):
        round_.broken.append(f"{which} failed as ambiguous and was never begun")
    await _check_tries(round_)


async def worker_frozen_with_claims(round_: Round) -> float:
    """Freeze a worker with claimed rows that have not begun."""
    await submit_backlog(round_, 4, LEAST_MS)
    child = round_.arena.run.workers[0]
    worker = await round_.arena.run.identity(child)
    child.send(signal.SIGSTOP)
    try:
        frozen_at = time.time()
        await asyncio.sleep(SETTLES_S)
        sending = {Key(*each) for each in await round_.arena.run.sending(worker)}
        round_.hit({key.id for key in sending})
        unbegun = sending - keys_of(round_.trace.events(), Kind.CALLED)
        if len(unbegun) < MIN_UNBEGUN:
            raise TooFewInFlight(f"{len(unbegun)} claimed rows had not begun")
        round_.found.append(f"{len(unbegun)} claimed rows had not begun")
        await asyncio.sleep(frozen_at + FROZEN_S - time.time())
    finally:
        child.send(signal.SIGCONT)
    return time.time()


async def _none_begun_on_an_old_claim(round_: Round) -> None:
    """A worker that was frozen begins nothing that it had claimed before."""
    events = round_.trace.events()
    pid = round_.arena.run.workers[0].pid
    own = [event for event in events if event.pid == pid]
    before, after = max(pairwise(own), key=lambda pair: pair[1].at - pair[0].at)
    assert after.at - before.at > FROZEN_S / 2, "the longest pause of the worker is no freeze"
    claimed = keys_of((each for each in own if each.at <= before.at), Kind.REQUESTED)
    late = claimed & keys_of((each for each in own if each.at >= after.at), Kind.CALLED)
    round_.require(f"it began {len(late)} rows on old claims", holds=not late)
    await _check_tries(round_)


async def hang_with_full_messages(round_: Round) -> float:
    """Let the provider of the backlog hang; check meanwhile that no claimed row waits for it."""
    await submit_backlog(round_, 4, FEW_MS)
    await round_.aim("queued", "sending")
    round_.trace.set_answer(Answer.HANG)
    try:
        await _check_unbegun(round_, time.time() + HANG_S)
    finally:
        round_.trace.set_answer(Answer.AS_USUAL)
    return time.time()


async def _others_keep_their_waits(round_: Round) -> None:
    """The other channels' notifications of the time of the hang were called in time."""
    events = round_.trace.events()
    first = dict[str, float]()
    for event in _calls(events):
        first.setdefault(event.keys[0].id, event.at)
    hang_s = _longest_gap(event.at for event in of_kind(events, Kind.ACCEPTED))
    rows = await _rows(round_, round_.load.accepted)
    for priority, target_s in TARGETS_S.items():
        queues = {f"{channel}.{priority}" for channel in OTHERS}
        waits = [
            first[which] - round_.load.asked_at[which]
            for which in (str(row["id"]) for row in rows if row["queue"] in queues)
            if hang_s[0] <= round_.load.asked_at[which] <= hang_s[1]
        ]
        text = f"{priority}: p99 of {len(waits)} waits {percentile(waits, 0.99):.2f} s"
        round_.found.append(text)
        round_.require(text, holds=percentile(waits, 0.99) <= target_s)
    _require_returns(round_)
    await _check_tries(round_)


async def rate_cut_amid_a_message(round_: Round) -> float:
    await submit_backlog(round_, 1, FEW_MS)
    await round_.aim("queued", "sending")
    round_.trace.set_answer(Answer.THROTTLE)
    try:
        await asyncio.sleep(CUT_S)
    finally:
        round_.trace.set_answer(Answer.AS_USUAL)
    return time.time()


async def _rate_is_kept(round_: Round) -> None:
    """No second has more calls than the rate, and the throttled ones become few."""
    events = round_.trace.events()
    at = sorted(event.at for event in _calls(events) if event.where == PROVIDER)
    most = max_in_any_second(at)
    round_.require(f"{most} calls in a second, rate {RATE}", holds=most <= RATE * 1.05)
    throttled = [event.at for event in of_kind(events, Kind.THROTTLED)]
    first, last = min(throttled) + CUT_AFTER_S, max(throttled)
    rate = count_within(at, first, last) / (last - first)
    text = f"{rate:.1f} calls/s after {CUT_AFTER_S:g} s of refusals"
    round_.found += [f"at most {most} calls in a second", text]
    round_.require(text, holds=rate <= RATE / CUT_SHARE)
    await _check_tries(round_)


async def pause_amid_a_message(round_: Round) -> float:
    await submit_backlog(round_, 4, FEW_MS)
    await round_.aim("queued", "sending")
    await round_.load.client.hold("pause", "channel", FULL.channel)
    try:
        await _check_unbegun(round_, time.time() + STOPPED_S)
    finally:
        await round_.load.client.hold("resume", "channel", FULL.channel)
    return time.time()


async def breaker_amid_a_message(round_: Round) -> float:
    """Let every call of the backlog's provider fail until its breaker is open."""
    await submit_backlog(round_, 6, MORE_MS)
    await round_.aim("queued", "sending")
    round_.trace.set_answer(Answer.UNAVAILABLE)
    try:
        await until(lambda: _stops(round_), bool, DOWN_WITHIN_S)
        await asyncio.sleep(UNBEGUN_S)
        await _check_unbegun(round_, time.time())
    finally:
        round_.trace.set_answer(Answer.AS_USUAL)
    return time.time()


async def rabbitmq_wiped_with_many_out(round_: Round) -> float:
    """Wipe RabbitMQ while it has many pointers."""
    await submit_backlog(round_, 3, LONG_MS)
    await round_.aim("queued", "sending")
    events = round_.trace.events()
    out = keys_of(events, Kind.PUBLISHED) - keys_of(events, Kind.REQUESTED)
    if len(out) < MIN_OUT:
        raise TooFewInFlight(f"{len(out)} pointers were out")
    round_.found.append(f"{len(out)} pointers were out")
    await run_steps_async(round_.arena.stack.rabbitmq.wiping())
    return time.time()


async def _stops(round_: Round) -> Sequence[Event]:
    stopped = {f"channel:{FULL.channel}", f"provider:{PROVIDER}"}
    events = of_kind(round_.trace.events(), Kind.CONTROLS)
    return [event for event in events if stopped & set(event.where.split())]


async def _nothing_begins_while_stopped(round_: Round) -> None:
    """Between two reads of a process that both found the provider stopped it calls nothing.

    An open breaker lets one probe begin, after it is half open: the read before it does not say
    that it is open.
    """
    stopped = set(map(id, await _stops(round_)))
    is_stopped, begun = dict[int, bool](), 0
    for event in round_.trace.events():
        if event.kind is Kind.CONTROLS:
            is_stopped[event.pid] = id(event) in stopped
        elif event.kind is Kind.CALLED and event.where == PROVIDER:
            begun += is_stopped.get(event.pid, False)
    round_.require(f"{begun} calls began although the stop was known", holds=not begun)
    _require_returns(round_)
    await _check_tries(round_)


async def _next_death(round_: Round) -> Child:
    async def dead() -> Sequence[Child]:
        return [child for child in _workers(round_) if not child.is_running]

    found: Sequence[Child] = await until(dead, bool, DIES_WITHIN_S)
    return found[0]


async def _sending(round_: Round, worker: UUID) -> set[str]:
    return {which for which, _ in await round_.arena.run.sending(worker)}


async def _check_unbegun(round_: Round, ends_at: float) -> None:
    """Check each second until then, and once, that no claimed row waits long for its call."""
    while True:
        sending = {Key(*each) for each in await round_.arena.run.sending()}
        now, events = time.time(), round_.trace.events()
        old = keys_of((each for each in events if each.at < now - UNBEGUN_S), Kind.CLAIMED)
        unbegun = (sending & old) - keys_of(events, Kind.CALLED)
        round_.require(
            f"{len(unbegun)} rows were claimed over {UNBEGUN_S:g} s ago", holds=not unbegun
        )
        if now >= ends_at:
            return
        await asyncio.sleep(min(1.0, ends_at - now))


def _require_returns(round_: Round) -> None:
    """Raise TooFewInFlight if no claimed row went back: then the fault hit no claimed rows."""
    events = round_.trace.events()
    returned = keys_of(events, Kind.CLAIMED) - keys_of(events, Kind.CALLED)
    if not returned:
        raise TooFewInFlight("no claimed row went back")
    round_.found.append(f"{len(returned)} claimed rows went back")


async def _check_tries(round_: Round) -> None:
    """Check that no notification has more tries than it had calls that may spend one."""
    events = round_.trace.events()
    calls = Counter(event.keys[0].id for event in _calls(events))
    calls.subtract(event.keys[0].id for event in of_kind(events, Kind.THROTTLED))
    rows = await _rows(round_, round_.load.accepted)
    spent = [row["id"] for row in rows if row["tries"] > calls[str(row["id"])]]
    round_.require(f"{len(spent)} spent a try without a call", holds=not spent)


async def _rows(round_: Round, ids: Collection[str]) -> Sequence[asyncpg.Record]:
    sql = on_statuses("SELECT id, queue, status, tries, reason FROM statuses WHERE id = ANY($1)")
    return await round_.arena.run.rows(sql, [UUID(which) for which in ids])


def _workers(round_: Round) -> Sequence[Child]:
    return round_.arena.run.workers


def _calls(events: Iterable[Event]) -> list[Event]:
    return of_kind(events, Kind.CALLED)


def _longest_gap(at: Iterable[float]) -> tuple[float, float]:
    return max(pairwise(sorted(at)), key=lambda pair: pair[1] - pair[0])


MESSAGES: Final = (
    Fault(
        strike=poison_in_a_message,
        check=_poison_is_alone,
        timeout_s=RESCUE_S,  # what has two deaths is sent one by one
        traced=True,
        text="A row that kills its worker whenever its call begins lies in a message of 64. It "
        "fails as `poison` at the third death, and all others are sent. Counted from that death.",
    ),
    Fault(
        strike=worker_killed_while_holding,
        check=_only_begun_failed,
        timeout_s=PROCESS_S,
        traced=True,
        settings={f"channels.{FULL.channel}.ambiguous": "hold"},
        text="A worker of a channel with `ambiguous = hold` is killed (-9) with messages of 64 in "
        "hand. Only what had begun fails as `ambiguous`.",
    ),
    Fault(
        strike=worker_frozen_with_claims,
        check=_none_begun_on_an_old_claim,
        timeout_s=PROCESS_S,
        traced=True,
        text="A worker is stopped (SIGSTOP) for 20 s while rows lie claimed and have not begun. "
        "It begins none of them, and the other worker sends them. Counted from the end.",
    ),
    Fault(
        strike=hang_with_full_messages,
        check=_others_keep_their_waits,
        timeout_s=PROCESS_S,
        traced=True,
        settings=HANG_SETTINGS,
        text=f"A provider hangs for {HANG_S:g} s while messages of 64 are out. A worker has 128 "
        "consumers, of which a queue of its channel may use 24. Other channels keep their promised "
        "waits, and claimed rows go back unspent.",
    ),
    Fault(
        strike=rate_cut_amid_a_message,
        check=_rate_is_kept,
        timeout_s=SERVER_S,
        traced=True,
        settings={f"providers.{PROVIDER}.rate": RATE},
        text=f"A provider with a rate answers 429 for {CUT_S:g} s amid messages of 64, and its "
        "rate falls to a sixth. No second exceeds the rate, and no try is spent.",
    ),
    Fault(
        strike=pause_amid_a_message,
        check=_nothing_begins_while_stopped,
        timeout_s=PROCESS_S,
        traced=True,
        text=f"A channel is paused for {STOPPED_S:g} s amid messages of 64. No call begins once "
        "the pause is known, and claimed rows go back unspent.",
    ),
    Fault(
        strike=breaker_amid_a_message,
        check=_nothing_begins_while_stopped,
        timeout_s=SERVER_S,
        traced=True,
        text="A provider fails every call amid messages of 64 until its breaker is open. No call "
        "begins while it is known to be open, and claimed rows go back unspent.",
    ),
    Fault(
        strike=rabbitmq_wiped_with_many_out,
        timeout_s=SERVER_S,
        traced=True,
        text=f"RabbitMQ is killed and comes back with an empty vhost while at least {MIN_OUT} "
        "pointers are out.",
    ),
)
