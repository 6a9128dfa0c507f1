"""A broker in the memory of one process, for `notifier dev`: RabbitMQ's semantics without a server.

Each queue is first in, first out. Its subscriptions take turns, and each holds at most its
prefetch. When a subscription ends, its unacked pointers return to the head of the queue as
redelivered. All messages may be lost with the process: Postgres holds the truth.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from notifier.domain.notification import QueueKey
from notifier.ports.broker import (
    UNBATCHED,
    Broker,
    Depth,
    Message,
    Pointer,
    Receiver,
    Subscription,
)


@asynccontextmanager
async def open_inprocess_broker(queues: Sequence[QueueKey]) -> AsyncIterator[Broker]:
    """Open a broker with these queues, empty."""
    yield InProcessBroker(queues)


@dataclass(frozen=True, slots=True)
class _Entry:
    pointer: Pointer
    redelivered: bool


class InProcessBroker:
    """Implements notifier.ports.broker.Broker."""

    def __init__(self, queues: Sequence[QueueKey]) -> None:
        self._queues = {queue: _Queue() for queue in queues}

    async def publish(
        self,
        pointers: Sequence[Pointer],
        max_batch: Mapping[QueueKey, int] = UNBATCHED,  # noqa: ARG002 a message costs nothing here
    ) -> Sequence[bool]:
        return [self._put(pointer) for pointer in pointers]

    async def probe(self) -> bool:
        return True

    async def depths(
        self,
        queues: Collection[QueueKey] = (),  # noqa: ARG002 returns all of them
    ) -> Mapping[QueueKey, Depth]:
        return {key: queue.depth() for key, queue in self._queues.items()}

    def refused_queues(self) -> Mapping[QueueKey, str]:
        return {}

    def foreign_pointers(self) -> Mapping[QueueKey, int]:
        return {}

    @asynccontextmanager
    async def subscribe(self, queue: QueueKey, receiver: Receiver) -> AsyncIterator[Subscription]:
        """See notifier.ports.broker.Broker."""
        if queue not in self._queues:
            raise ValueError(f"no such queue: {queue}")
        subscription = _Subscription(self._queues[queue], receiver)
        try:
            yield subscription
        finally:
            subscription.end()

    def _put(self, pointer: Pointer) -> bool:
        queue = self._queues.get(pointer.queue)
        if queue is None:
            return False
        queue.put(_Entry(pointer, redelivered=False))
        return True


class _Queue:
    """One queue, and the order in which its subscriptions are served."""

    def __init__(self) -> None:
        self._ready: deque[_Entry] = deque()
        self._subscriptions: deque[_Subscription] = deque()
        self._is_scheduled = False

    def depth(self) -> Depth:
        return Depth(len(self._ready), len(self._subscriptions))

    def put(self, entry: _Entry) -> None:
        self._ready.append(entry)
        self.schedule()

    def join(self, subscription: _Subscription) -> None:
        if subscription not in self._subscriptions:
            self._subscriptions.append(subscription)
        self.schedule()

    def leave(self, subscription: _Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def put_back(self, entries: Sequence[_Entry]) -> None:
        """Put unacked messages at the head of the queue, in their former order."""
        self._ready.extendleft(
            _Entry(entry.pointer, redelivered=True) for entry in reversed(entries)
        )
        self.schedule()

    def schedule(self) -> None:
        """Deliver in the next tick of the loop: an ack inside `deliver` must not recurse."""
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver_ready)

    def _deliver_ready(self) -> None:
        self._is_scheduled = False
        skipped = 0
        while self._ready and skipped < len(self._subscriptions):
            subscription = self._subscriptions[0]
            self._subscriptions.rotate(-1)
            if subscription.has_room:
                skipped = 0
                subscription.deliver(self._ready.popleft())
            else:
                skipped += 1


class _Subscription:
    """Implements notifier.ports.broker.Subscription. A message carries one pointer.

    As in RabbitMQ, what is held from before a stop does not count against the next prefetch.
    """

    def __init__(self, queue: _Queue, receiver: Receiver) -> None:
        self._queue = queue
        self._receiver = receiver
        self._prefetch = 0
        self._held: dict[Message, _Entry] = {}
        self._held_before: dict[Message, _Entry] = {}

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
            self._held_before |= self._held
            self._held = {}

    def ack(self, message: Message) -> None:
        if self._held.pop(message, None) is not None:
            self._queue.schedule()
        self._held_before.pop(message, None)

    def deliver(self, entry: _Entry) -> None:
        message = Message((entry.pointer,), entry.redelivered, tag=None)
        self._held[message] = entry
        self._receiver.deliver(message)

    def end(self) -> None:
        """Put all held messages back and stop receiving."""
        self._prefetch = 0
        self._queue.leave(self)
        unacked = [*self._held_before.values(), *self._held.values()]
        self._held, self._held_before = {}, {}
        self._queue.put_back(unacked)
