"""The state of every queue and provider, from Postgres, the broker and the heartbeats."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.controls import BreakerState, Controls, Scope, ScopeKind, SendPermission
from notifier.ports.queries import PauseState, ProviderState, QueueState
from notifier.scheduling.gates.permissions import stops_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from notifier.domain.breaker import ProviderFigures
    from notifier.domain.controls import Breaker
    from notifier.domain.notification import QueueKey
    from notifier.ports.broker import Broker, Depth
    from notifier.ports.heartbeat import QueueFigures
    from notifier.ports.store import StatusStore, UnconfiguredQueue, Waiting
    from notifier.scheduling.cluster.cluster_figures import ClusterFigures
    from notifier.scheduling.gates.queue_gates import QueueGates

NO_WORKER: Final = "no_worker"
NO_CHANNEL: Final = "no_channel"
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
        store: StatusStore,
        broker: Broker,
        cluster: ClusterFigures,
        gates: QueueGates,
    ) -> None:
        self._store = store
        self._broker = broker
        self._cluster = cluster
        self._gates = gates

    async def queues(self) -> Sequence[QueueState]:
        """One row per queue, also for those with rows that the settings lack.

        A queue whose depth the broker does not know has `ready` 0.
        """
        await self._gates.refresh()
        queues = self._gates.queues
        waiting = await self._store.count_waiting(queues)
        unconfigured = await self._store.unconfigured(queues)
        depths = await self._broker.depths()
        refused = self._broker.refused_queues()
        reports = self._cluster.queue_figures()
        configured = [
            _queue_state(
                queue,
                waiting.get(queue),
                depths.get(queue),
                reports.get(queue, ()),
                _limitation(reports.get(queue, ()), self._gates, queue, refused.get(queue)),
            )
            for queue in queues
        ]
        return configured + [_unconfigured_state(queue) for queue in unconfigured]

    async def providers(self) -> Sequence[ProviderState]:
        """One row per provider, by name."""
        controls = await self._gates.refresh()
        channels = self._gates.providers
        reports = self._cluster.provider_figures()
        hanging = {
            queue.channel
            for queue, figures in self._cluster.queue_figures().items()
            if any(of_worker.limited_by == Limit.HANG for of_worker in figures)
        }
        return [
            _provider_state(
                name,
                tuple(channel for channel, names in channels.items() if name in names),
                controls,
                [figures[name] for figures in reports if name in figures],
                hanging,
            )
            for name in self._gates.provider_names
        ]

    async def pauses(self) -> Sequence[PauseState]:
        """All pauses that have not expired, by scope."""
        controls = await self._gates.refresh()
        return [
            PauseState(pause=pause, matches=self._gates.is_configured(pause.scope))
            for pause in sorted(controls.pauses, key=lambda pause: pause.scope)
        ]


class Limitation(NamedTuple):
    """What limits a queue, with more about it, None if there is no more to say."""

    limited_by: str
    detail: str | None


def _queue_state(
    queue: QueueKey,
    waiting: Waiting | None,
    depth: Depth | None,
    reports: Sequence[QueueFigures],
    limitation: Limitation,
) -> QueueState:
    return QueueState(
        queue=str(queue),
        ready=depth.ready if depth else 0,
        due=waiting.due if waiting else 0,
        due_is_exact=waiting is None or not waiting.is_ceiling,
        consumers=sum(figures.consumers for figures in reports),
        busy=sum(figures.busy for figures in reports),
        rate_per_s=round(sum(figures.done_per_s for figures in reports), 3),
        oldest_wait_s=_oldest_wait_s(waiting),
        limited_by=limitation.limited_by,
        limited_by_detail=limitation.detail,
        paused=limitation.limited_by == Limit.PAUSE,
        foreign=sum(figures.foreign for figures in reports),
    )


def _oldest_wait_s(waiting: Waiting | None) -> float | None:
    if waiting is None or not waiting.oldest_wait:
        return None
    return round(waiting.oldest_wait.total_seconds(), 3)


def _unconfigured_state(queue: UnconfiguredQueue) -> QueueState:
    return QueueState(
        queue=queue.queue,
        ready=0,
        due=queue.waiting,
        due_is_exact=queue.is_exact,
        consumers=0,
        busy=queue.sending,
        rate_per_s=0.0,
        oldest_wait_s=round(queue.age_s, 3),
        limited_by=NO_CHANNEL,
        limited_by_detail=(
            "no channel of the settings has this queue: nobody sends its rows"
            + (", nor recovers those of a dead worker" if queue.sending else "")
        ),
        paused=False,
        is_configured=False,
    )


def _limitation(
    reports: Sequence[QueueFigures], gates: QueueGates, queue: QueueKey, refusal: str | None
) -> Limitation:
    """A pause, breaker or refusal if there is one, then what the workers report."""
    permission = gates.permission(queue)
    if permission is not SendPermission.ALLOWED:
        limit = LIMIT_OF_PERMISSION[permission]
        return Limitation(limit, _detail_of_controls(limit, gates, queue))
    if refusal is not None:
        return Limitation(Limit.BROKER, refusal)
    return reported_limitation(reports)


def reported_limitation(reports: Sequence[QueueFigures]) -> Limitation:
    """Return what the workers report as the limit of a queue: a hang if one does, else the most."""
    limits = Counter(figures.limited_by for figures in reports)
    if hanging := limits[Limit.HANG]:
        detail = f"calls are not answered in {hanging} of {len(reports)} workers"
        return Limitation(Limit.HANG, detail)
    return Limitation(limits.most_common(1)[0][0] if limits else NO_WORKER, None)


def _detail_of_controls(limit: Limit, gates: QueueGates, queue: QueueKey) -> str | None:
    """Which pauses or breakers stop a queue, with their notes and reasons."""
    stops = stops_of(gates.snapshot(), queue, gates.providers.get(queue.channel, ()))
    if limit is Limit.PAUSE:
        named = [_named(str(pause.scope), pause.note) for pause in stops.pauses]
    else:
        named = [
            _named(breaker.provider, f"{breaker.reason} {breaker.code}".strip())
            for breaker in stops.breakers
        ]
    return "; ".join(named) or None


def _named(name: str, why: str) -> str:
    return f"{name}: {why}" if why else name


def _provider_state(
    name: str,
    channels: tuple[str, ...],
    controls: Controls,
    reports: Sequence[ProviderFigures],
    hanging: Collection[str],
) -> ProviderState:
    breaker = next((row for row in controls.breakers if row.provider == name), None)
    return ProviderState(
        provider=name,
        channels=channels,
        breaker=breaker.state if breaker else BreakerState.CLOSED,
        reason=breaker.reason if breaker else "",
        code=breaker.code if breaker else "",
        since_at=breaker.since_at if breaker else None,
        probe_at=_probe_at(breaker),
        paused=any(pause.scope == Scope(ScopeKind.PROVIDER, name) for pause in controls.pauses),
        calls=sum(figures.calls for figures in reports),
        failures=sum(figures.failures for figures in reports),
        hanging=tuple(channel for channel in channels if channel in hanging),
    )


def _probe_at(breaker: Breaker | None) -> datetime | None:
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return None
    return breaker.probe_at
