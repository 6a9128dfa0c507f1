"""The allocator: divides one worker's consumers over its queues. Pure.

`entitlement` says what each queue should have, `moves` how to get there from what it has without
restlessness. Everything around them only measures and carries out. A queue has one standing
consumer beside those that are divided here; caps count it, entitlements and moves do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush
from itertools import groupby
from math import ceil
from typing import Final

from notifier.domain.notification import QueueKey

TICK_S: Final = 0.25
RATE_HEADROOM: Final = 1.25
WAIT_FACTOR_LIMIT: Final = 3.0
FLOOR_SHARE: Final = 32
"""Nobody starves: a queue with work gets a 32nd of the consumers before the weights count."""
DRAIN_TICKS: Final = 2
"""A short queue gets what clears its depth in so many ticks: in one, a surge of slow sends moves
twice as many, who then stand there."""
STUCK_MADE_GOOD: Final = 4
PATIENCE_TICKS: Final = 4
RICHER: Final = 1.25
_DUST: Final = 1e-9
"""Taken off before rounding up, so that 0.1 * 30 is 3 and not 4."""


class Limit(StrEnum):
    """What keeps a queue from having more consumers: the answer to "why is it not moving?"."""

    NEED = "need"
    RATE = "rate"
    HANG = "hang"
    BREAKER = "breaker"
    PAUSE = "pause"
    CONSUMERS = "consumers"


@dataclass(frozen=True, slots=True)
class AttemptTiming:
    """How long one attempt kept its consumer, and whether the provider answered at all."""

    seconds: float
    answered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDemand:
    """What was measured of one queue, and its rules.

    `depth` is what waits: ready, due and buffered. `rate_per_s` is what the provider allows this
    worker, None for no limit. `max_consumers` and `held_at_most` (a hang limit) bound the queue,
    `channel_at_most` all queues of its channel together; each counts the standing consumers.
    `stuck` of its consumers are with a call far older than usual and clear nothing: up to four of
    them are made good. Where more hang it is the provider, and more consumers would hang too.
    """

    queue: QueueKey
    depth: int
    arrivals_per_s: float
    service_s: float
    target_wait_s: float
    weight: float
    oldest_wait_s: float = 0.0
    rate_per_s: float | None = None
    max_consumers: int | None = None
    is_paused: bool = False
    is_open: bool = False
    held_at_most: int | None = None
    channel_at_most: int | None = None
    standing: int = 1
    stuck: int = 0

    @property
    def made_good(self) -> int:
        """How many consumers come for those that are stuck, if any message waits."""
        return min(self.stuck, STUCK_MADE_GOOD) if self.depth else 0

    @property
    def useful(self) -> int:
        """How many consumers could be at work now: one a running call, one a waiting message."""
        running = ceil(self.arrivals_per_s * self.service_s - _DUST)
        return running + self.depth + self.made_good

    @property
    def need(self) -> int:
        """Little's law, plus draining the backlog within the promised wait."""
        return self.needed_to_drain_in(self.target_wait_s)

    @property
    def urgency(self) -> float:
        """The weight, growing as the oldest waits beyond what was promised, up to fourfold."""
        late = self.oldest_wait_s / self.target_wait_s
        return self.weight * (1 + min(late, WAIT_FACTOR_LIMIT))

    def needed_to_drain_in(self, span_s: float) -> int:
        """Consumers, standing counted, that keep up with arrivals and clear the depth in time."""
        load = self.arrivals_per_s * self.service_s
        needed = ceil(load + self.depth * self.service_s / span_s - _DUST)
        return min(needed + self.made_good, self.useful)

    def is_short(self, consumers: int, tick_s: float) -> bool:
        """Whether more waits than `consumers`, standing counted, clear in one tick."""
        may_work = not (self.is_paused or self.is_open)
        able = max(0, consumers - self.made_good)
        return may_work and self.depth > able * tick_s / self.service_s

    def seats(self, consumers: int) -> int:
        """How many of so many are not the standing one."""
        return max(0, consumers - self.standing)


@dataclass(frozen=True, slots=True)
class Share:
    """What one queue is entitled to, its standing consumer not counted, and what limits it."""

    consumers: int
    limited_by: Limit


Allocation = Mapping[QueueKey, Share]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one queue has now, its standing consumer not counted.

    `peak_use` is the most that were in use at once in the last 3 s, the standing one counted;
    `short_ticks` for how many ticks in a row it has been short, this one counted.
    """

    consumers: int
    peak_use: int = 0
    short_ticks: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """So many consumers change queues; None is the bench, where nobody works."""

    source: QueueKey | None
    target: QueueKey | None
    count: int


def entitlement(demands: Sequence[QueueDemand], consumers: int) -> Allocation:
    """Divide `consumers` by weighted max-min, in four passes, each up to a higher limit.

    A floor for every queue with work, then what each needs, then what each could use now, then
    the rest to anybody below its cap. The order of `demands` does not matter.
    """
    limits = caps(demands)
    shares = _divide(demands, limits, consumers)
    return {
        demand.queue: Share(
            shares[demand.queue], _limited_by(demand, shares[demand.queue], limits[demand.queue])
        )
        for demand in demands
    }


def caps(demands: Sequence[QueueDemand]) -> dict[QueueKey, int]:
    """The most each queue may get, its standing consumer not counted, after the hang limits."""
    limits = {demand.queue: demand.seats(_own_cap(demand)) for demand in demands}
    in_order = sorted(demands, key=lambda demand: demand.queue)
    for _, members in groupby(in_order, key=lambda demand: demand.queue.channel):
        channel = list(members)
        bounds = [each.channel_at_most for each in channel if each.channel_at_most is not None]
        if bounds:
            standing = sum(each.standing for each in channel)
            limits |= _divide(channel, limits, max(0, min(bounds) - standing))
    return limits


def _own_cap(demand: QueueDemand) -> int:
    if demand.is_paused or demand.is_open:
        return 0
    bounds = [demand.max_consumers, _rate_cap(demand), demand.held_at_most]
    return max(1, min((bound for bound in bounds if bound is not None), default=_UNBOUNDED))


def _rate_cap(demand: QueueDemand) -> int | None:
    if demand.rate_per_s is None:
        return None
    return ceil(RATE_HEADROOM * demand.rate_per_s * demand.service_s - _DUST)


_UNBOUNDED: Final = 1_000_000


def _divide(
    demands: Sequence[QueueDemand], limits: Mapping[QueueKey, int], seats: int
) -> dict[QueueKey, int]:
    ranked = sorted(demands, key=lambda demand: (-demand.urgency, demand.queue))
    floor = ceil(seats / FLOOR_SHARE)
    got = {demand.queue: 0 for demand in ranked}
    for wish in (
        [min(floor, demand.seats(demand.useful)) for demand in ranked],
        [demand.seats(demand.need) for demand in ranked],
        [demand.seats(demand.useful) for demand in ranked],
        [_UNBOUNDED for _ in ranked],
    ):
        tops = [min(top, limits[each.queue]) for top, each in zip(wish, ranked, strict=True)]
        seats -= _fill(got, ranked, tops, seats)
    return got


def _fill(
    got: dict[QueueKey, int], ranked: Sequence[QueueDemand], tops: Sequence[int], seats: int
) -> int:
    """Hand seats out one by one, each to whoever has least for its weight; say how many went.

    Whoever comes first in `ranked` wins a tie.
    """
    line = [
        (got[demand.queue] / demand.urgency, rank)
        for rank, demand in enumerate(ranked)
        if got[demand.queue] < tops[rank]
    ]
    heapify(line)
    given = 0
    while line and given < seats:
        _, rank = heappop(line)
        demand = ranked[rank]
        got[demand.queue] += 1
        given += 1
        if got[demand.queue] < tops[rank]:
            heappush(line, (got[demand.queue] / demand.urgency, rank))
    return given


def _limited_by(demand: QueueDemand, share: int, cap: int) -> Limit:
    if demand.is_paused:
        return Limit.PAUSE
    if demand.is_open:
        return Limit.BREAKER
    if share >= demand.seats(demand.useful):
        return Limit.NEED
    if share < cap:
        return Limit.CONSUMERS
    return _binding_cap(demand, cap)


def _binding_cap(demand: QueueDemand, cap: int) -> Limit:
    by_rate, most = _rate_cap(demand), demand.max_consumers
    if by_rate is not None and demand.seats(by_rate) <= cap:
        return Limit.RATE
    if most is not None and demand.seats(most) <= cap:
        return Limit.CONSUMERS
    return Limit.HANG


def moves(
    demands: Sequence[QueueDemand],
    allocation: Allocation,
    holdings: Mapping[QueueKey, Holding],
    *,
    bench: int = 0,
    tick_s: float = TICK_S,
) -> tuple[Move, ...]:
    """Who goes where now. Surplus stays where it stands: only a short queue receives.

    It receives up to its entitlement and no more than clear its depth in two ticks: first from the
    bench and from queues above their peak of use that are not short without; if all are busy,
    after 4 short ticks, from one above its entitlement and 1.25 times richer by it. What is above
    a cap leaves in any case. `bench` counts those assigned nowhere.
    """
    return _Table(demands, allocation, holdings, bench, tick_s).settle()


class _Table:
    """The holdings while `moves` works on them."""

    def __init__(
        self,
        demands: Sequence[QueueDemand],
        allocation: Allocation,
        holdings: Mapping[QueueKey, Holding],
        bench: int,
        tick_s: float,
    ) -> None:
        self._ranked = sorted(demands, key=lambda demand: (-demand.urgency, demand.queue))
        self._demands = {demand.queue: demand for demand in self._ranked}
        self._due = {queue: share.consumers for queue, share in allocation.items()}
        self._holdings = holdings
        self._held = {demand.queue: holdings[demand.queue].consumers for demand in demands}
        self._bench = bench
        self._tick_s = tick_s
        self._made: dict[tuple[QueueKey | None, QueueKey | None], int] = {}

    def settle(self) -> tuple[Move, ...]:
        self._clear_overfull()
        wants = {each.queue: want for each in self._ranked if (want := self._want(each)) > 0}
        while wants:
            target = min(wants, key=self._wealth)
            source, found = self._donor(target)
            if not found:
                del wants[target]
                continue
            self._move(source, target)
            wants[target] -= 1
            if not wants[target]:
                del wants[target]
        return tuple(Move(*route, count) for route, count in self._made.items())

    def _clear_overfull(self) -> None:
        limits = caps(self._ranked)
        for queue, held in list(self._held.items()):
            demand = self._demands[queue]
            if demand.is_paused or demand.is_open:
                continue  # nobody takes anything there: they may as well wait for other work
            for _ in range(held - limits[queue]):
                self._move(queue, None)

    def _want(self, demand: QueueDemand) -> int:
        held = self._held[demand.queue]
        if not demand.is_short(held + demand.standing, self._tick_s):
            return 0
        enough = demand.seats(demand.needed_to_drain_in(DRAIN_TICKS * self._tick_s))
        return min(self._due[demand.queue], max(enough, held + 1)) - held

    def _donor(self, target: QueueKey) -> tuple[QueueKey | None, bool]:
        if self._bench:
            return None, True
        idle = max(self._held, key=lambda queue: self._spare(queue, target))
        if self._spare(idle, target) > 0:
            return idle, True
        if self._holdings[target].short_ticks < PATIENCE_TICKS:
            return None, False
        rich = max(self._held, key=self._wealth)
        above = self._held[rich] > self._due[rich]
        if above and rich != target and self._wealth(rich) > RICHER * self._wealth(target):
            return rich, True
        return None, False

    def _spare(self, queue: QueueKey, target: QueueKey) -> int:
        """How many a queue can do without: above its peak of use, and not short afterwards."""
        demand, held = self._demands[queue], self._held[queue]
        total = held + demand.standing
        if queue == target or held == 0 or demand.is_short(total - 1, self._tick_s):
            return 0
        return min(held, total - self._holdings[queue].peak_use)

    def _wealth(self, queue: QueueKey) -> float:
        standing = max(1, self._demands[queue].standing)
        return (self._held[queue] + standing) / (self._due[queue] + standing)

    def _move(self, source: QueueKey | None, target: QueueKey | None) -> None:
        for queue, step in ((source, -1), (target, 1)):
            if queue is None:
                self._bench += step
            else:
                self._held[queue] += step
        self._made[source, target] = self._made.get((source, target), 0) + 1
