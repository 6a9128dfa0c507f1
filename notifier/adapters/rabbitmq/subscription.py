"""One lane's hold on one queue: its own channel, rebuilt with its present prefetch when lost.

Only the task in `run` makes RPCs on the channel, so consume, qos and cancel never interleave and
no caller's cancel reaches them. Prefetch applies to consumers registered after it: a resize
consumes anew under a fresh tag, then cancels the old consumer and waits for the broker's word;
messages are never nacked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol
from uuid import uuid4

import msgspec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from structlog import get_logger

from notifier.adapters.rabbitmq.backoff import Backoff
from notifier.adapters.rabbitmq.batch_size import Carried, Prefetch
from notifier.adapters.rabbitmq.connection import (
    CLOSE_TIMEOUT_S,
    Link,
    close_channel,
    end_of,
    keep_alive,
    open_channel,
    when_closed,
)
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.tags import DeliveryTags
from notifier.adapters.rabbitmq.topology import RPC_TIMEOUT_S, declare, queue_name
from notifier.adapters.rabbitmq.wire import UnreadableMessage, decode
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.notification import QueueKey
from notifier.ports import Delivery

MAX_PREFETCH: Final = 65_535  # an unsigned short on the wire


class BrokerObserver(Protocol):
    """The part of `notifier.ports.Observer` a broker needs."""

    def unreadable(self) -> None: ...


class Epoch:
    """One channel's life: its delivery tags mean nothing on any other."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.tags = DeliveryTags()
        self.consumer_tag: str | None = None
        self.prefetch = 0
        self.broken: str | None = None
        self._sending = asyncio.Lock()

    @property
    def is_over(self) -> bool:
        """Whether the channel must be given up."""
        return self.broken is not None or self.channel.is_closed

    async def send_acks(self) -> None:
        """Send what was settled since the last time. Raises BrokerUnavailable.

        On a dead connection it may wait for ever: the driver's write queue is full by then.
        """
        async with self._sending:
            for ack in self.tags.take_batch():
                with translated():
                    await self.channel.basic_ack(ack.tag, multiple=ack.multiple, wait=False)


class _Tag(msgspec.Struct, frozen=True):
    """A message, and what of it is not settled yet."""

    epoch: Epoch
    number: int
    left: set[Delivery]


class RabbitSubscription:
    """Implements `notifier.ports.Subscription`; `run` is its task."""

    def __init__(
        self,
        link: Link,
        queue: QueueKey,
        *,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[], None],
        observer: BrokerObserver,
        carried: Carried,
        backoff: Backoff,
    ) -> None:
        self.queue = queue
        self._link = link
        self._on_delivery = on_delivery
        self._on_lost = on_lost
        self._observer = observer
        self._carried = carried
        self._backoff = backoff
        self._epoch: Epoch | None = None
        self._prefetch = Prefetch()
        self._ending = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._applying: list[asyncio.Future[None]] = []
        self._mistake: Exception | None = None
        self.opened = asyncio.Event()  # its first channel is there

    @property
    def consumes(self) -> bool:
        """Whether the broker has confirmed a consumer and it was not given up since."""
        epoch = self._epoch
        return epoch is not None and not epoch.is_over and epoch.prefetch > 0

    @property
    def held_most(self) -> int:
        """See `notifier.ports.Subscription`."""
        return self._prefetch.held_most

    async def set_prefetch(self, prefetch: int) -> None:
        if not 0 <= prefetch <= MAX_PREFETCH:
            raise ValueError(f"prefetch must be 0 to {MAX_PREFETCH}, not {prefetch}")
        self._prefetch.pointers = prefetch
        self._wake.set()
        if self._epoch is None:
            return
        applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._applying.append(applied)
        await applied

    def ack(self, delivery: Delivery) -> None:
        tag = delivery.tag
        if not isinstance(tag, _Tag) or tag.epoch is not self._epoch:
            return
        tag.left.discard(delivery)
        if not tag.left and tag.epoch.tags.settle(tag.number):
            self._settled.set()

    def rebuild(self, reason: str) -> None:
        """Give up the channel and begin a new one; what is unacked is delivered again."""
        if self._epoch is not None:
            self._break(self._epoch, reason)

    def end(self, task: asyncio.Task[None]) -> None:
        """Ask `run`, which is this task, to flush the acks, close the channel and return."""
        self._ending = True
        self._wake.set()
        if self._epoch is None:
            task.cancel()

    async def run(self) -> None:
        """Keep the subscription until `end`."""
        await keep_alive(self._link, str(self.queue), self._backoff, self._one_life)

    async def _one_life(self, connection: AbstractConnection) -> bool:
        channel = await open_channel(connection)
        when_closed(channel, self._wake.set)
        when_closed(connection, self._wake.set)
        epoch = Epoch(channel)
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self._break(epoch, "RabbitMQ cancelled the consumer")
        )
        try:
            await declare(channel, [self.queue])
            await self._use(epoch)
        finally:
            await self._give_up(epoch)
        if self._ending:
            return False
        raise BrokerUnavailable(epoch.broken) if epoch.broken else end_of(channel)

    async def _use(self, epoch: Epoch) -> None:
        self._epoch = epoch
        self.opened.set()
        async with asyncio.TaskGroup() as group:
            acks = group.create_task(self._ack_in_batches(epoch), name=f"acks {self.queue}")
            try:
                await self._serve(epoch)
            finally:
                acks.cancel()

    async def _serve(self, epoch: Epoch) -> None:
        try:
            while not (self._ending or epoch.is_over):
                self._wake.clear()
                await self._apply(epoch)
                self._backoff.reset()
                await self._wake.wait()
                if self._mistake is not None:
                    raise self._mistake
            if self._ending:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await epoch.send_acks()
        except (BrokerUnavailable, TimeoutError) as error:
            epoch.broken = str(error)

    async def _apply(self, epoch: Epoch) -> None:
        while epoch.prefetch != self._prefetch.messages and not epoch.is_over:
            wanted, old = self._prefetch.messages, epoch.consumer_tag
            epoch.consumer_tag = await self._consume(epoch, wanted) if wanted else None
            if old is not None:
                with translated():
                    await epoch.channel.basic_cancel(old, timeout=RPC_TIMEOUT_S)
            epoch.prefetch = wanted
        self._release_waiters()

    async def _consume(self, epoch: Epoch, prefetch: int) -> str:
        fresh = uuid4().hex  # RabbitMQ 3.10 can crash the channel when a tag is used twice
        with translated():
            await epoch.channel.basic_qos(prefetch_count=prefetch, timeout=RPC_TIMEOUT_S)
            await epoch.channel.basic_consume(
                queue_name(self.queue),
                partial(self._received, epoch),
                consumer_tag=fresh,
                timeout=RPC_TIMEOUT_S,
            )
        return fresh

    async def _received(self, epoch: Epoch, message: DeliveredMessage) -> None:
        try:
            if epoch is self._epoch and not self._ending:
                self._hand_over(epoch, message)
        except Exception as error:  # noqa: BLE001 it would vanish in the driver's task: `run` raises it
            self._mistake = error
            self._wake.set()

    def _hand_over(self, epoch: Epoch, message: DeliveredMessage) -> None:
        number = message.delivery_tag or 0
        epoch.tags.deliver(number)
        try:
            pointers = decode(message.body, routing_key=message.routing_key, queue=self.queue)
        except UnreadableMessage as error:
            log = get_logger(__name__)
            log.warning("unreadable_message", queue=str(self.queue), reason=str(error))
            self._observer.unreadable()
            epoch.tags.settle(number)
            self._settled.set()
            return
        self._carried.saw(self.queue, len(pointers))
        if self._prefetch.follow(self._carried.mean(self.queue)):
            self._wake.set()
        tag = _Tag(epoch, number, set())
        deliveries = [Delivery(pointer, bool(message.redelivered), tag) for pointer in pointers]
        tag.left.update(deliveries)  # all, before the first is settled
        for delivery in deliveries:
            self._on_delivery(delivery)

    async def _ack_in_batches(self, epoch: Epoch) -> None:
        """Send acks as they come, all of one event-loop tick together, until cancelled."""
        with suppress(BrokerUnavailable):  # the end of the channel is noticed in `_serve`
            while True:
                await self._settled.wait()
                self._settled.clear()
                await epoch.send_acks()

    def _break(self, epoch: Epoch, reason: str) -> None:
        epoch.broken = reason
        self._wake.set()

    async def _give_up(self, epoch: Epoch) -> None:
        carried, self._epoch = self._epoch is epoch, None
        self._release_waiters()
        if carried and not self._ending:
            self._on_lost()
        await close_channel(epoch.channel)

    def _release_waiters(self) -> None:
        waiting, self._applying = self._applying, []
        for applied in waiting:
            if not applied.done():
                applied.set_result(None)
