"""A receiver that records its messages and lets a test wait for them."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.ports.broker import Broker, Depth, Message, Pointer, Subscription

QUEUES = tuple(
    QueueKey(Channel(channel), priority)
    for channel, priority in itertools.product(("email", "sms", "push"), Priority)
)
EMAIL_LOW = QueueKey(Channel("email"), Priority.LOW)
TIMEOUT_S = 60.0
"""The longest time without any progress; how long all of it takes depends on the machine."""


class CountingObserver:
    """Implements notifier.ports.observer.BrokerObserver."""

    def __init__(self) -> None:
        self.unreadable_count = 0
        self.refused_count = 0
        self.foreign_count = 0

    def message_unreadable(self) -> None:
        self.unreadable_count += 1

    def foreign_pointers_received(self, count: int) -> None:
        self.foreign_count += count

    def queues_refused(self, count: int) -> None:
        self.refused_count = count


class RecordingReceiver:
    """The messages of one subscription, in their order. With `acks` each is acked at once."""

    def __init__(self, *, acks: bool) -> None:
        self.messages: list[Message] = []
        self.connection_losses = 0
        self._acks = acks
        self._subscription: Subscription | None = None
        self._changed = asyncio.Event()

    @property
    def subscription(self) -> Subscription:
        assert self._subscription is not None
        return self._subscription

    @property
    def ids(self) -> list[NotificationId]:
        return [pointer.id for pointer in self.pointers]

    @property
    def pointers(self) -> list[Pointer]:
        return [pointer for message in self.messages for pointer in message.pointers]

    def attach(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def deliver(self, message: Message) -> None:
        self.messages.append(message)
        if self._acks:
            self.subscription.ack(message)
        self._changed.set()

    def connection_lost(self) -> None:
        self.connection_losses += 1
        self._changed.set()

    def ack(self, messages: Iterable[Message]) -> None:
        for message in list(messages):
            self.subscription.ack(message)

    async def wait_for(self, count: int) -> None:
        await self.wait_until(lambda: len(self.messages) >= count)

    async def wait_for_loss(self, count: int) -> None:
        await self.wait_until(lambda: self.connection_losses == count)

    async def wait_for_all(self, pointers: Iterable[Pointer]) -> None:
        expected = {pointer.id for pointer in pointers}
        await self.wait_until(lambda: expected <= set(self.ids))

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            async with asyncio.timeout(TIMEOUT_S):
                await self._changed.wait()


@asynccontextmanager
async def subscribed(
    broker: Broker, queue: QueueKey = EMAIL_LOW, *, prefetch: int = 0, acks: bool = False
) -> AsyncIterator[RecordingReceiver]:
    receiver = RecordingReceiver(acks=acks)
    async with broker.subscribe(queue, receiver) as subscription:
        receiver.attach(subscription)
        if prefetch:
            await subscription.set_prefetch(prefetch)
        yield receiver


def pointers(count: int, queue: QueueKey = EMAIL_LOW) -> list[Pointer]:
    return [
        Pointer(queue=queue, id=NotificationId(uuid.uuid4()), claim=n, published_at=1.5 + n)
        for n in range(count)
    ]


async def wait_until_ready(broker: Broker, ready: int, queue: QueueKey = EMAIL_LOW) -> Depth:
    """Wait until the broker reports `ready` messages in the queue."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            depth = (await broker.depths()).get(queue)
            if depth is not None and depth.ready == ready:
                return depth
            await asyncio.sleep(0.01)


async def publish_until_confirmed(broker: Broker, pointers: Iterable[Pointer]) -> None:
    """Publish unconfirmed pointers again until all are confirmed, as the relay does."""
    missing = list(pointers)
    async with asyncio.timeout(TIMEOUT_S):
        while missing:
            confirmed = await broker.publish(missing)
            missing = [pointer for pointer, ok in zip(missing, confirmed, strict=True) if not ok]
            await asyncio.sleep(0.05)
