"""The sending side of a process, as the rest of the process sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from notifier.domain.breaker import ProviderFigures
from notifier.domain.notification import Channel, QueueKey
from notifier.ports.heartbeat import NO_FIGURES, Figures, QueueFigures
from notifier.scheduling.consumers.pool import ConsumerPool
from notifier.scheduling.gates.breakers import Breakers
from notifier.scheduling.rates.bulkheads import Bulkheads


class _Running(NamedTuple):
    pool: ConsumerPool
    breakers: Breakers
    bulkheads: Bulkheads


class SendingSide:
    """What this process sends with: nothing in an API process, and in a worker before it starts.

    It exists before consumers and breakers, so that heartbeat, gates and prober can refer to it.
    Implements ports.heartbeat.FigureSource and QueueFigureSource, prober.Backlog,
    breakers.UnansweredCalls, queue_gates.PermissionListener and queue_gates.HoldListener.
    """

    def __init__(self) -> None:
        self._running: _Running | None = None
        self._is_stopping = False

    def start(self, pool: ConsumerPool, breakers: Breakers, bulkheads: Bulkheads) -> None:
        """This process sends from now on."""
        self._running = _Running(pool, breakers, bulkheads)

    def start_draining(self) -> None:
        """This process stops: the next heartbeat tells the others to leave it no lease."""
        self._is_stopping = True

    @property
    def is_draining(self) -> bool:
        """Whether this process sends, and has begun to stop."""
        return self._running is not None and self._is_stopping

    def figures(self) -> Figures:
        """What this process reports in its heartbeat."""
        if self._running is None:
            return NO_FIGURES
        return Figures(
            queues=self.queue_figures(),
            providers=self._provider_figures(self._running),
            is_draining=self.is_draining,
        )

    def _provider_figures(self, running: _Running) -> Mapping[str, ProviderFigures]:
        lowered = running.bulkheads.lowered()
        return {
            name: replace(figures, connections=lowered.get(name))
            for name, figures in running.breakers.figures().items()
        }

    def consumers(self) -> int:
        """How many consumers this process has."""
        return self._running.pool.consumers if self._running else 0

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        """This process's figures of each queue."""
        return self._running.pool.figures() if self._running else {}

    def has_work(self, queue: QueueKey) -> bool:
        """Whether a message of the queue waits that this process could send."""
        return self._running is not None and self._running.pool.has_work(queue)

    def unanswered_s(self, channel: Channel) -> float:
        """For how long the calls of a channel have had no answer; 0 if none runs."""
        return self._running.pool.unanswered_s(channel) if self._running else 0.0

    def holds_added(self) -> None:
        """Give back what was claimed and not begun: it may be of a tenant or tag that is paused."""
        if self._running:
            self._running.pool.return_claims()

    def permissions_changed(self) -> None:
        """Stop the queues that may not send at once, and start the others soon."""
        if self._running:
            self._running.pool.apply_permissions()
