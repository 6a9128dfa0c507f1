"""What a queue may do under given pauses and breakers, and how these age between two reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import NamedTuple

from notifier.domain.controls import (
    Breaker,
    BreakerState,
    Controls,
    Pause,
    Scope,
    ScopeKind,
    SendPermission,
)
from notifier.domain.notification import QueueKey


def aged(controls: Controls, by_s: float) -> Controls:
    """The same controls `by_s` seconds later, without the pauses that have expired by then."""
    return replace(
        controls,
        pauses=tuple(
            replace(
                pause,
                age_s=pause.age_s + by_s,
                expires_in_s=None if pause.expires_in_s is None else pause.expires_in_s - by_s,
            )
            for pause in controls.pauses
            if _ends_in_s(pause) > by_s
        ),
        breakers=tuple(
            replace(breaker, age_s=breaker.age_s + by_s, probe_in_s=breaker.probe_in_s - by_s)
            for breaker in controls.breakers
        ),
    )


def next_expiry_s(controls: Controls) -> float:
    """Seconds until a permission changes without a write: a pause or our hold on a probe ends.

    Infinity if nothing expires.
    """
    pauses = [_ends_in_s(pause) for pause in controls.pauses]
    holds = [breaker.probe_in_s for breaker in controls.breakers if _is_held(breaker)]
    return min([*pauses, *holds], default=inf)


def permission_of(
    controls: Controls,
    queue: QueueKey,
    providers: Sequence[str],
    probes: Mapping[str, QueueKey],
) -> SendPermission:
    """What `queue` may do, whose channel sends through `providers`.

    `probes` names, per provider that this process probes, the queue that sends the probe. Paused
    providers are ignored unless all are paused; of the others the most permissive counts.
    """
    paused = {pause.scope for pause in controls.pauses}
    if {Scope(ScopeKind.QUEUE, str(queue)), Scope(ScopeKind.CHANNEL, queue.channel)} & paused:
        return SendPermission.PAUSED
    usable = [name for name in providers if Scope(ScopeKind.PROVIDER, name) not in paused]
    if not usable:
        return SendPermission.PAUSED if providers else SendPermission.ALLOWED
    breakers = {breaker.provider: breaker for breaker in controls.breakers}
    permissions = {_permission_through(breakers.get(name), queue, probes) for name in usable}
    return next(
        permission
        for permission in (
            SendPermission.ALLOWED,
            SendPermission.PROBE,
            SendPermission.BREAKER_OPEN,
        )
        if permission in permissions
    )


class Stops(NamedTuple):
    """The pauses and breakers that stop a queue."""

    pauses: Sequence[Pause]
    breakers: Sequence[Breaker]


def stops_of(controls: Controls, queue: QueueKey, providers: Sequence[str]) -> Stops:
    """Return what stops a queue, whose channel sends through `providers`.

    What stops a provider counts if each of them is stopped.
    """
    scopes = {Scope(ScopeKind.QUEUE, str(queue)), Scope(ScopeKind.CHANNEL, queue.channel)}
    of_providers = {name: Scope(ScopeKind.PROVIDER, name) for name in providers}
    paused = {pause.scope for pause in controls.pauses}
    opened = [
        breaker
        for breaker in controls.breakers
        if breaker.provider in providers and breaker.state is not BreakerState.CLOSED
    ]
    open_names = {breaker.provider for breaker in opened}
    is_stopped = all(name in open_names or of_providers[name] in paused for name in providers)
    if is_stopped:
        scopes |= set(of_providers.values())
    return Stops(
        pauses=[pause for pause in controls.pauses if pause.scope in scopes],
        breakers=opened if is_stopped else (),
    )


def _permission_through(
    breaker: Breaker | None, queue: QueueKey, probes: Mapping[str, QueueKey]
) -> SendPermission:
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return SendPermission.ALLOWED
    if _is_held(breaker) and probes.get(breaker.provider) == queue:
        return SendPermission.PROBE
    return SendPermission.BREAKER_OPEN


def _is_held(breaker: Breaker) -> bool:
    """Whether this process holds the probe; once the hold expires another may have taken it."""
    return breaker.state is BreakerState.HALF_OPEN and breaker.is_mine and breaker.probe_in_s > 0


def _ends_in_s(pause: Pause) -> float:
    return inf if pause.expires_in_s is None else pause.expires_in_s
