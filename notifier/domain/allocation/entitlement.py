"""How many floating consumers each queue is entitled to, and what limits it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from notifier.domain.allocation.caps import floating_caps, queue_cap, rate_cap
from notifier.domain.allocation.demand import QueueDemand
from notifier.domain.allocation.max_min import weighted_max_min
from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey


class Limit(StrEnum):
    """What keeps a queue from having more consumers."""

    NEED = "need"
    RATE = "rate"
    HANG = "hang"
    BREAKER = "breaker"
    PAUSE = "pause"
    CONNECTIONS = "connections"
    CONSUMERS = "consumers"
    BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The floating consumers one queue should have, and what limits it."""

    consumers: int
    limited_by: Limit


Allocation = Mapping[QueueKey, Entitlement]


def allocate(demands: Sequence[QueueDemand], consumers: int) -> Allocation:
    """Divide floating `consumers` over the queues by weighted max-min fairness, within the caps."""
    caps = floating_caps(demands)
    allocated = weighted_max_min(demands, caps, consumers)
    return {
        demand.queue: Entitlement(
            allocated[demand.queue],
            _limited_by(demand, allocated[demand.queue], caps[demand.queue]),
        )
        for demand in demands
    }


def _limited_by(demand: QueueDemand, consumers: int, cap: int) -> Limit:
    if demand.permission is SendPermission.PAUSED:
        return Limit.PAUSE
    if demand.permission is not SendPermission.ALLOWED:
        return Limit.BREAKER
    if demand.is_refused:
        return Limit.BROKER
    if demand.is_hanging:  # a higher rate or more consumers would not help
        return Limit.HANG
    if consumers >= demand.floating_of(demand.useful):
        return Limit.NEED
    limit = Limit.CONSUMERS if consumers < cap else _binding_cap(demand, cap)
    return Limit.RATE if limit is Limit.CONSUMERS and demand.has_slow_consumer_rate else limit


def _binding_cap(demand: QueueDemand, cap: int) -> Limit:
    if cap < demand.floating_of(queue_cap(demand)):
        return Limit.CONNECTIONS
    by_rate = rate_cap(demand)
    if by_rate is not None and demand.floating_of(by_rate) <= cap:
        return Limit.RATE
    return Limit.CONSUMERS
