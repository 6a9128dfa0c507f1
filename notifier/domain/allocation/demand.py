"""What the allocator knows about one queue: measurements, rules and limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Final

from notifier.domain.controls import SendPermission
from notifier.domain.notification import Priority, QueueKey

TICK_S: Final = 0.25
MAX_LATENESS: Final = 3.0
"""Cap of the oldest message's wait, in target waits, when it raises a queue's urgency."""
RESERVED_CONSUMERS: Final[Mapping[Priority, int]] = MappingProxyType(
    {Priority.HIGH: 4, Priority.MEDIUM: 1, Priority.LOW: 1}
)
"""Consumers that never leave a queue of this priority.

By Erlang's C formula, with one reserved consumer a fifth of a high queue's messages wait for the
previous call when a call runs a fifth of the time; with four, 2 % wait when one call runs on
average.
"""
MAX_STUCK_REPLACED: Final = 4
ROUNDING_TOLERANCE: Final = 1e-9
"""Subtracted before rounding up, so that 0.1 * 30 becomes 3 and not 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDemand:
    """The measurements, rules and limits of one queue.

    `depth` counts waiting messages: ready in the broker, due in Postgres, and buffered here.
    `rate_per_s` is the part of the provider's rate that this worker may use, None for no limit.
    `has_slow_consumer_rate` is set when a consumer's own rate is slower than its calls.

    Bounds, each counting reserved consumers, which stay even if they alone exceed the bound:
    `max_consumers` and `hang_limit` bound the queue; `channel_hang_limit` and `bulkhead` (the calls
    the provider accepts at once) bound all queues of the channel together. While `permission` is
    PROBE, the queue has no floating consumers. While `is_refused`, the broker refuses it.

    `stuck` consumers are in a call that takes far longer than usual. Up to 4 are replaced; beyond
    that the provider itself hangs, and further consumers would hang too. `stuck_before_recovery`
    consumers are still in a call that began before the provider recovered from a hang; each of
    those is replaced.
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
    permission: SendPermission = SendPermission.ALLOWED
    hang_limit: int | None = None
    channel_hang_limit: int | None = None
    bulkhead: int | None = None
    reserved: int = 1
    stuck: int = 0
    stuck_before_recovery: int = 0
    has_slow_consumer_rate: bool = False
    is_refused: bool = False

    @property
    def is_stopped(self) -> bool:
        """Whether no consumer may take messages: paused, breaker open, or refused by the broker."""
        return self.is_refused or self.permission in {
            SendPermission.PAUSED,
            SendPermission.BREAKER_OPEN,
        }

    @property
    def is_hanging(self) -> bool:
        """Whether the queue has work and its calls or those of its channel are not answered."""
        has_hang = self.hang_limit is not None or self.channel_hang_limit is not None
        return has_hang and bool(self.depth or self.stuck)

    @property
    def accepts_floating(self) -> bool:
        """Whether floating consumers may take messages."""
        return self.permission is SendPermission.ALLOWED and not self.is_refused

    @property
    def unproductive(self) -> int:
        """Consumers that are stuck in a call and have to be replaced."""
        return min(self.stuck, MAX_STUCK_REPLACED) + self.stuck_before_recovery

    @property
    def replacements(self) -> int:
        """Extra consumers for the unproductive ones; 0 while no message waits."""
        return self.unproductive if self.depth else 0

    @property
    def useful(self) -> int:
        """Consumers that could work now: one per running call and one per waiting message."""
        running = ceil(self.arrivals_per_s * self.service_s - ROUNDING_TOLERANCE)
        return running + self.depth + self.replacements

    @property
    def need(self) -> int:
        """Consumers that keep up with arrivals and drain the backlog within the target wait."""
        return self.needed_to_drain(self.target_wait_s)

    @property
    def urgency(self) -> float:
        """The weight, raised up to fourfold as the oldest message exceeds the target wait."""
        lateness = self.oldest_wait_s / self.target_wait_s
        return self.weight * (1 + min(lateness, MAX_LATENESS))

    def needed_to_drain(self, span_s: float) -> int:
        """Consumers, reserved included, that keep up with arrivals and drain the depth in `span_s`.

        Little's law gives the load of the arrivals.
        """
        load = self.arrivals_per_s * self.service_s
        needed = ceil(load + self.depth * self.service_s / span_s - ROUNDING_TOLERANCE)
        return min(needed + self.replacements, self.useful)

    def is_short(self, consumers: int, tick_s: float) -> bool:
        """Whether `consumers`, reserved included, need more than one tick to drain the depth."""
        productive = max(0, consumers - self.replacements)
        return self.accepts_floating and self.depth > productive * tick_s / self.service_s

    def floating_of(self, consumers: int) -> int:
        """How many of `consumers` are floating, that is beyond the reserved ones."""
        return max(0, consumers - self.reserved)


def by_urgency(demand: QueueDemand) -> tuple[float, int, QueueKey]:
    """Sort key: the most urgent first, then the higher priority."""
    return -demand.urgency, demand.queue.priority.rank, demand.queue
