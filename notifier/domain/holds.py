"""Holds: what keeps single notifications of a queue from being sent now, and for how long.

A queue, channel or provider that is paused stops its queues. A hold concerns notifications that
share their queues with others: those of a tenant or tag that is paused, and those of a tenant with
quiet hours. A worker that claims such a row parks it: the row is due again later.
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


class Parking(NamedTuple):
    """For how many seconds a row is parked, and by which pause; None: by quiet hours."""

    after_s: float
    scope: Scope | None


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

    def parking(self, claimed: Claimed, now: datetime, draw: float) -> Parking | None:
        """Return for how long a row must be parked; None if it may be sent. Raises nothing.

        Of several holds the longest counts. `draw` is a random number from 0 to 1.
        """
        found = [
            parking
            for pause in self.pauses_of(claimed.tenant, claimed.tag)
            for parking in _paused(pause, now)
        ]
        found += self._quiet(claimed, now)
        if not found:
            return None
        span_s, scope = max(found, key=_span_s)
        span_s = max(MIN_PARKED_S, span_s)
        return Parking(span_s + draw * min(MAX_JITTER_S, JITTER * span_s), scope)

    def _quiet(self, claimed: Claimed, now: datetime) -> Sequence[Parking]:
        if claimed.queue.channel == WEBHOOK_CHANNEL:  # no person is disturbed
            return ()
        hours = self.quiet_hours.get(claimed.tenant)
        end = quiet_until(hours, claimed.queue.priority, claimed.content, now)
        return () if end is None else (Parking((end - now).total_seconds(), None),)


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


def _paused(pause: Pause, now: datetime) -> Sequence[Parking]:
    """Return for how long a row is parked by a pause: about as long as it has lasted by now."""
    span_s = (now - pause.paused_at).total_seconds()
    if pause.expires_at is not None:
        left_s = (pause.expires_at - now).total_seconds()
        if left_s <= 0:
            return ()
        span_s = min(span_s, left_s)
    return (Parking(min(span_s, MAX_PARKED_S), pause.scope),)


def _span_s(parking: Parking) -> float:
    return parking.after_s


def _of_kind(pauses: Sequence[Pause], kind: ScopeKind) -> Sequence[Pause]:
    return [pause for pause in pauses if pause.scope.kind is kind]


def _tenant_of(pause: Pause) -> TenantId | None:
    try:
        return tenant_id(pause.scope.name)
    except ValueError:
        return None
