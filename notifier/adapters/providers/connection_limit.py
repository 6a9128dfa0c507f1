"""How many connections a server takes from this worker, found by trying.

Additive increase, multiplicative decrease (Chiu and Jain, 1989): a refused connection halves the
limit, at most once a second, and never below the connections that the server keeps open; every 10 s
without a refusal raise it by one, up to `max_connections`.
"""

from __future__ import annotations

import time
from typing import Final

import structlog

from notifier.lifecycle import Clock

HALVE_INTERVAL_S: Final = 1.0
GROW_INTERVAL_S: Final = 10.0

log = structlog.get_logger(__name__)


class ConnectionLimit:
    """The present limit of a provider's connections; `name` is the provider's."""

    def __init__(self, name: str, maximum: int, clock: Clock = time.monotonic) -> None:
        self._name = name
        self._maximum = maximum
        self._clock = clock
        self._limit = maximum
        self._refused_at: float | None = None
        self._grown_at = 0.0
        self._logged = maximum
        """The lowest limit that was logged since it was `max_connections`."""

    @property
    def connections(self) -> int:
        """How many connections may be open now."""
        if self._limit < self._maximum:
            self._grow()
        return self._limit

    @property
    def is_lowered(self) -> bool:
        """Whether the server takes fewer than `max_connections`, as far as known."""
        return self._limit < self._maximum

    @property
    def is_near(self) -> bool:
        """Whether the server refused a connection lately: connections should be tried singly."""
        is_known = self._refused_at is not None
        return is_known and self._clock() - (self._refused_at or 0.0) < GROW_INTERVAL_S

    @property
    def may_connect_in_s(self) -> float:
        """How long no new connection should be tried after a refusal, in seconds."""
        if self._refused_at is None:
            return 0.0
        return max(0.0, self._refused_at + HALVE_INTERVAL_S - self._clock())

    def on_refused(self, connected: int) -> None:
        """The server refused a connection while it keeps `connected` others open."""
        now = self._clock()
        if self._refused_at is not None and now - self._refused_at < HALVE_INTERVAL_S:
            return
        before = self.connections
        self._refused_at = self._grown_at = now
        self._limit = min(before, max(1, connected, before // 2))
        if self._limit < self._logged:
            self._logged = self._limit
            log.warning(
                "provider_connections_limited",
                provider=self._name,
                connections=self._limit,
                max_connections=self._maximum,
            )

    def on_connected(self, connected: int) -> None:
        """The server took a connection and now keeps `connected` open: it takes so many."""
        if connected > self._limit:
            self._limit = min(connected, self._maximum)

    def _grow(self) -> None:
        steps = int((self._clock() - self._grown_at) / GROW_INTERVAL_S)
        if steps > 0:
            self._grown_at += steps * GROW_INTERVAL_S
            self._limit = min(self._maximum, self._limit + steps)
        if self._limit == self._maximum:
            self._logged = self._maximum
