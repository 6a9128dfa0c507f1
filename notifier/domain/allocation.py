"""The allocator: divides one worker's consumers over its queues. Pure.

`entitlement` says what each queue should have, `moves` how to get there from what it has without
restlessness. Everything around them only measures and carries out. A queue has standing consumers
beside those that are divided here; caps count them, entitlements and moves do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush
from itertools import groupby
from math import ceil
from types import MappingProxyType
from typing import Final

import msgspec

from notifier.domain.notification import Priority, QueueKey

TICK_S: Final = 0.25
RATE_HEADROOM: Final = 1.25
RATE_AHEAD_S: Final = 0.02
"""For so long a slot of the provider's schedule is reserved before it comes: waiters are gathered
for 10 ms, and the store takes a few to answer."""
WAIT_FACTOR_LIMIT: Final = 3.0
FLOOR_SHARE: Final = 32
"""Nobody starves: a queue with work gets a 32nd of the consumers before the weights count."""
DRAIN_TICKS: Final = 2
"""A short queue gets what clears its depth in so many ticks: in one, a surge of slow sends moves
twice as many, who then stand there."""
RESERVED_CONSUMERS: Final[Mapping[Priority, int]] = MappingProxyType(
    {Priority.HIGH: 4, Priority.MEDIUM: 1, Priority.LOW: 1}
)
"""How many consumers never leave a queue of this priority. With one, by Erlang's C formula, a fifth
of a high queue's messages waits for the one before when a call runs a fifth of the time; with four
2 % do when on average a whole one runs."""
MAX_STUCK_REPLACED: Final = 4
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
    CONNECTIONS = "connections"
    CONSUMERS = "consumers"


class AttemptTiming(msgspec.Struct, frozen=True):
    """How long one attempt kept its consumer, and whether the provider answered at all."""

    seconds: float
    answered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDemand:
    """What was measured of one queue, and its rules.

    `depth` is what waits: ready, due and buffered. `rate_per_s` is what the provider allows this
    worker, None for no limit; `is_paced` says that each consumer's own rate is slower than its
    calls. `max_consumers` and `held_at_most` (a hang limit) bound the queue, `channel_at_most` (a
    hang limit) and `bulkhead` (what the provider takes at once) all queues of its channel together;
    each counts the standing consumers, who stay also where there are more of them than the bound.
    A queue that `is_probed` has one standing consumer alone. `stuck` of its consumers are with a
    call far older than usual and clear nothing: up to four of them are made good. Where more hang
    it is the provider, and more consumers would hang too. The `lost` are still with a call from
    before the provider answered again: all of those are made good.
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
    is_probed: bool = False
    held_at_most: int | None = None
    channel_at_most: int | None = None
    bulkhead: int | None = None
    standing: int = 1
    stuck: int = 0
    lost: int = 0
    is_paced: bool = False

    @property
    def may_work(self) -> bool:
        """Whether consumers that move may take anything here."""
        return not (self.is_paused or self.is_open or self.is_probed)

    @property
    def out_of_use(self) -> int:
        """How many consumers clear nothing and are to be made good."""
        return min(self.stuck, MAX_STUCK_REPLACED) + self.lost

    @property
    def made_good(self) -> int:
        """How many consumers come for those out of use, if any message waits."""
        return self.out_of_use if self.depth else 0

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
        able = max(0, consumers - self.made_good)
        return self.may_work and self.depth > able * tick_s / self.service_s

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
    return _caps(demands, _rate_cap)


_RateCap = Callable[["QueueDemand"], "int | None"]


def _caps(demands: Sequence[QueueDemand], rate_cap: _RateCap) -> dict[QueueKey, int]:
    limits = {demand.queue: demand.seats(_own_cap(demand, rate_cap)) for demand in demands}
    for channel in _channels(demands):
        if (seats := _channel_seats(channel)) is not None:
            limits |= _divide(channel, limits, seats)
    return limits


def _channels(demands: Sequence[QueueDemand]) -> list[list[QueueDemand]]:
    in_order = sorted(demands, key=lambda demand: demand.queue)
    return [list(group) for _, group in groupby(in_order, key=lambda each: each.queue.channel)]


def _channel_seats(channel: Sequence[QueueDemand]) -> int | None:
    """How many that move may be on all its queues together, None for any number."""
    both = [bound for each in channel for bound in (each.channel_at_most, each.bulkhead)]
    bounds = [bound for bound in both if bound is not None]
    return max(0, min(bounds) - sum(each.standing for each in channel)) if bounds else None


def _own_cap(demand: QueueDemand, rate_cap: _RateCap) -> int:
    if demand.is_paused or demand.is_open:
        return 0
    if demand.is_probed:
        return demand.standing
    bounds = [demand.max_consumers, rate_cap(demand), demand.held_at_most]
    return max(1, min((bound for bound in bounds if bound is not None), default=_UNBOUNDED))


def _rate_cap(demand: QueueDemand) -> int | None:
    """As many as use the whole rate, the standing one counted.

    Those in calls by Little's law and a quarter more, because calls are not equally long; those
    whose slots are reserved; and one more who waits, because a slot that finds nobody is lost.
    Simulated for 5 to 500 calls a second over 1 to 4 workers: 98 % of the rate and more is used,
    without the last two 60 to 97 %. A consumer that is stuck uses none of the rate.
    """
    if demand.rate_per_s is None:
        return None
    span_s = RATE_HEADROOM * demand.service_s + RATE_AHEAD_S
    return ceil(demand.rate_per_s * span_s - _DUST) + 1 + demand.out_of_use


def _rate_cap_to_stay(demand: QueueDemand) -> int | None:
    """Up to here those who are there may stay, else each small change of S would move one."""
    cap = _rate_cap(demand)
    return None if cap is None else cap + max(1, cap // 4)


_UNBOUNDED: Final = 1_000_000


def _divide(
    demands: Sequence[QueueDemand], limits: Mapping[QueueKey, int], seats: int
) -> dict[QueueKey, int]:
    ranked = sorted(demands, key=_most_urgent_first)
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


def _most_urgent_first(demand: QueueDemand) -> tuple[float, int, QueueKey]:
    return -demand.urgency, demand.queue.priority.rank, demand.queue


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
    if demand.is_open or demand.is_probed:
        return Limit.BREAKER
    if share >= demand.seats(demand.useful):
        return Limit.NEED
    limit = Limit.CONSUMERS if share < cap else _binding_cap(demand, cap)
    return Limit.RATE if limit is Limit.CONSUMERS and demand.is_paced else limit


def _binding_cap(demand: QueueDemand, cap: int) -> Limit:
    """A hang comes first: a higher rate would not help what hangs."""
    if demand.held_at_most is not None and demand.seats(demand.held_at_most) <= cap:
        return Limit.HANG
    if cap < demand.seats(_own_cap(demand, _rate_cap)):
        return Limit.HANG if _is_hang_the_lower(demand) else Limit.CONNECTIONS
    by_rate = _rate_cap(demand)
    return Limit.RATE if by_rate is not None and demand.seats(by_rate) <= cap else Limit.CONSUMERS


def _is_hang_the_lower(demand: QueueDemand) -> bool:
    """Whether the channel is bound by a hang limit, and not by its bulkhead."""
    hang, bulkhead = demand.channel_at_most, demand.bulkhead
    return hang is not None and (bulkhead is None or hang <= bulkhead)


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
    a cap leaves in any case; what is a little above that of a rate goes first when another queue
    is short. Whoever is stuck helps nobody: it goes where it may stay, and is given to none.
    `bench` counts those assigned nowhere who are free.
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
        self._ranked = sorted(demands, key=_most_urgent_first)
        self._demands = {demand.queue: demand for demand in self._ranked}
        self._limits = caps(self._ranked)
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
        stay = _caps(self._ranked, _rate_cap_to_stay)
        for channel in _channels(self._ranked):
            seats = _channel_seats(channel)
            # Nobody takes anything where it is paused or open: they may as well wait for other work
            working = [each.queue for each in channel if not (each.is_paused or each.is_open)]
            is_over = seats is not None and sum(self._held[queue] for queue in working) > seats
            for queue in working:
                limit = self._limits[queue]
                if self._held[queue] > (limit if is_over else max(limit, stay[queue])):
                    self._dismiss(self._demands[queue], self._held[queue] - limit)

    def _dismiss(self, demand: QueueDemand, count: int) -> None:
        """To the bench; those who are stuck come there when their calls end."""
        free = max(0, self._held[demand.queue] - demand.stuck - demand.lost)
        self._held[demand.queue] -= count
        self._bench += min(count, free)
        self._made[demand.queue, None] = count

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
        rich = max(filter(self._may_give, self._held), key=self._wealth, default=target)
        if self._wealth(rich) > RICHER * self._wealth(target):
            return rich, True
        return None, False

    def _may_give(self, queue: QueueKey) -> bool:
        """Whether it has more than it is due, and not only such as are stuck."""
        demand, held = self._demands[queue], self._held[queue]
        return held > self._due[queue] and held + demand.standing > demand.stuck + demand.lost

    def _spare(self, queue: QueueKey, target: QueueKey) -> int:
        """How many a queue can do without: above its peak of use, and not short afterwards.

        Above the cap of its rate in any case: there they wait for slots, which looks like use.
        """
        demand, held = self._demands[queue], self._held[queue]
        total = held + demand.standing
        if queue == target or held == 0:
            return 0
        over = held - self._limits[queue] if demand.may_work else 0
        if demand.is_short(total - 1, self._tick_s):
            return over
        return max(over, min(held, total - self._holdings[queue].peak_use))

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
