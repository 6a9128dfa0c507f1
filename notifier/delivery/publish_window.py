"""How many pointers of one queue the broker may hold. Pure.

The broker holds little however long the backlog is: Postgres keeps the order of what waits.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

from notifier.delivery.retry_share import RetryShare
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from notifier.delivery.class_cursor import ClassRead
    from notifier.domain.due import DueClass

DRAIN_S: Final = 1.0
MIN_WINDOW: Final = 32
"""The smallest window, also of a queue that was never drained; a pointer is about 100 bytes."""
MAX_WINDOW: Final = 20_000
UNKNOWN_AFTER_S: Final = 5.0
MESSAGE_SPAN_S: Final = 0.03
"""How long the consumers of one worker take to begin the calls of one message."""


class QueueThroughput(NamedTuple):
    """One queue's consumers and finished attempts per second, in the whole deployment.

    `worker_capacity_per_s` is how many provider calls per second the consumers of one worker can
    begin; 0 if unknown.
    """

    consumers: int
    drain_per_s: float
    worker_capacity_per_s: float = 0.0


def max_batch(throughput: QueueThroughput) -> int:
    """Return how many pointers may share a message: the calls that one worker begins in 30 ms.

    A message goes to one worker as a whole. A larger one would let its last pointers wait for
    consumers there while other workers are idle.
    """
    pointers = int(throughput.worker_capacity_per_s * MESSAGE_SPAN_S)
    return max(1, min(pointers, MAX_POINTERS_PER_MESSAGE))


def worker_capacity(capacities: Iterable[float]) -> float:
    """Return the capacity by which messages to workers of these capacities are sized.

    Workers with a capacity of 0 get no messages and are left out; 0 if none is left. The harmonic
    mean, because the broker gives the workers messages in turn: then the average time that a
    message takes is `MESSAGE_SPAN_S`, and a worker with few consumers counts more than one with
    many.
    """
    positive = [capacity for capacity in capacities if capacity > 0]
    return len(positive) / sum(1 / capacity for capacity in positive) if positive else 0.0


class PublishWindow:
    """One process's window of one queue.

    `ready` is the depth that the broker last reported plus what was published here since.
    After 5 s without a report the queue counts as empty, once a second. The window is one second of
    the queue's drain, at least twice its consumers, and doubles whenever the queue is found empty
    while rows are due.
    """

    def __init__(self) -> None:
        self.ready = 0
        self._reported = 0
        self.polled_at = 0.0
        self.is_backlogged = False
        self._multiplier = 1
        self._retries = RetryShare()

    def limit(self, throughput: QueueThroughput) -> int:
        """Return how many pointers may be ready in the broker."""
        base = max(ceil(throughput.drain_per_s * DRAIN_S), 2 * throughput.consumers, MIN_WINDOW)
        return min(base * self._multiplier, MAX_WINDOW)

    def is_stale(self, now: float, max_age_s: float) -> bool:
        """Whether the depth or the window may change, by a report, and the last one is this old."""
        may_change = self.ready > 0 or self.is_backlogged or self._multiplier > 1
        return may_change and now - self.polled_at >= max_age_s

    def room(self, limit: int, *, publishers: int = 1) -> int:
        """Return how many pointers may be added: a share of the room at the last report.

        `publishers` is the number of processes that share the room.
        """
        share = ceil(max(0, limit - self._reported) / max(1, publishers))
        return max(0, share - max(0, self.ready - self._reported))

    def record_poll(self, ready: int | None, now: float, limit: int) -> None:
        """Record the depth that the broker reported; None if it reported none."""
        if ready is None:
            if now - self.polled_at > UNKNOWN_AFTER_S:
                self.ready = self._reported = 0
                self.polled_at = now - UNKNOWN_AFTER_S + DRAIN_S  # at most one window a second
            return
        self.ready = self._reported = ready
        self.polled_at = now
        if ready == 0 and self.is_backlogged:
            self._multiplier = min(self._multiplier * 2, MAX_WINDOW)
        elif ready > limit // 2 or not self.is_backlogged:
            self._multiplier = max(1, self._multiplier // 2)

    def record_published(self, count: int) -> None:
        """Record that `count` pointers are being published."""
        self.ready += count

    def record_unconfirmed(self, count: int) -> None:
        """Record that `count` published pointers were not confirmed."""
        self.ready = max(0, self.ready - count)
        # The reported depth may include them; unless it shrinks too, their room stays occupied.
        self._reported = min(self._reported, self.ready)

    def split(self, limit: int) -> tuple[int, int]:
        """Divide a pass of `limit` rows; returns the limits of first attempts and of retries."""
        return self._retries.split(limit)

    def record_pass(
        self, classes: Mapping[DueClass, ClassRead], *, do_others_wait: bool = False
    ) -> None:
        """Record one pass over this queue, with the classes that it asked for of turn 0.

        `do_others_wait`: rows of other turns wait.
        """
        self.is_backlogged = self._retries.record(classes) or do_others_wait
