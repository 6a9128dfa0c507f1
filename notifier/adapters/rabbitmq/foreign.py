"""Messages of another deployment that uses the same vhost by mistake.

They are counted and put back. A consumer with room gets a returned message back at once, so it ends
for about a second meanwhile (subscription.py). After some returns, or minutes, nobody seems to want
a message: it is acked, and its deployment finds it lost and publishes it again if its row waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Final

from structlog import get_logger

from notifier.domain.notification import QueueKey
from notifier.lifecycle import Clock
from notifier.ports.observer import BrokerObserver

MIN_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 1.2
MAX_RETURNS: Final = 20
MAX_AGE_S: Final = 300.0
_COUNTS: Final = ("x-delivery-count", "x-acquired-count")
"""RabbitMQ's headers that count deliveries. From 4.0 on the first leaves returned messages out."""
WINDOW_S: Final = 60.0


class ForeignPointers:
    """Counts the pointers of other deployments; logs at most one line a minute for each queue."""

    def __init__(
        self, observer: BrokerObserver, random: Random, clock: Clock = time.monotonic
    ) -> None:
        self._observer = observer
        self._random = random
        self._clock = clock
        self._received: dict[QueueKey, deque[tuple[float, int]]] = {}
        self._logged_at: dict[QueueKey, float] = {}

    def record(self, queue: QueueKey, pointers: int, deployment: str) -> None:
        """Record a message of another deployment."""
        now = self._clock()
        received = self._received.setdefault(queue, deque(maxlen=100))
        if received and now - received[-1][0] < 1:
            at, count = received.pop()
            received.append((at, count + pointers))
        else:
            received.append((now, pointers))
        self._observer.foreign_pointers_received(pointers)
        if now - self._logged_at.get(queue, -WINDOW_S) >= WINDOW_S:
            self._logged_at[queue] = now
            get_logger(__name__).error(
                "foreign_message_received",
                queue=str(queue),
                deployment=deployment,
                advice="another deployment uses this vhost: give each deployment its own",
            )

    def is_unwanted(self, headers: Mapping[str, object], published_at: float) -> bool:
        """Whether a message came back so often, or is so old, that nobody seems to want it.

        `published_at` is in seconds since the epoch, by the clock of its deployment's database.
        """
        # A stranger may have written these headers.
        counts = [value for name in _COUNTS if isinstance(value := headers.get(name), int)]
        return max(counts, default=0) >= MAX_RETURNS or time.time() - published_at > MAX_AGE_S

    def pause_s(self) -> float:
        """How long to wait before a rest and at its end: random, so that nobody keeps step."""
        return self._random.uniform(MIN_PAUSE_S, MAX_PAUSE_S)

    def in_last_minute(self) -> Mapping[QueueKey, int]:
        """How many pointers of other deployments each queue received in the last minute."""
        since = self._clock() - WINDOW_S
        counts = {
            queue: sum(count for at, count in received if at >= since)
            for queue, received in self._received.items()
        }
        return {queue: count for queue, count in counts.items() if count}
