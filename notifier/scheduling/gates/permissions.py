"""What pauses and breakers mean for a queue, and how they age between two reads. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

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

Probing = Callable[[str], QueueKey | None]
"""Which queue this process sends a provider's probe from, if it holds it."""


def aged(controls: Controls, by_s: float) -> Controls:
    """The same, `by_s` later: what has expired by then is gone."""
    return Controls(
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
            replace(each, age_s=each.age_s + by_s, probe_in_s=each.probe_in_s - by_s)
            for each in controls.breakers
        ),
    )


def next_end_s(controls: Controls) -> float:
    """When a flow changes by the passing of time alone: a pause ends, or our hold on a probe."""
    pauses = [_ends_in_s(pause) for pause in controls.pauses]
    holds = [breaker.probe_in_s for breaker in controls.breakers if _is_held(breaker)]
    return min([*pauses, *holds], default=inf)


def permission_of(
    controls: Controls, queue: QueueKey, providers: Sequence[str], probing: Probing
) -> SendPermission:
    """What `queue` may do, whose channel sends through any of `providers`.

    A provider that is paused counts as none; the others decide, the freest of them.
    """
    paused = {pause.scope for pause in controls.pauses}
    if {Scope(ScopeKind.QUEUE, str(queue)), Scope(ScopeKind.CHANNEL, queue.channel)} & paused:
        return SendPermission.PAUSED
    usable = [name for name in providers if Scope(ScopeKind.PROVIDER, name) not in paused]
    if not usable:
        return SendPermission.PAUSED if providers else SendPermission.ALLOWED
    breakers = {breaker.provider: breaker for breaker in controls.breakers}
    permissions = {_through(breakers.get(name), queue, probing) for name in usable}
    return next(
        permission
        for permission in (
            SendPermission.ALLOWED,
            SendPermission.PROBE,
            SendPermission.BREAKER_OPEN,
        )
        if permission in permissions
    )


def _through(breaker: Breaker | None, queue: QueueKey, probing: Probing) -> SendPermission:
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return SendPermission.ALLOWED
    if _is_held(breaker) and probing(breaker.provider) == queue:
        return SendPermission.PROBE
    return SendPermission.BREAKER_OPEN


def _is_held(breaker: Breaker) -> bool:
    """Ours to probe; past its end another may have taken the hold."""
    return breaker.state is BreakerState.HALF_OPEN and breaker.is_mine and breaker.probe_in_s > 0


def _ends_in_s(pause: Pause) -> float:
    return inf if pause.expires_in_s is None else pause.expires_in_s
