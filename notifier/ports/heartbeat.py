"""The heartbeat: what a process reports about itself and reads about the others.

The figures are a wire format: every process decodes what the others wrote, also those of an older
or a newer version. Therefore every field has a default, unknown fields are ignored, and a field
keeps the name under which it was first written (`name=`), whatever it is called in Python.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from notifier.domain.breaker import ProviderFigures
from notifier.domain.errors import FeatureUnavailable
from notifier.domain.features import NO_FEATURES
from notifier.domain.notification import QueueKey, WorkerId


class QueueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's figures of one queue.

    `consumers` is the number assigned to the queue, reserved ones included; `busy` of these run an
    attempt. `held` counts messages delivered to this worker and not acknowledged. `done` counts
    attempts finished since the process started. `done_per_s` and `service_s` are moving averages.
    `capacity_per_s` is how many provider calls per second the worker's consumers of the queue can
    begin, within the rates; 0 while the queue may not send, None while unknown (no call measured
    yet, or an older version).
    `limited_by` is the allocator's limit. `held_since` is the oldest `published_at` among the held
    messages, `watermark` the newest `published_at` of a message that was delivered for the first
    time at least 10 s ago; both are seconds since the epoch, None if there is no such message.
    `drained_s` is for how long, without interruption, every poll of the broker reported ready = 0
    and consumers > 0 while this worker held nothing. `foreign` counts the pointers of other
    deployments that this worker received in the last minute, and put back.
    """

    consumers: int = 0
    busy: int = 0
    held: int = 0
    done: int = 0
    done_per_s: float = 0.0
    service_s: float = 0.0
    capacity_per_s: float | None = None
    limited_by: str = ""
    held_since: float | None = None
    watermark: float | None = msgspec.field(default=None, name="mark")
    drained_s: float = 0.0
    foreign: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a process reports about itself in its heartbeat.

    `is_draining`: it stops, and takes no lease any longer. `version` and `features` are those of
    the process that wrote them, None and empty if it did not say.
    """

    queues: Mapping[QueueKey, QueueFigures]
    providers: Mapping[str, ProviderFigures]
    is_draining: bool = False
    version: str | None = field(default=None, compare=False)
    features: frozenset[str] = field(default=NO_FEATURES, compare=False)


NO_FIGURES = Figures(queues={}, providers={})
"""What a process reports that does not send."""


class FigureSource(Protocol):
    """Where the heartbeat takes this process's own figures from."""

    def figures(self) -> Figures:
        """The figures as of now."""
        ...

    def consumers(self) -> int:
        """The sum of the consumers in the figures, for less than the figures cost."""
        ...

    @property
    def is_draining(self) -> bool:
        """The same as in the figures, for less than the figures cost."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigures:
    """Another process's heartbeat row.

    `kind` is api, worker or dev. `beat` is its counter. `age_s` is the age of the row by Postgres's
    clock. `version` and `features` are as in `Figures`.
    """

    id: WorkerId
    kind: str
    host: str
    pid: int
    beat: int
    age_s: float
    queues: Mapping[QueueKey, QueueFigures]
    providers: Mapping[str, ProviderFigures]
    is_draining: bool = False
    version: str | None = None
    features: frozenset[str] = NO_FEATURES


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """What a heartbeat returns: Postgres's clock (seconds since the epoch) and the other rows.

    `refusal` says what Postgres does not let this process do, and the fix; empty if nothing.
    """

    now: float
    others: Sequence[WorkerFigures]
    refusal: str = ""


class Heartbeat(Protocol):
    """This process's row in the table of live processes."""

    async def beat(
        self, *, kind: str, host: str, pid: int, beat: int, figures: Figures
    ) -> HeartbeatReply:
        """Write this process's row; return the other processes' rows and the time.

        `beat` is a counter that grows with each call. A row whose figures cannot be decoded is
        returned without figures: its process is alive. Raises StoreUnavailable.
        """
        ...

    async def leave(self) -> None:
        """Delete this process's row, at a regular shutdown. Raises StoreUnavailable."""
        ...


class AliveCheck(Protocol):
    """Whether this process may begin provider calls; see domain/liveness.py."""

    def is_alive(self) -> bool:
        """Whether the last successful heartbeat is recent enough that no process counts us dead."""
        ...


class Liveness(AliveCheck, Protocol):
    """An AliveCheck that can be awaited."""

    async def wait_until_alive(self) -> None:
        """Return at once while alive, otherwise after the next successful heartbeat."""
        ...


class DeadProcess(NamedTuple):
    """A process that has a heartbeat row and counts as dead, with the counter where it stopped."""

    id: WorkerId
    beat: int


class DeadProcesses(Protocol):
    """Which processes count as dead; see domain/liveness.py."""

    def dead(self) -> Sequence[DeadProcess]:
        """The other processes that are dead and still have a row."""
        ...


class LiveWorkers(Protocol):
    """Which processes may acquire leases: those of kind worker or dev that live and do not stop."""

    def live_workers(self) -> Collection[WorkerId]:
        """The live workers that do not drain, this process included if it has a heartbeat row."""
        ...

    def beating_workers(self) -> Collection[WorkerId]:
        """Those of the other live workers whose heartbeats came up to now.

        A worker that has just died is alive for DEAD_AFTER_S, but does not beat.
        """
        ...


class Departures(Protocol):
    """Which processes have left: they died, or deleted their row."""

    @property
    def departures(self) -> int:
        """How often another process has left since the start of this one."""
        ...

    def has_left(self, process: WorkerId) -> bool:
        """Whether a process is dead or had no row at the last heartbeat. False for this process.

        A process that has just started may have no row yet: the caller must check again. No
        process has left before the first heartbeat of this one.
        """
        ...


class FeatureCheck(Protocol):
    """Whether every worker understands what a notification needs."""

    def refusal(self, features: Collection[str]) -> FeatureUnavailable | None:
        """Return why a notification with these features may not be stored now, None if it may."""
        ...


class LackedFeatures(Protocol):
    """Which features a live worker lacks."""

    def is_lacked(self, feature: str) -> bool:
        """Whether a live worker is known to lack this feature."""
        ...


class PeerFigures(Protocol):
    """What the other live processes reported in their last heartbeat."""

    def peer_queue_figures(self) -> Sequence[Mapping[QueueKey, QueueFigures]]:
        """Each other live process's figures of its queues."""
        ...


class QueueFigureSource(Protocol):
    """This process's own figures of its queues."""

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        """The figures as of now; empty in a process that does not send."""
        ...
