"""Publishing, pipelined: every message is mandatory, persistent and confirmed by itself.

aio-pika's `exchange.publish` waits for the socket under the channel's lock, and reaches about half
the rate. Here all messages of a call go to the channel at once, and their confirms are awaited
together. The cost of a message, here, in RabbitMQ and in the worker, hardly depends on how many
pointers it carries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from aiormq.channel import Channel
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from notifier.adapters.rabbitmq.channel_owner import ChannelOwner
from notifier.adapters.rabbitmq.channels import is_unblocked
from notifier.adapters.rabbitmq.connection import RabbitConnection
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.shared_request import SharedRequest
from notifier.adapters.rabbitmq.shared_state import SharedState
from notifier.adapters.rabbitmq.topology import EXCHANGE, declare_exchange
from notifier.adapters.rabbitmq.wire import encode
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.notification import QueueKey
from notifier.ports.broker import Pointer

MAX_OUTSTANDING: Final = 1_000
PERSISTENT: Final = 2
PROBE_TIMEOUT_S: Final = 1.0


Indexes = Sequence[int]
"""The pointers of one message, by their index in the list to publish."""


def split_into_messages(
    pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int]
) -> list[Indexes]:
    """Divide pointers into messages. Those of a message have one queue and one `published_at`.

    A pointer with deaths is alone in its message.
    """
    alike = dict[tuple[QueueKey, float, int | None], list[int]]()
    for index, pointer in enumerate(pointers):
        # The row may be what its workers died of. The next death would count for every row that
        # the worker has claimed with it.
        alone = index if pointer.deaths else None
        alike.setdefault((pointer.queue, pointer.published_at, alone), []).append(index)
    return [
        indexes[start : start + max_batch.get(queue, 1)]
        for (queue, _, _), indexes in alike.items()
        for start in range(0, len(indexes), max_batch.get(queue, 1))
    ]


class Publisher(ChannelOwner):
    """The channel of this process that publishes."""

    with_confirms = True

    def __init__(
        self, connection: RabbitConnection, shared: SharedState, *, timeout_s: float
    ) -> None:
        super().__init__(connection, "publish", shared.queues, shared.new_backoff())
        self._timeout_s = timeout_s
        self._connection_state = shared.connection_state
        self._batch_sizes = shared.batch_sizes
        self._refused = shared.declarations.refused
        self._deployment = shared.deployment
        self._deadlines: set[asyncio.Timeout] = set()
        self._outstanding = asyncio.Semaphore(MAX_OUTSTANDING)
        self._message_ids = count(1)
        self._must_declare = False
        self._probe: SharedRequest[bool] = SharedRequest(self._wake)

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int]
    ) -> list[bool]:
        """See notifier.ports.broker.Broker. An unconfirmed pointer may still arrive later."""
        confirmed = [False] * len(pointers)
        channel = self._channel
        if channel is None or not await is_unblocked(channel):
            return confirmed
        messages = self._accepted(pointers, split_into_messages(pointers, max_batch))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s) as deadline:
                self._deadlines.add(deadline)
                try:
                    for start in range(0, len(messages), MAX_OUTSTANDING):
                        chunk = messages[start : start + MAX_OUTSTANDING]
                        await self._publish_chunk(channel, pointers, chunk, confirmed)
                finally:
                    self._deadlines.discard(deadline)
        return confirmed

    async def probe(self) -> bool:
        """Return whether a round trip on the channel succeeds and no alarm blocks it."""
        channel = self._channel
        if channel is None or not await is_unblocked(channel):
            return False
        return await self._probe.ask(timeout_s=PROBE_TIMEOUT_S, default=False)

    def _accepted(
        self, pointers: Sequence[Pointer], messages: Sequence[Indexes]
    ) -> Sequence[Indexes]:
        """Leave out the messages to queues that are refused: they may be somebody else's."""
        if not self._refused:
            return messages
        return [indexes for indexes in messages if pointers[indexes[0]].queue not in self._refused]

    async def _publish_chunk(
        self,
        channel: Channel,
        pointers: Sequence[Pointer],
        messages: Sequence[Indexes],
        confirmed: list[bool],
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(
                    self._publish_one(channel, pointers, message, confirmed), name="publish"
                )

    async def _publish_one(
        self,
        channel: Channel,
        pointers: Sequence[Pointer],
        message: Indexes,
        confirmed: list[bool],
    ) -> None:
        with suppress(BrokerUnavailable):
            async with self._outstanding:
                is_confirmed = await self._confirm(channel, [pointers[index] for index in message])
                for index in message:
                    confirmed[index] = is_confirmed

    async def _confirm(self, channel: Channel, message: Sequence[Pointer]) -> bool:
        queue = message[0].queue
        self._batch_sizes.record(queue, len(message))
        try:
            with translated():
                confirmation = await channel.basic_publish(
                    encode(message, self._deployment.value),
                    exchange=EXCHANGE,
                    routing_key=str(queue),
                    mandatory=True,
                    wait=False,
                    # Unique on the channel: the driver matches returns to publishes by it.
                    properties=Basic.Properties(
                        message_id=str(next(self._message_ids)),
                        delivery_mode=PERSISTENT,
                        content_type="application/json",
                    ),
                )
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, PublishError):  # unroutable
                self._must_declare = True
                self._wake.set()
            return False
        return isinstance(confirmation, Basic.Ack)

    async def _use(self, channel: Channel) -> None:
        self._backoff.reset()
        self._connection_state.part_works(self._connection.name)
        while not (self._is_stopping or channel.is_closed):
            await self._wake.wait()
            self._wake.clear()
            await self._serve(channel)

    async def _serve(self, channel: Channel) -> None:
        if self._must_declare:  # a queue or a binding was deleted
            self._must_declare = False
            await self._connection.declare(self._queues)
        if (request := self._probe.take()) is not None:
            # Not a passive declare: that closes the channel when the exchange is missing. Without a
            # time-out: while an alarm blocks the connection, a cancelled RPC closes the channel.
            await declare_exchange(channel)
            request.set_result(True)

    def _release(self) -> None:
        """End the publishes that wait for the write queue of the lost channel: it never drains."""
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())
