"""A broker in the memory of one process, for `notifier dev`: RabbitMQ's semantics without a wire.

First in, first out per queue; subscriptions take turns; each holds at most its prefetch; what is
unacked when a subscription ends returns to the head of its queue as redelivered. Losing it all
with the process is allowed: Postgres holds the truth.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from notifier.domain.notification import QueueKey
from notifier.ports.broker import ONE_EACH, Broker, Delivery, Depth, Pointer, Subscription


@asynccontextmanager
async def open_inprocess_broker(queues: Sequence[QueueKey]) -> AsyncIterator[Broker]:
    """Open a broker with these queues, empty."""
    yield InProcessBroker(queues)


@dataclass(frozen=True, slots=True)
class _Message:
    pointer: Pointer
    redelivered: bool


class InProcessBroker:
    """Implements `notifier.ports.broker.Broker`."""

    def __init__(self, queues: Sequence[QueueKey]) -> None:
        self._queues = {queue: _Queue() for queue in queues}

    async def publish(
        self,
        pointers: Sequence[Pointer],
        max_batch: Mapping[QueueKey, int] = ONE_EACH,  # noqa: ARG002 nothing to be saved here
    ) -> Sequence[bool]:
        return [self._put(pointer) for pointer in pointers]

    async def probe(self) -> bool:
        return True

    async def depths(
        self,
        queues: Collection[QueueKey] = (),  # noqa: ARG002 all are at hand
    ) -> Mapping[QueueKey, Depth]:
        return {key: queue.depth() for key, queue in self._queues.items()}

    @asynccontextmanager
    async def subscribe(
        self,
        queue: QueueKey,
        *,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[], None],  # noqa: ARG002 there is no connection to lose
    ) -> AsyncIterator[Subscription]:
        """See `ports.broker.Broker`. Raises ValueError for a queue this broker does not serve."""
        if queue not in self._queues:
            raise ValueError(f"no such queue: {queue}")
        subscription = _Subscription(self._queues[queue], on_delivery)
        try:
            yield subscription
        finally:
            subscription.end()

    def _put(self, pointer: Pointer) -> bool:
        queue = self._queues.get(pointer.queue)
        if queue is None:
            return False
        queue.put(_Message(pointer, redelivered=False))
        return True


class _Queue:
    """One queue and the turns its subscriptions take."""

    def __init__(self) -> None:
        self._ready: deque[_Message] = deque()
        self._turns: deque[_Subscription] = deque()
        self._is_scheduled = False

    def depth(self) -> Depth:
        return Depth(len(self._ready), len(self._turns))

    def put(self, message: _Message) -> None:
        self._ready.append(message)
        self.schedule()

    def join(self, subscription: _Subscription) -> None:
        if subscription not in self._turns:
            self._turns.append(subscription)
        self.schedule()

    def leave(self, subscription: _Subscription) -> None:
        if subscription in self._turns:
            self._turns.remove(subscription)

    def take_back(self, messages: Sequence[_Message]) -> None:
        """Put unacked messages back before all others, in the order they had."""
        self._ready.extendleft(
            _Message(message.pointer, redelivered=True) for message in reversed(messages)
        )
        self.schedule()

    def schedule(self) -> None:
        """Hand out in the next tick: an ack inside `on_delivery` must not recurse."""
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        self._is_scheduled = False
        passed = 0
        while self._ready and passed < len(self._turns):
            subscription = self._turns[0]
            self._turns.rotate(-1)
            if subscription.has_room:
                passed = 0
                subscription.deliver(self._ready.popleft())
            else:
                passed += 1


class _Subscription:
    """Implements `notifier.ports.broker.Subscription`; a tag is its count of deliveries."""

    def __init__(self, queue: _Queue, on_delivery: Callable[[Delivery], None]) -> None:
        self._queue = queue
        self._on_delivery = on_delivery
        self._prefetch = 0
        self._held: dict[Delivery, _Message] = {}
        self._delivered = 0

    @property
    def max_held(self) -> int:
        return self._prefetch

    @property
    def has_room(self) -> bool:
        return len(self._held) < self._prefetch

    async def set_prefetch(self, prefetch: int) -> None:
        if prefetch < 0:
            raise ValueError(f"prefetch must not be negative: {prefetch}")
        self._prefetch = prefetch
        if prefetch:
            self._queue.join(self)
        else:
            self._queue.leave(self)

    def ack(self, delivery: Delivery) -> None:
        if self._held.pop(delivery, None) is not None:
            self._queue.schedule()

    def deliver(self, message: _Message) -> None:
        self._delivered += 1
        delivery = Delivery(message.pointer, message.redelivered, self._delivered)
        self._held[delivery] = message
        self._on_delivery(delivery)

    def end(self) -> None:
        """Return what is held, in order, and take no more."""
        self._prefetch = 0
        self._queue.leave(self)
        unacked, self._held = list(self._held.values()), {}
        self._queue.take_back(unacked)
