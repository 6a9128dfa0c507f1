"""What may hold work back beside its own demand: a pause, asked for, or an open breaker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ScopeKind(StrEnum):
    """What a pause covers."""

    QUEUE = "queue"
    CHANNEL = "channel"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """One queue (`email.low`), channel (`email`) or provider (`smtp`).

    `str()` gives `queue:email.low`.
    """

    kind: ScopeKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Nothing of this scope is sent. Spans are Postgres's, as of the read.

    `expires_in_s` None means until resumed.
    """

    scope: Scope
    reason: str
    age_s: float
    expires_in_s: float | None


class BreakerState(StrEnum):
    """Closed lets all pass, open nothing, half-open one probe at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """One provider's breaker as Postgres has it. A provider without a row is closed.

    `openings` counts how often it opened in a row; `age_s` is how long it has been in this state
    for the reader; `probe_in_s` when it may be probed (0 or less: now; in half-open, when the
    holder's hold ends). `is_mine` says that this process holds the probe.
    """

    provider: str
    state: BreakerState
    reason: str
    openings: int
    age_s: float
    probe_in_s: float
    is_mine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """All that holds work back in the deployment, as of one read."""

    pauses: tuple[Pause, ...] = ()
    breakers: tuple[Breaker, ...] = ()


class SendPermission(StrEnum):
    """What a queue may do now: flow, nothing (and why), or send its provider's one probe."""

    ALLOWED = "free"
    PAUSED = "paused"
    BREAKER_OPEN = "broken"
    PROBE = "probe"
