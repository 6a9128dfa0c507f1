"""The heartbeat: what a process reports about itself and reads about the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from notifier.domain.breaker import ProviderFigures
from notifier.domain.notification import (
    QueueKey,
    WorkerId,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """What one worker says of its side of one queue, in its heartbeat.

    `consumers` hold the queue (the standing ones counted), `busy` of them carry out an attempt.
    `held` messages are unacked here. `done` counts attempts finished since the process started.
    `done_per_s` and `service_s` are moving averages. `limited_by` is the allocator's answer to
    "why is it not moving?". `held_since` is the oldest `published_at` among the held, `mark` the
    newest `published_at` of a non-redelivered message taken at least 10 s ago (both in seconds
    since the epoch, None if there is none). `drained_s` is for how long, without a break, every
    poll said ready = 0 with consumers > 0 while nothing was held here.
    """

    consumers: int
    busy: int
    held: int
    done: int
    done_per_s: float
    service_s: float
    limited_by: str
    held_since: float | None
    mark: float | None
    drained_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that a process says in its heartbeat."""

    queues: Mapping[QueueKey, QueueFigures]
    providers: Mapping[str, ProviderFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigures:
    """A heartbeat read back: `kind` is api, worker or dev, `age_s` by Postgres's clock."""

    id: WorkerId
    kind: str
    host: str
    pid: int
    beat: int
    age_s: float
    queues: Mapping[QueueKey, QueueFigures]
    providers: Mapping[str, ProviderFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """What a heartbeat brings back: Postgres's clock (seconds since the epoch), and the others."""

    now: float
    others: Sequence[WorkerFigures]


class Heartbeat(Protocol):
    """One process's row among the living, on a connection of its own."""

    async def beat(
        self, *, kind: str, host: str, pid: int, beat: int, figures: Figures
    ) -> HeartbeatReply:
        """Say that this process lives; returns the other processes' rows and the time."""
        ...

    async def leave(self) -> None:
        """Remove the row: this process ends of its own will."""
        ...


class Liveness(Protocol):
    """Whether the others must take this process for alive, so that a provider call may begin."""

    def is_alive(self) -> bool: ...

    async def wait_until_alive(self) -> None:
        """Return at once while alive, else with the next heartbeat that arrives."""
        ...
