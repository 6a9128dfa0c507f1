"""How many pointers of one queue the broker may hold: pure arithmetic, one object a queue.

The broker stays small whatever the backlog: order among what waits is kept in Postgres.
"""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

DRAIN_S: Final = 1.0
MIN_WINDOW: Final = 32
"""A queue that nobody drained yet still gets so many; they are pointers of 100 bytes."""
MAX_WINDOW: Final = 20_000
UNKNOWN_AFTER_S: Final = 5.0
MESSAGE_SPAN_S: Final = 0.03
MAX_POINTERS_PER_MESSAGE: Final = 64
RETRY_SHARE: Final = 4
"""While first attempts wait, one in four taken is a retry."""


class QueuePace(NamedTuple):
    """What the deployment does with one queue: consumers on it, attempts finished per second."""

    consumers: int
    drain_per_s: float


def max_batch(pace: QueuePace) -> int:
    """How many pointers may share a message: what the deployment is done with in 30 ms.

    A message goes to one worker as a whole; so little holds none of the others up.
    """
    return max(1, min(int(pace.drain_per_s * MESSAGE_SPAN_S), MAX_POINTERS_PER_MESSAGE))


class Window:
    """One relay's view of one queue.

    `ready` is the broker's last word plus what was published since; a word older than 5 s counts
    as 0, for a second. The window is a second of the queue's drain, at least twice its consumers,
    and doubles each time it is found empty while rows are due.
    """

    def __init__(self) -> None:
        self.ready = 0
        self._word = 0
        self.polled_at = 0.0
        self.is_backlogged = False
        self._boost = 1
        self._retry_credit = 0.0
        self._firsts_wait = False
        self._retries_wait = False

    def limit(self, pace: QueuePace) -> int:
        """How many pointers may be ready in the broker."""
        plain = max(ceil(pace.drain_per_s * DRAIN_S), 2 * pace.consumers, MIN_WINDOW)
        return min(plain * self._boost, MAX_WINDOW)

    def missing(self, limit: int, relays: int) -> int:
        """How many more this one of `relays` relays adds to its part of what the broker lacked."""
        part = ceil(max(0, limit - self._word) / max(1, relays))
        return max(0, part - max(0, self.ready - self._word))

    def polled(self, ready: int | None, now: float, limit: int) -> None:
        """The broker's word on the queue; None if it gave none."""
        if ready is None:
            if now - self.polled_at > UNKNOWN_AFTER_S:
                self.ready = self._word = 0
                self.polled_at = now - UNKNOWN_AFTER_S + DRAIN_S  # no more than a window a second
            return
        self.ready = self._word = ready
        self.polled_at = now
        if ready == 0 and self.is_backlogged:
            self._boost = min(self._boost * 2, MAX_WINDOW)
        elif ready > limit // 2 or not self.is_backlogged:
            self._boost = max(1, self._boost // 2)

    def lost(self, count: int) -> None:
        """So many were not confirmed. The broker's word falls with it, or room would be gone."""
        self.ready = max(0, self.ready - count)
        self._word = min(self._word, self.ready)

    def split(self, most: int) -> tuple[int, int]:
        """Of `most` rows to take, how many first attempts and how many retries."""
        if not self._firsts_wait:
            return most, most
        retries = min(most, int(self._retry_credit + most / RETRY_SHARE))
        if not self._retries_wait:
            retries = min(retries, 1)  # enough to notice that some wait again
        return most - retries, retries

    def taken(
        self, *, asked: tuple[int, int], firsts: int, retries: int, is_cut: bool = False
    ) -> None:
        """What a pass brought of what was asked for.

        `is_cut` says that it was full before it was through: what is missing may still wait.
        """
        self.ready += firsts + retries
        if is_cut and (firsts, retries) != asked:
            self.is_backlogged = True
            self._firsts_wait = self._firsts_wait or firsts >= asked[0] > 0
            return
        self._firsts_wait = firsts >= asked[0] > 0 or (asked[0] == 0 and self._firsts_wait)
        self._retries_wait = retries >= asked[1] > 0 or (asked[1] == 0 and self._retries_wait)
        self.is_backlogged = self._firsts_wait or self._retries_wait
        earned = firsts / (RETRY_SHARE - 1)
        self._retry_credit = min(max(0.0, self._retry_credit + earned - retries), 1.0)
        if not self._retries_wait and asked[1]:
            self._retry_credit = 0.0
