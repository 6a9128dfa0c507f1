"""Queue depths, polled on a separate channel by a passive declare of each queue.

The queue's leader answers the declare. aio-pika's queue objects are not used: they repeat
their first answer for ever. A quorum queue whose leader is missing or slow answers 0 ready and 0
consumers; where this process consumes from that queue, such an answer means that the depth is
unknown. The same poll checks that the broker still knows our consumers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from notifier.adapters.rabbitmq.channel_owner import ChannelOwner
from notifier.adapters.rabbitmq.connection import RabbitConnection
from notifier.adapters.rabbitmq.declaration import REDECLARE_INTERVAL_S
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.shared_request import SharedRequest
from notifier.adapters.rabbitmq.shared_state import SharedState
from notifier.adapters.rabbitmq.topology import RPC_TIMEOUT_S, queue_name
from notifier.domain.notification import QueueKey
from notifier.domain.rotation import Rotation
from notifier.lifecycle import Clock, wait
from notifier.ports.broker import Depth

if TYPE_CHECKING:
    from aiormq.channel import Channel

POLL_TIMEOUT_S: Final = 2.0
CHECK_INTERVAL_S: Final = 1.0
MAX_POLLED_ALONE: Final = 12
"""Queues of a poll that nobody asked for."""


class CheckedSubscription(Protocol):
    """A subscription whose consumer the poll checks."""

    @property
    def queue(self) -> QueueKey: ...
    @property
    def is_consuming(self) -> bool:
        """Whether the broker has confirmed its consumer."""
        ...

    def rebuild(self, reason: str) -> None:
        """Replace its channel."""
        ...


class Depths(ChannelOwner):
    """The channel of this process that polls the depths."""

    def __init__(
        self,
        connection: RabbitConnection,
        shared: SharedState,
        subscriptions: Iterable[CheckedSubscription],
        *,
        clock: Clock,
    ) -> None:
        super().__init__(connection, "depths", shared.queues, shared.new_backoff())
        self._subscriptions = subscriptions
        self._connection_state = shared.connection_state
        self._batch_sizes = shared.batch_sizes
        self._refused = shared.declarations.refused
        self._redeclared_at = clock()
        self._clock = clock
        self._request: SharedRequest[Mapping[QueueKey, Depth]] = SharedRequest(self._wake)
        self._requested = set[QueueKey]()
        self._rotation = Rotation()
        self._missing_since: dict[CheckedSubscription, float] = {}

    async def read(self, queues: Collection[QueueKey]) -> Mapping[QueueKey, Depth]:
        """See notifier.ports.broker.Broker.depths."""
        if self._channel is None:
            return {}
        self._requested.update(queues)
        return await self._request.ask(timeout_s=POLL_TIMEOUT_S, default={})

    async def _use(self, channel: Channel) -> None:
        self._backoff.reset()
        self._connection_state.part_works(self._connection.name)
        while not (self._is_stopping or channel.is_closed):
            if await wait(self._wake, CHECK_INTERVAL_S):
                self._wake.clear()
            await self._redeclare()
            request = self._request.take()
            queues, self._requested = self._requested or self._in_turn(), set()
            depths = await self._poll(channel, queues)
            self._check_consumers(depths)
            if request is not None:
                request.set_result(self._known(depths))

    def _release(self) -> None:
        self._missing_since.clear()

    async def _redeclare(self) -> None:
        """Declare the refused queues again, at most every 2 s: they may have been deleted."""
        now = self._clock()
        if self._refused and now - self._redeclared_at >= REDECLARE_INTERVAL_S:
            self._redeclared_at = now
            await self._connection.declare(list(self._refused))

    async def _poll(self, channel: Channel, queues: Collection[QueueKey]) -> dict[QueueKey, Depth]:
        depths = {}
        for queue in queues:
            if queue in self._refused:  # its depth would be that of a queue of somebody else
                continue
            with translated():
                declared = await channel.queue_declare(
                    queue_name(queue), passive=True, timeout=RPC_TIMEOUT_S
                )
            ready = self._batch_sizes.pointers(queue, declared.message_count or 0)
            depths[queue] = Depth(ready, declared.consumer_count or 0)
        return depths

    def _in_turn(self) -> Collection[QueueKey]:
        """Return some of the queues that this process consumes from: all of a few."""
        return self._rotation.take(list(self._consumed()), MAX_POLLED_ALONE)

    def _consumed(self) -> set[QueueKey]:
        return {
            subscription.queue for subscription in self._subscriptions if subscription.is_consuming
        }

    def _known(self, depths: Mapping[QueueKey, Depth]) -> dict[QueueKey, Depth]:
        consumed = self._consumed()
        no_answer = Depth(0, 0)
        return {
            queue: depth
            for queue, depth in depths.items()
            if not (depth == no_answer and queue in consumed)
        }

    def _check_consumers(self, depths: Mapping[QueueKey, Depth]) -> None:
        """Rebuild a subscription whose consumer the broker denies on two polls, 0.5 s apart.

        Only where messages are ready: 0 ready and 0 consumers may be a leader that is away.
        """
        now = self._clock()
        for subscription in self._subscriptions:
            if (depth := depths.get(subscription.queue)) is None:
                continue
            if not (subscription.is_consuming and depth.consumers == 0 and depth.ready > 0):
                self._missing_since.pop(subscription, None)
                continue
            since = self._missing_since.setdefault(subscription, now)
            if now - since >= CHECK_INTERVAL_S / 2:
                subscription.rebuild("RabbitMQ has no consumer of this subscription")
