"""The state of every queue and provider: from Postgres, the broker and the heartbeats."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.controls import BreakerState, Controls, Scope, ScopeKind, SendPermission
from notifier.ports.broker import Depth
from notifier.ports.queries import ProviderState, QueueState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.breaker import ProviderFigures
    from notifier.domain.controls import Breaker, Pause
    from notifier.domain.notification import QueueKey
    from notifier.ports.broker import Broker
    from notifier.ports.heartbeat import QueueFigures
    from notifier.ports.store import Waiting, WaitingCounter
    from notifier.scheduling.cluster.membership import Membership
    from notifier.scheduling.gates.queue_gates import QueueGates

NO_WORKER: Final = "no worker"
LIMIT_OF_PERMISSION: Final = {
    SendPermission.PAUSED: Limit.PAUSE,
    SendPermission.BREAKER_OPEN: Limit.BREAKER,
    SendPermission.PROBE: Limit.BREAKER,
}


class Board:
    """What `GET /v1/queues`, `/v1/providers` and `/v1/pauses` show. Raises StoreUnavailable.

    Pauses and breakers are read for each answer, so that a change just made is seen at once.
    Without `panel` nothing is ever held back.
    """

    def __init__(
        self,
        *,
        store: WaitingCounter,
        broker: Broker,
        membership: Membership,
        queues: Sequence[QueueKey],
        gates: QueueGates | None = None,
    ) -> None:
        self._store = store
        self._broker = broker
        self._membership = membership
        self._queues = queues
        self._gates = gates

    async def queues(self) -> Sequence[QueueState]:
        """One row a queue; what the broker does not know counts as 0."""
        await self._controls()
        waiting = await self._store.waiting(self._queues)
        depths = await self._broker.depths()
        said = self._membership.figures()
        return [
            _state(
                queue,
                waiting.get(queue),
                depths.get(queue),
                said.get(queue, ()),
                self._gates.permission(queue) if self._gates else SendPermission.ALLOWED,
            )
            for queue in self._queues
        ]

    async def providers(self) -> Sequence[ProviderState]:
        """One row a provider, by name."""
        controls = await self._controls()
        channels = self._gates.providers if self._gates else {}
        names = sorted({name for each in channels.values() for name in each})
        said = self._membership.providers()
        return [
            _provider(
                name,
                tuple(channel for channel, each in channels.items() if name in each),
                controls,
                [figures[name] for figures in said if name in figures],
            )
            for name in names
        ]

    async def pauses(self) -> Sequence[Pause]:
        """All that have not expired, by scope."""
        return sorted((await self._controls()).pauses, key=lambda pause: pause.scope)

    async def _controls(self) -> Controls:
        return await self._gates.refresh() if self._gates else Controls()


def _state(
    queue: QueueKey,
    waiting: Waiting | None,
    depth: Depth | None,
    said: Sequence[QueueFigures],
    permission: SendPermission,
) -> QueueState:
    return QueueState(
        queue=queue,
        ready=depth.ready if depth else 0,
        due=waiting.due if waiting else 0,
        consumers=sum(one.consumers for one in said),
        busy=sum(one.busy for one in said),
        rate_per_s=round(sum(one.done_per_s for one in said), 3),
        oldest_wait_s=round(waiting.oldest_wait.total_seconds(), 3) if waiting else 0.0,
        limited_by=_limited_by(said, permission),
        paused=permission is SendPermission.PAUSED,
    )


def _limited_by(said: Sequence[QueueFigures], permission: SendPermission) -> str:
    """A pause and a breaker count at once, the rest as most workers say."""
    if permission is not SendPermission.ALLOWED:
        return LIMIT_OF_PERMISSION[permission]
    limits = Counter(one.limited_by for one in said)
    return limits.most_common(1)[0][0] if limits else NO_WORKER


def _provider(
    name: str, channels: tuple[str, ...], controls: Controls, said: Sequence[ProviderFigures]
) -> ProviderState:
    breaker = next((each for each in controls.breakers if each.provider == name), None)
    return ProviderState(
        provider=name,
        channels=channels,
        breaker=breaker.state if breaker else BreakerState.CLOSED,
        reason=breaker.reason if breaker else "",
        probe_in_s=_probe_in_s(breaker),
        paused=any(pause.scope == Scope(ScopeKind.PROVIDER, name) for pause in controls.pauses),
        calls=sum(one.calls for one in said),
        failures=sum(one.failures for one in said),
    )


def _probe_in_s(breaker: Breaker | None) -> float:
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return 0.0
    return round(max(0.0, breaker.probe_in_s), 3)
