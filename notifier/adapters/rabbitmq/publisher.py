"""Publishing, pipelined: every message is mandatory, persistent, confirmed by itself.

Most of what a message costs, here, in RabbitMQ and in the worker, it costs however many pointers it
carries.

The driver's `exchange.publish` waits for the socket under the channel's lock and reaches about half
the rate; here messages of a call are handed to the channel without waiting and their confirms are
awaited together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from aiormq.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from notifier.adapters.rabbitmq.batch_size import BatchSizeEstimate
from notifier.adapters.rabbitmq.connection import (
    RabbitConnection,
    close_channel,
    end_of,
    is_unblocked,
    keep_alive,
    open_channel,
    when_closed,
)
from notifier.adapters.rabbitmq.connection_state import ConnectionState
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.shared_request import SharedRequest
from notifier.adapters.rabbitmq.topology import EXCHANGE, declare
from notifier.adapters.rabbitmq.wire import encode
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Backoff
from notifier.ports.broker import Pointer

OUTSTANDING: Final = 1_000
PERSISTENT: Final = 2
PROBE_TIMEOUT_S: Final = 1.0


Places = Sequence[int]
"""Where in a list the pointers of one message stand."""


def in_messages(pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int]) -> list[Places]:
    """Divide pointers into messages: of one queue and one instant, in their order."""
    alike = dict[tuple[QueueKey, float], list[int]]()
    for place, pointer in enumerate(pointers):
        alike.setdefault((pointer.queue, pointer.published_at), []).append(place)
    return [
        places[start : start + max_batch.get(queue, 1)]
        for (queue, _), places in alike.items()
        for start in range(0, len(places), max_batch.get(queue, 1))
    ]


class Publisher:
    """The one channel that publishes, and the task that keeps it."""

    def __init__(
        self,
        link: RabbitConnection,
        queues: Sequence[QueueKey],
        *,
        timeout_s: float,
        connection_state: ConnectionState,
        batch_sizes: BatchSizeEstimate,
        backoff: Backoff,
    ) -> None:
        self._link = link
        self._queues = queues
        self._timeout_s = timeout_s
        self._connection_state = connection_state
        self._batch_sizes = batch_sizes
        self._backoff = backoff
        self._channel: Channel | None = None
        self._deadlines: set[asyncio.Timeout] = set()
        self._room = asyncio.Semaphore(OUTSTANDING)
        self._message_ids = count(1)
        self._unroutable = False
        self._stopping = False
        self._wake = asyncio.Event()
        self._alive: SharedRequest[bool] = SharedRequest(self._wake)

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int]
    ) -> list[bool]:
        """See `ports.broker.Broker`. What is not confirmed in time may still arrive later."""
        confirmed = [False] * len(pointers)
        channel = self._channel
        if channel is None or not await is_unblocked(channel):
            return confirmed
        messages = in_messages(pointers, max_batch)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s) as deadline:
                self._deadlines.add(deadline)
                try:
                    for start in range(0, len(messages), OUTSTANDING):
                        chunk = messages[start : start + OUTSTANDING]
                        await self._publish_chunk(channel, pointers, chunk, confirmed)
                finally:
                    self._deadlines.discard(deadline)
        return confirmed

    async def probe(self) -> bool:
        """One round trip on the publishing channel, unless it is known to be blocked."""
        channel = self._channel
        if channel is None or not await is_unblocked(channel):
            return False
        return await self._alive.ask(within_s=PROBE_TIMEOUT_S, otherwise=False)

    async def run(self) -> None:
        """Keep the channel open until `stop`."""
        await keep_alive(self._link, "publish", self._backoff, self._one_life)

    def stop(self, task: asyncio.Task[None]) -> None:
        """End `run`, which is this task. A cancel during an RPC can get lost in the driver."""
        self._stopping = True
        self._wake.set()
        if self._channel is None:
            task.cancel()

    async def _publish_chunk(
        self,
        channel: Channel,
        pointers: Sequence[Pointer],
        messages: Sequence[Places],
        done: list[bool],
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(
                    self._publish_one(channel, pointers, message, done), name="publish"
                )

    async def _publish_one(
        self, channel: Channel, pointers: Sequence[Pointer], message: Places, done: list[bool]
    ) -> None:
        with suppress(BrokerUnavailable):
            async with self._room:
                is_in = await self._confirm(channel, [pointers[place] for place in message])
                for place in message:
                    done[place] = is_in

    async def _confirm(self, channel: Channel, message: Sequence[Pointer]) -> bool:
        queue = message[0].queue
        self._batch_sizes.saw(queue, len(message))
        try:
            with translated():
                answer = await channel.basic_publish(
                    encode(message),
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
            if isinstance(error.__cause__, PublishError):
                self._unroutable = True
                self._wake.set()
            return False
        return isinstance(answer, Basic.Ack)

    async def _one_life(self, connection: AbstractConnection) -> bool:
        channel = await open_channel(connection, confirms=True)
        when_closed(channel, self._wake.set)
        when_closed(connection, self._wake.set)
        try:
            await self._use(channel)
        finally:
            self._channel = None
            self._hurry()
            await close_channel(channel)
        if self._stopping:
            return False
        raise end_of(channel)

    def _hurry(self) -> None:
        """End the calls that wait for the lost channel's write queue: nobody empties it."""
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())

    async def _use(self, channel: Channel) -> None:
        await declare(channel, self._queues)
        self._channel = channel
        self._backoff.reset()
        self._connection_state.up(self._link.name)
        while not (self._stopping or channel.is_closed):
            await self._wake.wait()
            self._wake.clear()
            await self._serve(channel)

    async def _serve(self, channel: Channel) -> None:
        if self._unroutable:  # somebody deleted a queue or a binding
            self._unroutable = False
            await declare(channel, self._queues)
        if (asked := self._alive.take()) is not None:
            # Not a passive declare: that closes the channel when the thing is missing. No timeout:
            # while an alarm blocks the connection a cancelled RPC would cost the channel.
            await declare(channel, ())
            asked.set_result(True)
