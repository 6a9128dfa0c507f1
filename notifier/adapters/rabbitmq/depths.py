"""Polling the depths: a passive declare of each queue, live from its leader, on an own channel.

Answers come from the driver's channel itself: aio-pika's queue objects repeat their first answer
for ever. A quorum queue whose leader is missing or slow answers 0 ready, 0 consumers; from a
process that consumes there, that says "unknown". The same poll is the watchdog over our consumers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

from aiormq.abc import AbstractChannel, AbstractConnection

from notifier.adapters.rabbitmq.batch_size import BatchSizeEstimate
from notifier.adapters.rabbitmq.connection import (
    RabbitConnection,
    close_channel,
    end_of,
    keep_alive,
    open_channel,
    when_closed,
)
from notifier.adapters.rabbitmq.connection_state import ConnectionState
from notifier.adapters.rabbitmq.errors import translated
from notifier.adapters.rabbitmq.shared_request import SharedRequest
from notifier.adapters.rabbitmq.topology import RPC_TIMEOUT_S, declare, queue_name
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Backoff, wait
from notifier.ports.broker import Depth

POLL_TIMEOUT_S: Final = 2.0
WATCH_EVERY_S: Final = 1.0


class Consuming(Protocol):
    """A subscription, as the watchdog sees it."""

    @property
    def queue(self) -> QueueKey: ...
    @property
    def consumes(self) -> bool:
        """Whether the broker has confirmed a consumer of it."""
        ...

    def rebuild(self, reason: str) -> None:
        """Give up its channel and begin a new one."""
        ...


class Depths:
    """The channel that polls, and the task that keeps it."""

    def __init__(
        self,
        link: RabbitConnection,
        queues: Sequence[QueueKey],
        subscriptions: Iterable[Consuming],
        *,
        connection_state: ConnectionState,
        batch_sizes: BatchSizeEstimate,
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        self._link = link
        self._queues = queues
        self._subscriptions = subscriptions
        self._connection_state = connection_state
        self._batch_sizes = batch_sizes
        self._backoff = backoff
        self._clock = clock
        self._channel: AbstractChannel | None = None
        self._stopping = False
        self._wake = asyncio.Event()
        self._asked: SharedRequest[Mapping[QueueKey, Depth]] = SharedRequest(self._wake)
        self._asked_for = set[QueueKey]()
        self._missing_since: dict[Consuming, float] = {}

    async def read(self, queues: Collection[QueueKey]) -> Mapping[QueueKey, Depth]:
        """See `notifier.ports.broker.Broker.depths`."""
        if self._channel is None:
            return {}
        self._asked_for.update(queues)
        return await self._asked.ask(within_s=POLL_TIMEOUT_S, otherwise={})

    async def run(self) -> None:
        """Keep the channel open until `stop`."""
        await keep_alive(self._link, "depths", self._backoff, self._one_life)

    def stop(self, task: asyncio.Task[None]) -> None:
        """End `run`, which is this task. A cancel during an RPC can get lost in the driver."""
        self._stopping = True
        self._wake.set()
        if self._channel is None:
            task.cancel()

    async def _one_life(self, connection: AbstractConnection) -> bool:
        channel = await open_channel(connection)
        when_closed(channel, self._wake.set)
        when_closed(connection, self._wake.set)
        try:
            await self._use(channel)
        finally:
            self._channel = None
            self._missing_since.clear()
            await close_channel(channel)
        if self._stopping:
            return False
        raise end_of(channel)

    async def _use(self, channel: AbstractChannel) -> None:
        await declare(channel, self._queues)
        self._channel = channel
        self._backoff.reset()
        self._connection_state.up(self._link.name)
        while not (self._stopping or channel.is_closed):
            if await wait(self._wake, WATCH_EVERY_S):
                self._wake.clear()
            asked = self._asked.take()
            queues, self._asked_for = self._asked_for or self._queues, set()
            found = await self._poll(channel, queues)
            self._watch(found)
            if asked is not None:
                asked.set_result(self._known(found))

    async def _poll(
        self, channel: AbstractChannel, queues: Collection[QueueKey]
    ) -> dict[QueueKey, Depth]:
        found = {}
        for queue in queues:
            with translated():
                answer = await channel.queue_declare(
                    queue_name(queue), passive=True, timeout=RPC_TIMEOUT_S
                )
            ready = self._batch_sizes.pointers(queue, answer.message_count or 0)
            found[queue] = Depth(ready, answer.consumer_count or 0)
        return found

    def _known(self, found: Mapping[QueueKey, Depth]) -> dict[QueueKey, Depth]:
        ours = {each.queue for each in self._subscriptions if each.consumes}
        nothing = Depth(0, 0)
        return {
            queue: depth
            for queue, depth in found.items()
            if not (depth == nothing and queue in ours)
        }

    def _watch(self, found: Mapping[QueueKey, Depth]) -> None:
        """Rebuild a subscription whose consumer the broker denies on two polls, a while apart.

        Only when messages wait there: 0 and 0 may be a leader that does not answer.
        """
        now = self._clock()
        for each in self._subscriptions:
            if (depth := found.get(each.queue)) is None:
                continue
            if not (each.consumes and depth.consumers == 0 and depth.ready > 0):
                self._missing_since.pop(each, None)
            elif now - self._missing_since.setdefault(each, now) >= WATCH_EVERY_S / 2:
                each.rebuild("RabbitMQ knows no consumer of it")
