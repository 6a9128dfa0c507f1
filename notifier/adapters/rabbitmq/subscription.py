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
from typing import Final
from uuid import uuid4

import msgspec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from structlog import get_logger

from notifier.adapters.rabbitmq.batch_size import BatchSizeEstimate, Prefetch
from notifier.adapters.rabbitmq.connection import (
    CLOSE_TIMEOUT_S,
    RabbitConnection,
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
from notifier.lifecycle import Backoff
from notifier.ports.broker import Delivery
from notifier.ports.observer import BrokerObserver

MAX_PREFETCH: Final = 65_535  # an unsigned short on the wire


class ChannelSession:
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

    session: ChannelSession
    number: int
    left: set[Delivery]


class RabbitSubscription:
    """Implements `notifier.ports.broker.Subscription`; `run` is its task."""

    def __init__(
        self,
        link: RabbitConnection,
        queue: QueueKey,
        *,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[], None],
        observer: BrokerObserver,
        batch_sizes: BatchSizeEstimate,
        backoff: Backoff,
    ) -> None:
        self.queue = queue
        self._link = link
        self._on_delivery = on_delivery
        self._on_lost = on_lost
        self._observer = observer
        self._batch_sizes = batch_sizes
        self._backoff = backoff
        self._session: ChannelSession | None = None
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
        session = self._session
        return session is not None and not session.is_over and session.prefetch > 0

    @property
    def max_held(self) -> int:
        """See `notifier.ports.broker.Subscription`."""
        return self._prefetch.max_held

    async def set_prefetch(self, prefetch: int) -> None:
        if not 0 <= prefetch <= MAX_PREFETCH:
            raise ValueError(f"prefetch must be 0 to {MAX_PREFETCH}, not {prefetch}")
        self._prefetch.pointers = prefetch
        self._wake.set()
        if self._session is None:
            return
        applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._applying.append(applied)
        await applied

    def ack(self, delivery: Delivery) -> None:
        tag = delivery.tag
        if not isinstance(tag, _Tag) or tag.session is not self._session:
            return
        tag.left.discard(delivery)
        if not tag.left and tag.session.tags.settle(tag.number):
            self._settled.set()

    def rebuild(self, reason: str) -> None:
        """Give up the channel and begin a new one; what is unacked is delivered again."""
        if self._session is not None:
            self._break(self._session, reason)

    def end(self, task: asyncio.Task[None]) -> None:
        """Ask `run`, which is this task, to flush the acks, close the channel and return."""
        self._ending = True
        self._wake.set()
        if self._session is None:
            task.cancel()

    async def run(self) -> None:
        """Keep the subscription until `end`."""
        await keep_alive(self._link, str(self.queue), self._backoff, self._one_life)

    async def _one_life(self, connection: AbstractConnection) -> bool:
        channel = await open_channel(connection)
        when_closed(channel, self._wake.set)
        when_closed(connection, self._wake.set)
        session = ChannelSession(channel)
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self._break(session, "RabbitMQ cancelled the consumer")
        )
        try:
            await declare(channel, [self.queue])
            await self._use(session)
        finally:
            await self._give_up(session)
        if self._ending:
            return False
        raise BrokerUnavailable(session.broken) if session.broken else end_of(channel)

    async def _use(self, session: ChannelSession) -> None:
        self._session = session
        self.opened.set()
        async with asyncio.TaskGroup() as group:
            acks = group.create_task(self._ack_in_batches(session), name=f"acks {self.queue}")
            try:
                await self._serve(session)
            finally:
                acks.cancel()

    async def _serve(self, session: ChannelSession) -> None:
        try:
            while not (self._ending or session.is_over):
                self._wake.clear()
                await self._apply(session)
                self._backoff.reset()
                await self._wake.wait()
                if self._mistake is not None:
                    raise self._mistake
            if self._ending:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await session.send_acks()
        except (BrokerUnavailable, TimeoutError) as error:
            session.broken = str(error)

    async def _apply(self, session: ChannelSession) -> None:
        while session.prefetch != self._prefetch.messages and not session.is_over:
            wanted, old = self._prefetch.messages, session.consumer_tag
            session.consumer_tag = await self._consume(session, wanted) if wanted else None
            if old is not None:
                with translated():
                    await session.channel.basic_cancel(old, timeout=RPC_TIMEOUT_S)
            session.prefetch = wanted
        self._release_waiters()

    async def _consume(self, session: ChannelSession, prefetch: int) -> str:
        fresh = uuid4().hex  # RabbitMQ 3.10 can crash the channel when a tag is used twice
        with translated():
            await session.channel.basic_qos(prefetch_count=prefetch, timeout=RPC_TIMEOUT_S)
            await session.channel.basic_consume(
                queue_name(self.queue),
                partial(self._received, session),
                consumer_tag=fresh,
                timeout=RPC_TIMEOUT_S,
            )
        return fresh

    async def _received(self, session: ChannelSession, message: DeliveredMessage) -> None:
        try:
            if session is self._session and not self._ending:
                self._hand_over(session, message)
        except Exception as error:  # noqa: BLE001 it would vanish in the driver's task: `run` raises it
            self._mistake = error
            self._wake.set()

    def _hand_over(self, session: ChannelSession, message: DeliveredMessage) -> None:
        number = message.delivery_tag or 0
        session.tags.deliver(number)
        try:
            pointers = decode(message.body, routing_key=message.routing_key, queue=self.queue)
        except UnreadableMessage as error:
            log = get_logger(__name__)
            log.warning("message_unreadable", queue=str(self.queue), reason=str(error))
            self._observer.message_unreadable()
            session.tags.settle(number)
            self._settled.set()
            return
        self._batch_sizes.saw(self.queue, len(pointers))
        if self._prefetch.follow(self._batch_sizes.mean(self.queue)):
            self._wake.set()
        tag = _Tag(session, number, set())
        deliveries = [Delivery(pointer, bool(message.redelivered), tag) for pointer in pointers]
        tag.left.update(deliveries)  # all, before the first is settled
        for delivery in deliveries:
            self._on_delivery(delivery)

    async def _ack_in_batches(self, session: ChannelSession) -> None:
        """Send acks as they come, all of one event-loop tick together, until cancelled."""
        with suppress(BrokerUnavailable):  # the end of the channel is noticed in `_serve`
            while True:
                await self._settled.wait()
                self._settled.clear()
                await session.send_acks()

    def _break(self, session: ChannelSession, reason: str) -> None:
        session.broken = reason
        self._wake.set()

    async def _give_up(self, session: ChannelSession) -> None:
        batch_sizes, self._session = self._session is session, None
        self._release_waiters()
        if batch_sizes and not self._ending:
            self._on_lost()
        await close_channel(session.channel)

    def _release_waiters(self) -> None:
        waiting, self._applying = self._applying, []
        for applied in waiting:
            if not applied.done():
                applied.set_result(None)
