"""Weighted max-min fair division of consumers by progressive filling. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from math import ceil
from typing import Final

from notifier.domain.allocation.demand import QueueDemand, by_urgency
from notifier.domain.notification import QueueKey

FLOOR_DIVISOR: Final = 32
"""A queue with work gets up to 1/32 of the consumers before weights count: no queue starves."""
UNBOUNDED: Final = 1_000_000


def weighted_max_min(
    demands: Sequence[QueueDemand], caps: Mapping[QueueKey, int], consumers: int
) -> dict[QueueKey, int]:
    """Divide floating `consumers` over the queues in four passes, none above its cap.

    The passes fill up to a floor for every queue with work, then to what each needs, then to what
    each could use now, then to the cap. The order of `demands` does not matter.
    """
    ranked = sorted(demands, key=by_urgency)
    floor = ceil(consumers / FLOOR_DIVISOR)
    allocated = {demand.queue: 0 for demand in ranked}
    for targets in (
        [min(floor, demand.floating_of(demand.useful)) for demand in ranked],
        [demand.floating_of(demand.need) for demand in ranked],
        [demand.floating_of(demand.useful) for demand in ranked],
        [UNBOUNDED for _ in ranked],
    ):
        ceilings = [
            min(target, caps[demand.queue]) for target, demand in zip(targets, ranked, strict=True)
        ]
        consumers -= _fill(allocated, ranked, ceilings, consumers)
    return allocated


def _fill(
    allocated: dict[QueueKey, int],
    ranked: Sequence[QueueDemand],
    ceilings: Sequence[int],
    consumers: int,
) -> int:
    """Add consumers one by one to the queue that has the fewest for its urgency.

    Changes `allocated` and returns how many were added. In a tie the first in `ranked` wins.
    """
    urgency = [demand.urgency for demand in ranked]
    counts = [allocated[demand.queue] for demand in ranked]
    heap = [
        (count / urgency[rank], rank) for rank, count in enumerate(counts) if count < ceilings[rank]
    ]
    heapify(heap)
    added = 0
    while heap and added < consumers:
        _, rank = heap[0]
        counts[rank] += 1
        added += 1
        if counts[rank] < ceilings[rank]:
            heapreplace(heap, (counts[rank] / urgency[rank], rank))
        else:
            heappop(heap)
    for demand, count in zip(ranked, counts, strict=True):
        allocated[demand.queue] = count
    return added
