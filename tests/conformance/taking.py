"""A subscriber that remembers what it was handed, and lets a test wait for it."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.ports.broker import Broker, Delivery, Depth, Pointer, Subscription

QUEUES = tuple(
    QueueKey(Channel(channel), priority)
    for channel, priority in itertools.product(("email", "sms", "push"), Priority)
)
EMAIL_LOW = QueueKey(Channel("email"), Priority.LOW)
PATIENCE_S = 60.0


class CountingObserver:
    """Implements ports.observer.BrokerObserver."""

    def __init__(self) -> None:
        self.unreadables = 0

    def message_unreadable(self) -> None:
        self.unreadables += 1


class Taker:
    """One subscription's deliveries, in their order. With `acks` each is acked at once."""

    def __init__(self, *, acks: bool) -> None:
        self.deliveries: list[Delivery] = []
        self.losses = 0
        self._acks = acks
        self._subscription: Subscription | None = None
        self._news = asyncio.Event()

    @property
    def subscription(self) -> Subscription:
        assert self._subscription is not None
        return self._subscription

    @property
    def ids(self) -> list[NotificationId]:
        return [delivery.pointer.id for delivery in self.deliveries]

    def begin(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def on_delivery(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self._acks:
            self.subscription.ack(delivery)
        self._news.set()

    def on_lost(self) -> None:
        self.losses += 1
        self._news.set()

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in list(deliveries):
            self.subscription.ack(delivery)

    async def has(self, count: int) -> None:
        await self.until(lambda: len(self.deliveries) >= count)

    async def lost(self, times: int) -> None:
        await self.until(lambda: self.losses == times)

    async def has_all(self, pointers: Iterable[Pointer]) -> None:
        wanted = {pointer.id for pointer in pointers}
        await self.until(lambda: wanted <= set(self.ids))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def taking(
    broker: Broker, queue: QueueKey = EMAIL_LOW, *, prefetch: int = 0, acks: bool = False
) -> AsyncIterator[Taker]:
    taker = Taker(acks=acks)
    async with broker.subscribe(
        queue, on_delivery=taker.on_delivery, on_lost=taker.on_lost
    ) as subscription:
        taker.begin(subscription)
        if prefetch:
            await subscription.set_prefetch(prefetch)
        yield taker


def pointers(count: int, queue: QueueKey = EMAIL_LOW) -> list[Pointer]:
    return [
        Pointer(queue=queue, id=NotificationId(uuid.uuid4()), claim=n, published_at=1.5 + n)
        for n in range(count)
    ]


async def until_ready(broker: Broker, ready: int, queue: QueueKey = EMAIL_LOW) -> Depth:
    """Wait until the broker says that `ready` messages wait in the queue."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            depth = (await broker.depths()).get(queue)
            if depth is not None and depth.ready == ready:
                return depth
            await asyncio.sleep(0.01)


async def until_published(broker: Broker, wanted: Iterable[Pointer]) -> None:
    """Publish what is not confirmed again until all is, as the relay does."""
    missing = list(wanted)
    async with asyncio.timeout(PATIENCE_S):
        while missing:
            answers = await broker.publish(missing)
            missing = [each for each, ok in zip(missing, answers, strict=True) if not ok]
            await asyncio.sleep(0.05)
