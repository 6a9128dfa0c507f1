"""Pauses and circuit breakers: the reasons for which a queue with work may not send."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
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
    """A scope for which nothing is sent. Times are by Postgres's clock, spans as of the read.

    `note` says why, "" if nobody said. `expires_at` and `expires_in_s` None: until it is resumed.
    """

    scope: Scope
    note: str
    age_s: float
    paused_at: datetime
    expires_at: datetime | None
    expires_in_s: float | None


class BreakerState(StrEnum):
    """CLOSED lets every call pass, OPEN none, HALF_OPEN one probe at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """One provider's breaker as stored in Postgres. A provider without a row is closed.

    It has been in this state since `since_at`, for `age_s`. It may be probed at `probe_at`, in
    `probe_in_s`, which is 0 or less if it may be now; while half-open, the holder's claim on the
    probe ends then. `is_mine`: this process holds the probe. `reason` is that of its first opening,
    unless a probe showed that our settings are wrong; `code` the provider's code of the last
    failure. `openings` counts how often it opened since it was closed.
    """

    provider: str
    state: BreakerState
    reason: str
    age_s: float
    probe_in_s: float
    is_mine: bool
    since_at: datetime
    probe_at: datetime
    openings: int = 0
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """All pauses and breakers of the deployment, as of one read."""

    pauses: tuple[Pause, ...] = ()
    breakers: tuple[Breaker, ...] = ()


class SendPermission(StrEnum):
    """What this process may do with a queue now.

    ALLOWED: send. PAUSED, BREAKER_OPEN: send nothing. PROBE: send one message, as the probe of the
    queue's provider.
    """

    ALLOWED = "free"
    PAUSED = "paused"
    BREAKER_OPEN = "broken"
    PROBE = "probe"
