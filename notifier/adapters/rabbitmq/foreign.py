"""Messages of another deployment that uses the same vhost by mistake.

They are counted and put back. A consumer with room gets a returned message back at once, so it ends
for about a second meanwhile (subscription.py). After some returns nobody seems to want a message:
it is acked, and its deployment finds it lost and publishes it again if its row still waits.
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
