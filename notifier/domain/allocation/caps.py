"""The most floating consumers that each queue and channel may have. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil
from typing import Final

from notifier.domain.allocation.demand import ROUNDING_TOLERANCE, QueueDemand
from notifier.domain.allocation.max_min import UNBOUNDED, weighted_max_min
from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey

RATE_HEADROOM: Final = 1.25
SLOT_LEAD_S: Final = 0.04
"""A slot of the provider's schedule is reserved about this long before it is due: waiters are
gathered for 10 ms, and a busy store takes up to 30 ms to reply."""


def floating_caps(
    demands: Sequence[QueueDemand], *, with_rate_slack: bool = False
) -> dict[QueueKey, int]:
    """The most floating consumers per queue, after all rules, rates, hang limits and bulkheads.

    `with_rate_slack` raises the cap of a rate by a quarter: consumers already there may stay up to
    this higher cap, otherwise each small change of the service time would move one.
    """
    caps = {
        demand.queue: demand.floating_of(queue_cap(demand, with_rate_slack=with_rate_slack))
        for demand in demands
    }
    for members in channels(demands):
        if (cap := channel_cap(members)) is not None:
            caps |= weighted_max_min(members, caps, cap)
    return caps


def channels(demands: Sequence[QueueDemand]) -> list[list[QueueDemand]]:
    """The demands grouped by channel."""
    in_order = sorted(demands, key=lambda demand: demand.queue)
    groups = groupby(in_order, key=lambda demand: demand.queue.channel)
    return [list(members) for _, members in groups]


def channel_cap(members: Sequence[QueueDemand]) -> int | None:
    """The most floating consumers on all queues of one channel together, None for no bound."""
    bounds = [
        bound
        for demand in members
        for bound in (demand.channel_hang_limit, demand.bulkhead)
        if bound is not None
    ]
    return max(0, min(bounds) - sum(demand.reserved for demand in members)) if bounds else None


def queue_cap(demand: QueueDemand, *, with_rate_slack: bool = False) -> int:
    """The most consumers one queue may have, reserved included, before its channel's bounds."""
    if demand.is_stopped:
        return 0
    if demand.permission is SendPermission.PROBE:
        return demand.reserved
    by_rate = rate_cap(demand)
    if by_rate is not None and with_rate_slack:
        by_rate += max(1, by_rate // 4)
    bounds = [demand.max_consumers, by_rate, demand.hang_limit]
    return max(1, min((bound for bound in bounds if bound is not None), default=UNBOUNDED))


def rate_cap(demand: QueueDemand) -> int | None:
    """The fewest consumers, reserved included, that use the whole rate; None without a rate.

    It is the sum of the consumers in calls by Little's law plus a quarter, because calls differ in
    length; those whose slots are reserved ahead; one that waits, because a slot without a waiter is
    lost; and the unproductive ones, which use no slots. Simulated for 5 to 500 calls a second over
    1 to 4 workers, this uses at least 98 % of the rate; without the slots reserved ahead and the
    waiting consumer, 60 to 97 %.
    """
    if demand.rate_per_s is None:
        return None
    span_s = RATE_HEADROOM * demand.service_s + SLOT_LEAD_S
    return ceil(demand.rate_per_s * span_s - ROUNDING_TOLERANCE) + 1 + demand.unproductive
