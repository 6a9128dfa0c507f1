"""What all live processes of the deployment report, this one included."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from notifier.delivery.publish_window import QueueThroughput, worker_capacity
from notifier.domain.notification import QueueKey
from notifier.scheduling.cluster.peer_load import NO_PEER_LOAD, PeerLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.breaker import ProviderFigures
    from notifier.ports.heartbeat import FigureSource, QueueFigures
    from notifier.scheduling.cluster.failure_detector import FailureDetector

MAX_THROUGHPUT_AGE_S: Final = 0.1
API_KINDS: Final = frozenset({"api", "dev"})
"""The kinds of process that accept notifications."""


class ClusterFigures:
    """Sums and lists of the figures. `own` are this process's, `detector` knows its live peers.

    Implements ports.heartbeat.PeerFigures.
    """

    def __init__(self, *, own: FigureSource, detector: FailureDetector) -> None:
        self._own = own
        self._detector = detector
        self._throughput: Mapping[QueueKey, QueueThroughput] = {}
        self._throughput_at = float("-inf")

    def peer_queue_figures(self) -> Sequence[Mapping[QueueKey, QueueFigures]]:
        """Each other live process's figures of its queues."""
        return [peer.queues for peer in self._detector.live()]

    def queue_figures(self) -> Mapping[QueueKey, Sequence[QueueFigures]]:
        """Per queue, the figures of each live process, this one first."""
        by_queue: dict[QueueKey, list[QueueFigures]] = {}
        for queues in self._all_queue_figures():
            for queue, figures in queues.items():
                by_queue.setdefault(queue, []).append(figures)
        return by_queue

    def provider_figures(self) -> Sequence[Mapping[str, ProviderFigures]]:
        """Each live process's figures of the providers it calls, this one first."""
        return [self._own.figures().providers, *(peer.providers for peer in self._detector.live())]

    def workers(self) -> int:
        """How many live processes have consumers."""
        peers = sum(_consumers(queues) > 0 for queues in self.peer_queue_figures())
        return peers + (self._own.consumers() > 0)

    def api_count(self) -> int:
        """How many live processes accept notifications; this one counts as one of them."""
        return 1 + sum(peer.kind in API_KINDS for peer in self._detector.live())

    def share(self) -> float:
        """This process's share of the deployment's consumers; 1 if it has all or none."""
        own = self._own.consumers()
        total = own + sum(_consumers(queues) for queues in self.peer_queue_figures())
        return own / total if own else 1.0

    def peer_load(self) -> Mapping[QueueKey, PeerLoad]:
        """Per queue, what the other live processes hold and finish, and their idle consumers."""
        loads: dict[QueueKey, PeerLoad] = {}
        for queues in self.peer_queue_figures():
            for queue, figures in queues.items():
                load = loads.get(queue, NO_PEER_LOAD)
                loads[queue] = PeerLoad(
                    held=load.held + figures.held,
                    done_per_s=load.done_per_s + figures.done_per_s,
                    idle=load.idle + max(0, figures.consumers - figures.busy),
                )
        return loads

    def throughput(self) -> Mapping[QueueKey, QueueThroughput]:
        """Per queue, the deployment's consumers and throughput.

        That of a queue is computed when it is read, and at most every 100 ms.
        """
        now = time.monotonic()
        if now - self._throughput_at >= MAX_THROUGHPUT_AGE_S:
            self._throughput_at = now
            self._throughput = _Throughput(self._all_queue_figures())
        return self._throughput

    def _all_queue_figures(self) -> Sequence[Mapping[QueueKey, QueueFigures]]:
        return [self._own.figures().queues, *self.peer_queue_figures()]


class _Throughput(Mapping[QueueKey, QueueThroughput]):
    """The sums of some processes' figures. Each is computed once: of many queues few are read."""

    def __init__(self, reports: Sequence[Mapping[QueueKey, QueueFigures]]) -> None:
        self._reports = reports
        self._computed: dict[QueueKey, QueueThroughput] = {}

    def __getitem__(self, queue: QueueKey) -> QueueThroughput:
        computed = self._computed.get(queue)
        if computed is None:
            reports = [report[queue] for report in self._reports if queue in report]
            if not reports:
                raise KeyError(queue)
            computed = self._computed[queue] = QueueThroughput(
                consumers=sum(figures.consumers for figures in reports),
                drain_per_s=sum(figures.done_per_s for figures in reports),
                worker_capacity_per_s=worker_capacity(map(_capacity, reports)),
            )
        return computed

    def __iter__(self) -> Iterator[QueueKey]:
        return iter(dict.fromkeys(queue for report in self._reports for queue in report))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _capacity(figures: QueueFigures) -> float:
    """A worker's capacity; while that is unknown, its throughput."""
    return figures.done_per_s if figures.capacity_per_s is None else figures.capacity_per_s


def _consumers(queues: Mapping[QueueKey, QueueFigures]) -> int:
    return sum(figures.consumers for figures in queues.values())
