"""The state of every queue, put together from Postgres, the broker and the heartbeats."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from notifier.ports import Depth, QueueState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.notification import QueueKey
    from notifier.ports import Broker, QueueFigures, Store, Waiting
    from notifier.scheduling.membership import Membership

NO_WORKER: Final = "no worker"


class Board:
    """What `GET /v1/queues` shows."""

    def __init__(
        self, *, store: Store, broker: Broker, membership: Membership, queues: Sequence[QueueKey]
    ) -> None:
        self._store = store
        self._broker = broker
        self._membership = membership
        self._queues = queues

    async def queues(self) -> Sequence[QueueState]:
        """One row a queue. Raises StoreUnavailable; what the broker does not know counts as 0."""
        waiting = await self._store.waiting(self._queues)
        depths = await self._broker.depths()
        said = self._membership.figures()
        return [
            _state(queue, waiting.get(queue), depths.get(queue), said.get(queue, ()))
            for queue in self._queues
        ]


def _state(
    queue: QueueKey, waiting: Waiting | None, depth: Depth | None, said: Sequence[QueueFigures]
) -> QueueState:
    limits = Counter(one.limited_by for one in said)
    return QueueState(
        queue=queue,
        ready=depth.ready if depth else 0,
        due=waiting.due if waiting else 0,
        consumers=sum(one.consumers for one in said),
        busy=sum(one.busy for one in said),
        rate_per_s=round(sum(one.done_per_s for one in said), 3),
        oldest_wait_s=round(waiting.oldest_wait.total_seconds(), 3) if waiting else 0.0,
        limited_by=limits.most_common(1)[0][0] if limits else NO_WORKER,
        paused=False,
    )
