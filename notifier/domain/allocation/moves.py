"""Which consumers move from which queue to which, without oscillation. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from notifier.domain.allocation.caps import channel_cap, channels, floating_caps
from notifier.domain.allocation.demand import TICK_S, QueueDemand, by_urgency
from notifier.domain.allocation.entitlement import Allocation
from notifier.domain.notification import QueueKey

DRAIN_TICKS: Final = 2
"""A short queue receives the consumers that drain its depth in this many ticks. With one tick, a
burst of slow sends attracts twice the consumers it needs, and they stay."""
PREEMPTION_TICKS: Final = 4
"""A queue has to be short for this many ticks before it takes a busy consumer from another."""
PREEMPTION_RATIO: Final = 1.25
"""A busy consumer moves only from a queue whose coverage is higher by this factor."""


class Unassigned(StrEnum):
    """The place of floating consumers that work for no queue."""

    UNASSIGNED = "unassigned"


UNASSIGNED: Final = Unassigned.UNASSIGNED
Place = QueueKey | Unassigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one queue has now.

    `consumers` counts floating ones. `peak_use` is the highest number in use at once in the last
    3 s, reserved included. `short_ticks` is for how many ticks in a row, this one included, the
    queue has been short.
    """

    consumers: int
    peak_use: int = 0
    short_ticks: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """`count` floating consumers go from one place to another."""

    source: Place
    target: Place
    count: int


def plan_moves(
    demands: Sequence[QueueDemand],
    allocation: Allocation,
    assignments: Mapping[QueueKey, Assignment],
    *,
    unassigned: int = 0,
    tick_s: float = TICK_S,
) -> tuple[Move, ...]:
    """The moves of this tick. Only a queue that is short receives; any other surplus stays.

    A short queue receives the consumers that drain its depth in two ticks, up to its entitlement.
    The consumers come first from the unassigned and from queues that have more than their peak of
    use and are not short without them. If all are busy, they come, after four short ticks, from a
    queue above its entitlement whose coverage is 1.25 times higher.

    Consumers above a cap leave in any case. Consumers slightly above the cap of a rate leave first
    when another queue is short. A stuck consumer may be unassigned but is never given to a queue.
    `unassigned` counts the unassigned consumers that are not in a call.
    """
    return _Rebalancing(demands, allocation, assignments, unassigned, tick_s).plan()


class _Rebalancing:
    """The number of consumers per queue while `plan_moves` changes it."""

    def __init__(
        self,
        demands: Sequence[QueueDemand],
        allocation: Allocation,
        assignments: Mapping[QueueKey, Assignment],
        unassigned: int,
        tick_s: float,
    ) -> None:
        self._ranked = sorted(demands, key=by_urgency)
        self._demands = {demand.queue: demand for demand in self._ranked}
        self._caps = floating_caps(self._ranked)
        self._entitled = {queue: share.consumers for queue, share in allocation.items()}
        self._assignments = assignments
        self._held = {demand.queue: assignments[demand.queue].consumers for demand in demands}
        self._unassigned = unassigned
        self._tick_s = tick_s
        self._moves: dict[tuple[Place, Place], int] = {}

    def plan(self) -> tuple[Move, ...]:
        self._remove_above_caps()
        deficits = {
            demand.queue: deficit
            for demand in self._ranked
            if (deficit := self._deficit(demand)) > 0
        }
        while deficits:
            target = min(deficits, key=self._coverage)
            source = self._find_source(target)
            if source is None:
                del deficits[target]
                continue
            self._move_one(source, target)
            deficits[target] -= 1
            if not deficits[target]:
                del deficits[target]
        return tuple(Move(*route, count) for route, count in self._moves.items())

    def _remove_above_caps(self) -> None:
        relaxed_caps = floating_caps(self._ranked, with_rate_slack=True)
        for members in channels(self._ranked):
            bound = channel_cap(members)
            # A stopped queue takes no messages: its consumers may as well wait there.
            working = [demand.queue for demand in members if not demand.is_stopped]
            is_over = bound is not None and sum(self._held[queue] for queue in working) > bound
            for queue in working:
                cap = self._caps[queue]
                if self._held[queue] > (cap if is_over else max(cap, relaxed_caps[queue])):
                    self._unassign(self._demands[queue], self._held[queue] - cap)

    def _unassign(self, demand: QueueDemand, count: int) -> None:
        # Stuck consumers become available only when their calls end.
        stuck = demand.stuck + demand.stuck_before_recovery
        available = max(0, self._held[demand.queue] - stuck)
        self._held[demand.queue] -= count
        self._unassigned += min(count, available)
        self._moves[demand.queue, UNASSIGNED] = count

    def _deficit(self, demand: QueueDemand) -> int:
        """How many consumers the queue should receive now."""
        held = self._held[demand.queue]
        if not demand.is_short(held + demand.reserved, self._tick_s):
            return 0
        enough = demand.floating_of(demand.needed_to_drain(DRAIN_TICKS * self._tick_s))
        return min(self._entitled[demand.queue], max(enough, held + 1)) - held

    def _find_source(self, target: QueueKey) -> Place | None:
        """The place that gives the next consumer to `target`, None if there is none."""
        if self._unassigned:
            return UNASSIGNED
        richest = max(self._held, key=lambda queue: self._surplus(queue, target))
        if self._surplus(richest, target) > 0:
            return richest
        if self._assignments[target].short_ticks < PREEMPTION_TICKS:
            return None
        return self._find_preemptible(target)

    def _may_give(self, queue: QueueKey, target: QueueKey) -> bool:
        """Whether the queue may give a consumer, free or busy, to `target` at all.

        A rule against giving belongs here: both ways to find a source call this.
        """
        return queue != target and self._held[queue] > 0

    def _surplus(self, queue: QueueKey, target: QueueKey) -> int:
        """How many consumers the queue can give: above its peak of use, and not short afterwards.

        Those above the cap of a rate count in any case: waiting for a slot looks like use.
        """
        if not self._may_give(queue, target):
            return 0
        demand, held = self._demands[queue], self._held[queue]
        total = held + demand.reserved
        above_cap = held - self._caps[queue] if demand.accepts_floating else 0
        if demand.is_short(total - 1, self._tick_s):
            return above_cap
        return max(above_cap, min(held, total - self._assignments[queue].peak_use))

    def _find_preemptible(self, target: QueueKey) -> QueueKey | None:
        """The queue with the highest coverage that may lose a busy consumer to `target`."""
        candidates = [
            queue
            for queue in self._held
            if self._may_give(queue, target) and self._is_above_entitlement(queue)
        ]
        source = max(candidates, key=self._coverage, default=None)
        if source is None or self._coverage(source) <= PREEMPTION_RATIO * self._coverage(target):
            return None
        return source

    def _is_above_entitlement(self, queue: QueueKey) -> bool:
        """Whether the queue has more than its entitlement, and not only stuck consumers."""
        demand, held = self._demands[queue], self._held[queue]
        stuck = demand.stuck + demand.stuck_before_recovery
        return held > self._entitled[queue] and held + demand.reserved > stuck

    def _coverage(self, queue: QueueKey) -> float:
        """Consumers held divided by consumers entitled to, reserved included on both sides."""
        reserved = max(1, self._demands[queue].reserved)
        return (self._held[queue] + reserved) / (self._entitled[queue] + reserved)

    def _move_one(self, source: Place, target: QueueKey) -> None:
        if source is UNASSIGNED:
            self._unassigned -= 1
        else:
            self._held[source] -= 1
        self._held[target] += 1
        self._moves[source, target] = self._moves.get((source, target), 0) + 1
