"""What a consumer pool needs of its deployment, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey
from notifier.scheduling.cluster.peer_load import PeerLoad
from notifier.scheduling.consumers.deployment import Cluster, Deployment, Gates
from notifier.scheduling.consumers.pool import ConsumerPool
from notifier.scheduling.rates.provider_rate import ProviderRate


class SingleWorker:
    """A deployment without other workers; `part` is this worker's share of the consumers."""

    def __init__(self, part: float = 1.0) -> None:
        self._part = part

    def share(self) -> float:
        return self._part

    def peer_load(self) -> Mapping[QueueKey, PeerLoad]:
        return {}

    def is_alive(self) -> bool:
        return True


class Peers(SingleWorker):
    """A deployment of several workers of equal size, each pool knowing the figures of the others.

    `me` is this worker's index in `pools`, which may be filled later.
    """

    def __init__(self, pools: Sequence[ConsumerPool], me: int, workers: int) -> None:
        super().__init__(1 / workers)
        self._pools = pools
        self._me = me

    def peer_load(self) -> Mapping[QueueKey, PeerLoad]:
        figures = [pool.figures() for number, pool in enumerate(self._pools) if number != self._me]
        queues = {queue for peer in figures for queue in peer}
        return {
            queue: PeerLoad(
                sum(peer[queue].held for peer in figures),
                sum(peer[queue].done_per_s for peer in figures),
            )
            for queue in queues
        }


class FakeGates:
    """Permissions set by the test; a queue that is not set is ALLOWED."""

    def __init__(self) -> None:
        self.permissions: dict[QueueKey, SendPermission] = {}

    def permission(self, queue: QueueKey) -> SendPermission:
        return self.permissions.get(queue, SendPermission.ALLOWED)


def deployment(
    *,
    cluster: Cluster | None = None,
    gates: Gates | None = None,
    rates: Mapping[QueueKey, ProviderRate] | None = None,
) -> Deployment:
    """A single worker whose queues are all allowed and have no provider rate."""
    return Deployment(
        cluster=cluster or SingleWorker(), gates=gates or FakeGates(), rates=rates or {}
    )
