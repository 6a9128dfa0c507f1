"""The sending side of a process, as the rest of the process sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from notifier.domain.notification import QueueKey
from notifier.ports.heartbeat import Figures, QueueFigures
from notifier.scheduling.consumers.pool import ConsumerPool
from notifier.scheduling.gates.breakers import Breakers


@dataclass(slots=True)
class SendingSide:
    """The consumers and breakers of this process, None while it does not send.

    An API process never sends; a worker sends once its providers are open. Exists before both, so
    that the heartbeat, the gates and the prober can refer to it. Implements
    ports.heartbeat.FigureSource and QueueFigureSource, and prober.Backlog.
    """

    pool: ConsumerPool | None = None
    breakers: Breakers | None = None

    def figures(self) -> Figures:
        """What this process reports in its heartbeat."""
        providers = self.breakers.figures() if self.breakers else {}
        return Figures(queues=self.queue_figures(), providers=providers)

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        """This process's figures of each queue."""
        return self.pool.figures() if self.pool else {}

    def has_work(self, queue: QueueKey) -> bool:
        """Whether a message of the queue waits that this process could send."""
        return self.pool is not None and self.pool.has_work(queue)

    def apply_permissions(self) -> None:
        """Stop at once the queues that may not send any more, and start the others soon."""
        if self.pool:
            self.pool.apply_permissions()
