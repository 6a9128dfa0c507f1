"""The rescuer: makes messages due again that were published and then lost by RabbitMQ.

A message is lost when newer ones of its queue were delivered long ago, or when the queue has been
empty for longer than the message has been published. A slow backlog is not lost, nor is what waited
during a pause, an open breaker or an outage.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.controls import SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.lifecycle import Clock
from notifier.ports.observer import RescueReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from notifier.domain.notification import QueueKey
    from notifier.lifecycle import Clock
    from notifier.ports.controls import Permissions
    from notifier.ports.heartbeat import PeerFigures, QueueFigures, QueueFigureSource
    from notifier.ports.observer import RecoveryObserver
    from notifier.ports.store import RecoveryStore

CHECK_INTERVAL_S: Final = 1.0
OVERDUE_S: Final = 10.0

log = structlog.get_logger(__name__)


class Rescuer:
    """Finds lost messages of this worker's queues, by its own figures and those of its peers."""

    def __init__(
        self,
        *,
        store: RecoveryStore,
        observer: RecoveryObserver,
        own: QueueFigureSource,
        peers: PeerFigures,
        gates: Permissions,
        clock: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._observer = observer
        self._own = own
        self._peers = peers
        self._gates = gates
        self._clock = clock
        self._ignored_at: dict[QueueKey, float] = {}

    async def run_once(self) -> int:
        """Make lost messages due again, at most 500 per queue; returns how many."""
        total = 0
        try:
            for queue, before in (await self._overdue()).items():
                count = await self._store.rescue(queue, before)
                if count:
                    log.warning("lost_messages_rescued", queue=str(queue), count=count)
                    self._observer.rescued(queue, count, RescueReason.MESSAGE_LOST)
                total += count
        except StoreUnavailable as error:
            log.debug("rescue_failed", reason=str(error))
            # The peers' figures will be as old as the outage is long.
            self._ignore(self._own.queue_figures())
        return total

    async def _overdue(self) -> Mapping[QueueKey, float]:
        """Per queue, the instant before which every published message is lost.

        Instants are Postgres's, in seconds since the epoch. Queues without evidence are left out.
        """
        own, peers = self._own.queue_figures(), self._peers.peer_queue_figures()
        self._ignore(
            queue for queue in own if self._gates.permission(queue) is not SendPermission.ALLOWED
        )
        if not any(_is_evidence(figures) for figures in own.values()):
            return {}
        now = await self._store.database_now()
        instants = {
            queue: overdue_before(
                figures, [peer[queue] for peer in peers if queue in peer], now=now
            )
            for queue, figures in own.items()
            if not self._is_ignored(queue)
        }
        return {queue: before for queue, before in instants.items() if before is not None}

    def _ignore(self, queues: Iterable[QueueKey]) -> None:
        """From now until 10 s later the figures of these queues are no evidence of a loss.

        Their messages may not be taken. The watermark is no evidence either: a worker that died
        meanwhile returned its older messages to the head of the queue.
        """
        self._ignored_at |= dict.fromkeys(queues, self._clock())

    def _is_ignored(self, queue: QueueKey) -> bool:
        return self._clock() - self._ignored_at.get(queue, -inf) <= OVERDUE_S


def _is_evidence(figures: QueueFigures) -> bool:
    return figures.watermark is not None or figures.drained_s > OVERDUE_S


def overdue_before(own: QueueFigures, peers: Sequence[QueueFigures], *, now: float) -> float | None:
    """The instant before which every published message of a queue is lost; None if none surely is.

    `own` are this worker's figures of the queue, `peers` those of the other workers. `now` and the
    result are Postgres's clock, in seconds since the epoch.
    """
    everyone = [own, *peers]
    if own.drained_s > OVERDUE_S and not any(figures.held for figures in everyone):
        return now - OVERDUE_S
    if own.watermark is None:
        return None
    held_since = [figures.held_since for figures in everyone if figures.held_since is not None]
    return min([own.watermark - OVERDUE_S, *held_since])
