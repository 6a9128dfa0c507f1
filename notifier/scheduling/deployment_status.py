"""The state of every queue and provider, from Postgres, the broker and the heartbeats."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.controls import BreakerState, Controls, Scope, ScopeKind, SendPermission
from notifier.ports.queries import ProviderState, QueueState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.breaker import ProviderFigures
    from notifier.domain.controls import Breaker, Pause
    from notifier.domain.notification import QueueKey
    from notifier.ports.broker import Broker, Depth
    from notifier.ports.heartbeat import QueueFigures
    from notifier.ports.store import Waiting, WaitingCounter
    from notifier.scheduling.cluster.cluster_figures import ClusterFigures
    from notifier.scheduling.gates.queue_gates import QueueGates

NO_WORKER: Final = "no worker"
LIMIT_OF_PERMISSION: Final = {
    SendPermission.PAUSED: Limit.PAUSE,
    SendPermission.BREAKER_OPEN: Limit.BREAKER,
    SendPermission.PROBE: Limit.BREAKER,
}


class DeploymentStatus:
    """Implements ports.queries.StatusReader. Every method raises StoreUnavailable.

    Pauses and breakers are read at each call, so that a change just made is seen at once.
    """

    def __init__(
        self,
        *,
        store: WaitingCounter,
        broker: Broker,
        cluster: ClusterFigures,
        gates: QueueGates,
    ) -> None:
        self._store = store
        self._broker = broker
        self._cluster = cluster
        self._gates = gates

    async def queues(self) -> Sequence[QueueState]:
        """One row per queue. A queue whose depth the broker does not know has `ready` 0."""
        await self._gates.refresh()
        waiting = await self._store.waiting(self._gates.queues)
        depths = await self._broker.depths()
        refused = self._broker.refused_queues()
        reports = self._cluster.queue_figures()
        return [
            _queue_state(
                queue,
                waiting.get(queue),
                depths.get(queue),
                reports.get(queue, ()),
                self._gates.permission(queue),
                is_refused=queue in refused,
            )
            for queue in self._gates.queues
        ]

    async def providers(self) -> Sequence[ProviderState]:
        """One row per provider, by name."""
        controls = await self._gates.refresh()
        channels = self._gates.providers
        reports = self._cluster.provider_figures()
        return [
            _provider_state(
                name,
                tuple(channel for channel, names in channels.items() if name in names),
                controls,
                [figures[name] for figures in reports if name in figures],
            )
            for name in self._gates.provider_names
        ]

    async def pauses(self) -> Sequence[Pause]:
        """All pauses that have not expired, by scope."""
        controls = await self._gates.refresh()
        return sorted(controls.pauses, key=lambda pause: pause.scope)


def _queue_state(
    queue: QueueKey,
    waiting: Waiting | None,
    depth: Depth | None,
    reports: Sequence[QueueFigures],
    permission: SendPermission,
    *,
    is_refused: bool,
) -> QueueState:
    return QueueState(
        queue=queue,
        ready=depth.ready if depth else 0,
        due=waiting.due if waiting else 0,
        consumers=sum(figures.consumers for figures in reports),
        busy=sum(figures.busy for figures in reports),
        rate_per_s=round(sum(figures.done_per_s for figures in reports), 3),
        oldest_wait_s=round(waiting.oldest_wait.total_seconds(), 3) if waiting else 0.0,
        limited_by=_limited_by(reports, permission, is_refused=is_refused),
        paused=permission is SendPermission.PAUSED,
    )


def _limited_by(
    reports: Sequence[QueueFigures], permission: SendPermission, *, is_refused: bool
) -> str:
    """A pause, breaker or refusal if there is one, else the limit that most workers report."""
    if permission is not SendPermission.ALLOWED:
        return LIMIT_OF_PERMISSION[permission]
    if is_refused:
        return Limit.BROKER
    limits = Counter(figures.limited_by for figures in reports)
    return limits.most_common(1)[0][0] if limits else NO_WORKER


def _provider_state(
    name: str, channels: tuple[str, ...], controls: Controls, reports: Sequence[ProviderFigures]
) -> ProviderState:
    breaker = next((row for row in controls.breakers if row.provider == name), None)
    return ProviderState(
        provider=name,
        channels=channels,
        breaker=breaker.state if breaker else BreakerState.CLOSED,
        reason=breaker.reason if breaker else "",
        code=breaker.code if breaker else "",
        probe_in_s=_probe_in_s(breaker),
        paused=any(pause.scope == Scope(ScopeKind.PROVIDER, name) for pause in controls.pauses),
        calls=sum(figures.calls for figures in reports),
        failures=sum(figures.failures for figures in reports),
    )


def _probe_in_s(breaker: Breaker | None) -> float:
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return 0.0
    return round(max(0.0, breaker.probe_in_s), 3)
