"""Holds: what keeps single notifications of a queue from being sent now, and for how long.

A queue, channel or provider that is paused stops its queues. A hold concerns notifications that
share their queues with others: those of a tenant or tag that is paused, and those of a tenant with
quiet hours. Such a row is parked: it is due again later. What a pause holds is parked by the
statement that would claim it, what quiet hours put off by the worker that has claimed it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from notifier.domain.controls import Controls, Pause, Scope, ScopeKind
from notifier.domain.notification import WEBHOOK_CHANNEL, Claimed, Priority
from notifier.domain.quiet_hours import EXEMPT, QuietHours
from notifier.domain.tenants import TenantId, tenant_id

MIN_PARKED_S: Final = 60.0
MAX_PARKED_S: Final = 3600.0
"""A row of a pause is looked at again after a minute, then after twice as long, up to an hour."""
MAX_JITTER_S: Final = 60.0
JITTER: Final = 0.1
"""Parked rows become due over a tenth of the time that they were parked, and over a minute at most:
not all in one moment."""
TIME_ZONE: Final = "time_zone"
"""The member of a content that names the time zone of its recipient."""
_TIME_ZONE_BYTES: Final = f'"{TIME_ZONE}"'.encode()


class PauseParking(NamedTuple):
    """For how many seconds the rows that a pause holds are parked."""

    scope: Scope
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """All holds of the deployment, as of one read. False if there are none."""

    tenants: Mapping[TenantId, Pause] = field(default_factory=dict)
    tags: Mapping[str, Pause] = field(default_factory=dict)
    quiet_hours: Mapping[TenantId, QuietHours] = field(default_factory=dict)

    @classmethod
    def of(cls, controls: Controls) -> Holds:
        """Return the holds among all controls."""
        return cls(
            tenants={
                tenant: pause
                for pause in _of_kind(controls.pauses, ScopeKind.TENANT)
                if (tenant := _tenant_of(pause)) is not None
            },
            tags={pause.scope.name: pause for pause in _of_kind(controls.pauses, ScopeKind.TAG)},
            quiet_hours=controls.quiet_hours,
        )

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.tenants or self.tags or self.quiet_hours)

    @property
    def scopes(self) -> frozenset[Scope]:
        """The pauses among them."""
        pauses = (*self.tenants.values(), *self.tags.values())
        return frozenset(pause.scope for pause in pauses)

    def pauses_of(self, tenant: TenantId, tag: str | None) -> Sequence[Pause]:
        """Return the pauses that hold the notifications of a tenant with a tag."""
        found = (self.tenants.get(tenant), None if tag is None else self.tags.get(tag))
        return [pause for pause in found if pause is not None]

    def pause_parkings(self, now: datetime, draw: float) -> Sequence[PauseParking]:
        """Return for how long each pause parks what it holds. `draw` is random, from 0 to 1."""
        pauses = (*self.tenants.values(), *self.tags.values())
        return [
            PauseParking(pause.scope, _with_jitter(span_s, draw))
            for pause in pauses
            if (span_s := _span_s(pause, now)) is not None
        ]

    def quiet_s(self, claimed: Claimed, now: datetime, draw: float) -> float | None:
        """Return for how many seconds quiet hours park a row; None if it may be sent.

        Raises nothing. `draw` is a random number from 0 to 1.
        """
        if claimed.queue.channel == WEBHOOK_CHANNEL:  # no person is disturbed
            return None
        hours = self.quiet_hours.get(claimed.tenant)
        end = quiet_until(hours, claimed.queue.priority, claimed.content, now)
        return None if end is None else _with_jitter((end - now).total_seconds(), draw)


def quiet_until(
    hours: QuietHours | None, priority: Priority, content: bytes, due_at: datetime
) -> datetime | None:
    """Return until when quiet hours put off a notification, None if they do not. Raises nothing."""
    if hours is None or priority in EXEMPT:
        return None
    return hours.ends_at(due_at, time_zone_of(content))


def time_zone_of(content: bytes) -> str | None:
    """Return the time zone that a content names, None without one. Raises nothing."""
    if _TIME_ZONE_BYTES not in content:
        return None
    try:
        zone = json.loads(content).get(TIME_ZONE)
    except (ValueError, AttributeError, RecursionError):
        return None
    return zone if isinstance(zone, str) else None


def _span_s(pause: Pause, now: datetime) -> float | None:
    """Return for how long a pause parks: about as long as it has lasted; None if it has ended."""
    span_s = (now - pause.paused_at).total_seconds()
    if pause.expires_at is not None:
        left_s = (pause.expires_at - now).total_seconds()
        if left_s <= 0:
            return None
        span_s = min(span_s, left_s)
    return min(span_s, MAX_PARKED_S)


def _with_jitter(span_s: float, draw: float) -> float:
    span_s = max(MIN_PARKED_S, span_s)
    return span_s + draw * min(MAX_JITTER_S, JITTER * span_s)


def _of_kind(pauses: Sequence[Pause], kind: ScopeKind) -> Sequence[Pause]:
    return [pause for pause in pauses if pause.scope.kind is kind]


def _tenant_of(pause: Pause) -> TenantId | None:
    try:
        return tenant_id(pause.scope.name)
    except ValueError:
        return None
