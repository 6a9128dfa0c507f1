"""A subscription: one lane's consumer of one queue, with a separate channel.

The channel's task alone makes RPCs, so that consume, qos and cancel never interleave. A prefetch
applies to consumers registered after it. A resize therefore consumes again under a new tag, then
cancels the old consumer and waits for the confirmation. Messages are never nacked, except for those
of another deployment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from structlog import get_logger
from typing_extensions import override

from notifier.adapters.rabbitmq.channel_owner import ChannelOwner
from notifier.adapters.rabbitmq.channels import CLOSE_TIMEOUT_S
from notifier.adapters.rabbitmq.connection import RabbitConnection
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.shared_state import SharedState
from notifier.adapters.rabbitmq.tags import DeliveryTags
from notifier.adapters.rabbitmq.topology import RPC_TIMEOUT_S, queue_name
from notifier.adapters.rabbitmq.wire import UnreadableMessage, decode
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.notification import QueueKey
from notifier.ports.broker import Message, Pointer, Receiver
from notifier.ports.observer import BrokerObserver

if TYPE_CHECKING:
    from aiormq.channel import Channel

MAX_PREFETCH: Final = 65_535  # an unsigned short on the wire


class ChannelSession:
    """The state of one channel. Its delivery tags have no meaning on another channel."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.tags = DeliveryTags()
        self.consumer_tag: str | None = None
        self.prefetch = 0
        self.failure: str | None = None
        self.foreign: list[int] = []
        """Delivery tags of messages of another deployment, to be put back."""
        self._sending = asyncio.Lock()

    @property
    def is_over(self) -> bool:
        """Whether the channel must be replaced."""
        return self.failure is not None or self.channel.is_closed

    async def send_acks(self, *, with_returns: bool = False) -> None:
        """Ack the messages settled since the last call. Raises BrokerUnavailable.

        `with_returns` puts the foreign ones back.

        On a dead connection it may wait for ever, because the driver's write queue is full.
        """
        async with self._sending:
            while with_returns and self.foreign:
                tag = self.foreign.pop()
                with translated():
                    await self.channel.basic_nack(tag, requeue=True, wait=False)
                self.tags.returned(tag)
            for ack in self.tags.take_batch():
                with translated():
                    await self.channel.basic_ack(ack.tag, multiple=ack.multiple, wait=False)


class Rest(Enum):
    """A consumer rests while it puts the messages of another deployment back.

    They would come back at once to a consumer that has room. PLANNED: it still consumes. BEGUN: the
    messages go back once the consumer has ended. ENDING: it waits before it consumes again.
    """

    NONE = auto()
    PLANNED = auto()
    BEGUN = auto()
    ENDING = auto()


class _Tag(NamedTuple):
    """The channel that delivered a message, and its delivery tag there."""

    session: ChannelSession
    number: int


class RabbitSubscription(ChannelOwner):
    """Implements notifier.ports.broker.Subscription."""

    def __init__(
        self,
        connection: RabbitConnection,
        shared: SharedState,
        queue: QueueKey,
        receiver: Receiver,
        observer: BrokerObserver,
    ) -> None:
        super().__init__(connection, str(queue), [queue], shared.new_backoff())
        self.queue = queue
        self.opened = asyncio.Event()
        """Set once the first channel is open."""
        self._receiver = receiver
        self._receiver_error: Exception | None = None
        self._observer = observer
        self._batch_sizes = shared.batch_sizes
        self._declarations = shared.declarations
        self._deployment = shared.deployment
        self._foreign = shared.foreign
        self._session: ChannelSession | None = None
        self._prefetch = 0
        self._rest = Rest.NONE
        self._settled = asyncio.Event()
        self._resizes: list[asyncio.Future[None]] = []

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has confirmed a consumer and its channel is open."""
        session = self._session
        return session is not None and not session.is_over and session.prefetch > 0

    @property
    def _wanted_prefetch(self) -> int:
        return self._prefetch if self._rest in {Rest.NONE, Rest.PLANNED} else 0

    async def set_prefetch(self, prefetch: int) -> None:
        if not 0 <= prefetch <= MAX_PREFETCH:
            raise ValueError(f"prefetch must be 0 to {MAX_PREFETCH}, not {prefetch}")
        self._prefetch = prefetch
        self._wake.set()
        if self._session is None:
            return
        resize: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._resizes.append(resize)
        await resize

    def ack(self, message: Message) -> None:
        tag = message.tag
        if not isinstance(tag, _Tag) or tag.session is not self._session:
            return
        if tag.session.tags.settle(tag.number):
            self._settled.set()

    def rebuild(self, reason: str) -> None:
        """Replace the channel. The broker delivers unacked messages again."""
        if self._session is not None:
            self._fail(self._session, reason)

    @override
    async def _prepare(self, connection: AbstractConnection) -> None:
        await super()._prepare(connection)
        # A refused queue may be somebody else's: consuming from it would take their messages.
        await self._declarations.wait_until_accepted(self.queue)

    async def _use(self, channel: Channel) -> None:
        session = ChannelSession(channel)
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self._fail(session, "RabbitMQ cancelled the consumer")
        )
        self._session = session
        self.opened.set()
        async with asyncio.TaskGroup() as group:
            acks = group.create_task(self._send_acks(session), name=f"acks {self.queue}")
            try:
                await self._serve(session)
            finally:
                acks.cancel()
        if session.failure and not self._is_stopping:
            raise BrokerUnavailable(session.failure)

    def _release(self) -> None:
        session, self._session = self._session, None
        self._end_resizes()
        if session is not None and not self._is_stopping:
            self._receiver.connection_lost()

    async def _serve(self, session: ChannelSession) -> None:
        try:
            while not (self._is_stopping or session.is_over):
                self._wake.clear()
                await self._resize(session)
                await self._return_foreign(session)
                self._backoff.reset()
                await self._wake.wait()
                if self._receiver_error is not None:
                    raise self._receiver_error
            if self._is_stopping:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await session.send_acks()
        except (BrokerUnavailable, TimeoutError) as error:
            session.failure = str(error)

    async def _resize(self, session: ChannelSession) -> None:
        while session.prefetch != self._wanted_prefetch and not session.is_over:
            prefetch, old_tag = self._wanted_prefetch, session.consumer_tag
            session.consumer_tag = await self._consume(session, prefetch) if prefetch else None
            if old_tag is not None:
                with translated():
                    await session.channel.basic_cancel(old_tag, timeout=RPC_TIMEOUT_S)
            session.prefetch = prefetch
        self._end_resizes()

    async def _consume(self, session: ChannelSession, prefetch: int) -> str:
        consumer_tag = uuid4().hex  # RabbitMQ 3.10 can crash the channel when a tag is used twice
        with translated():
            await session.channel.basic_qos(prefetch_count=prefetch, timeout=RPC_TIMEOUT_S)
            await session.channel.basic_consume(
                queue_name(self.queue),
                partial(self._received, session),
                consumer_tag=consumer_tag,
                timeout=RPC_TIMEOUT_S,
            )
        return consumer_tag

    async def _received(self, session: ChannelSession, message: DeliveredMessage) -> None:
        try:
            if session is self._session and not self._is_stopping:
                self._deliver(session, message)
        except Exception as error:  # noqa: BLE001 the driver's task would drop it: `run` raises it
            self._receiver_error = error
            self._wake.set()

    def _deliver(self, session: ChannelSession, message: DeliveredMessage) -> None:
        number = message.delivery_tag or 0
        session.tags.deliver(number)
        try:
            pointers, deployment = decode(
                message.body, routing_key=message.routing_key, queue=self.queue
            )
        except UnreadableMessage as error:
            log = get_logger(__name__)
            log.warning("message_unreadable", queue=str(self.queue), reason=str(error))
            self._observer.message_unreadable()
            session.tags.settle(number)
            self._settled.set()
            return
        if self._deployment.is_foreign(deployment):
            self._hold_foreign(session, message, pointers, deployment)
            return
        self._batch_sizes.record(self.queue, len(pointers))
        self._receiver.deliver(Message(pointers, bool(message.redelivered), _Tag(session, number)))

    def _hold_foreign(
        self,
        session: ChannelSession,
        message: DeliveredMessage,
        pointers: Sequence[Pointer],
        deployment: str,
    ) -> None:
        """Hold a message of another deployment until the next rest; ack it after many returns."""
        self._foreign.record(self.queue, len(pointers), deployment)
        number = message.delivery_tag or 0
        headers = message.header.properties.headers or {}
        if self._foreign.is_unwanted(headers, pointers[0].published_at):
            session.tags.settle(number)
            self._settled.set()
            return
        session.foreign.append(number)
        if self._rest is Rest.NONE:
            self._rest = Rest.PLANNED
            self._rest_later(Rest.BEGUN)

    async def _return_foreign(self, session: ChannelSession) -> None:
        """While this consumer rests, put the foreign messages back for the other deployment."""
        if self._rest is Rest.BEGUN:
            self._rest = Rest.ENDING
            await session.send_acks(with_returns=True)
            self._rest_later(Rest.NONE)

    def _rest_later(self, rest: Rest) -> None:
        asyncio.get_running_loop().call_later(self._foreign.pause_s(), self._change_rest, rest)

    def _change_rest(self, rest: Rest) -> None:
        self._rest = rest
        self._wake.set()

    async def _send_acks(self, session: ChannelSession) -> None:
        """Send acks until cancelled; those of one tick of the event loop go together."""
        with suppress(BrokerUnavailable):  # `_serve` notices the end of the channel
            while True:
                await self._settled.wait()
                self._settled.clear()
                await session.send_acks()

    def _fail(self, session: ChannelSession, reason: str) -> None:
        session.failure = reason
        self._wake.set()

    def _end_resizes(self) -> None:
        resizes, self._resizes = self._resizes, []
        for resize in resizes:
            if not resize.done():
                resize.set_result(None)
