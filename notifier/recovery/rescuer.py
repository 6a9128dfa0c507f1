"""The rescuer: makes due again what was published and never arrived.

A message is lost when newer ones of its queue were taken long ago, or when the queue has been
empty for longer than the message is out. A slow backlog alone is never taken for lost, nor is what
waited out a pause, an open breaker or an outage.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.controls import SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.ports.observer import RescueReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from notifier.domain.notification import QueueKey
    from notifier.ports.heartbeat import QueueFigures
    from notifier.ports.observer import RecoveryObserver
    from notifier.ports.store import RecoveryStore

CHECK_INTERVAL_S: Final = 1.0
OVERDUE_S: Final = 10.0

log = structlog.get_logger(__name__)


class Rescuer:
    """Looks for lost messages of this worker's queues."""

    def __init__(
        self,
        *,
        store: RecoveryStore,
        observer: RecoveryObserver,
        mine: Callable[[], Mapping[QueueKey, QueueFigures]],
        others: Callable[[], Sequence[Mapping[QueueKey, QueueFigures]]],
        permission: Callable[[QueueKey], SendPermission],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._observer = observer
        self._mine = mine
        self._others = others
        self._permission = permission
        self._clock = clock
        self._barred_at: dict[QueueKey, float] = {}

    async def run_once(self) -> int:
        """One pass; how many rows it made due again, at most 500 a queue."""
        rescued = 0
        try:
            for queue, before in (await self._overdue()).items():
                count = await self._store.rescue(queue, before)
                if count:
                    log.warning("lost_messages_rescued", queue=str(queue), count=count)
                    self._observer.rescued(queue, count, RescueReason.MESSAGE_LOST)
                rescued += count
        except StoreUnavailable as error:
            log.debug("rescue_failed", reason=str(error))
            self._bar(self._mine())  # what the others last said of them is as old as the outage
        return rescued

    async def _overdue(self) -> Mapping[QueueKey, float]:
        """Per queue, the instant (Postgres's, seconds since the epoch) before which all is lost."""
        mine, others = self._mine(), self._others()
        self._bar(queue for queue in mine if self._permission(queue) is not SendPermission.ALLOWED)
        if not any(_is_telling(figures) for figures in mine.values()):
            return {}
        now = await self._store.database_now()
        instants = {
            queue: overdue_before(
                figures, [other[queue] for other in others if queue in other], now=now
            )
            for queue, figures in mine.items()
            if not self._is_barred(queue)
        }
        return {queue: before for queue, before in instants.items() if before is not None}

    def _bar(self, queues: Iterable[QueueKey]) -> None:
        """From now on, and for 10 s more, what is known of these is no evidence of a loss.

        Nobody may take what waits there. That newer messages were taken before says nothing of it:
        a worker that died meanwhile left its own at the head of the queue.
        """
        self._barred_at |= dict.fromkeys(queues, self._clock())

    def _is_barred(self, queue: QueueKey) -> bool:
        return self._clock() - self._barred_at.get(queue, -inf) <= OVERDUE_S


def _is_telling(figures: QueueFigures) -> bool:
    return figures.mark is not None or figures.drained_s > OVERDUE_S


def overdue_before(
    mine: QueueFigures, others: Sequence[QueueFigures], *, now: float
) -> float | None:
    """The instant before which a published message of this queue is lost, None if none is for sure.

    `mine` is this worker's side of the queue, `others` what the other workers' heartbeats say;
    `now` and the result are Postgres's clock in seconds since the epoch.
    """
    everyone = [mine, *others]
    if mine.drained_s > OVERDUE_S and not any(figures.held for figures in everyone):
        return now - OVERDUE_S
    if mine.mark is None:
        return None
    held_since = [of.held_since for of in everyone if of.held_since is not None]
    return min([mine.mark - OVERDUE_S, *held_since])
