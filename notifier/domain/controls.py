"""Pauses, circuit breakers and quiet hours: the reasons for which what waits may not be sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import TenantId


class ScopeKind(StrEnum):
    """What a pause covers."""

    QUEUE = "queue"
    CHANNEL = "channel"
    PROVIDER = "provider"
    TAG = "tag"
    TENANT = "tenant"


HOLD_KINDS: Final = frozenset({ScopeKind.TAG, ScopeKind.TENANT})
"""They stop no queue, but single notifications of each: see domain/holds.py."""


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """One queue (`email.low`), channel (`email`), provider (`smtp`), tag or tenant.

    `str()` gives `queue:email.low`.
    """

    kind: ScopeKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def is_configured(scope: Scope, names: Mapping[ScopeKind, Collection[str]]) -> bool:
    """Whether the settings, which have these names, have what a pause is of.

    Tags and tenants are not in the settings.
    """
    return scope.kind in HOLD_KINDS or scope.name in names[scope.kind]


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
    """All pauses, breakers and quiet hours of the deployment, as of one read."""

    pauses: tuple[Pause, ...] = ()
    breakers: tuple[Breaker, ...] = ()
    quiet_hours: Mapping[TenantId, QuietHours] = field(default_factory=dict)


class SendPermission(StrEnum):
    """What this process may do with a queue now.

    ALLOWED: send. PAUSED, BREAKER_OPEN: send nothing. PROBE: send one message, as the probe of the
    queue's provider.
    """

    ALLOWED = "free"
    PAUSED = "paused"
    BREAKER_OPEN = "broken"
    PROBE = "probe"
