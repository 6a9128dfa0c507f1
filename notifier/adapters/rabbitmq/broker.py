"""RabbitMQ as the broker: two connections, one task tree, subscriptions that resume by themselves.

Publishing and consuming have a connection each, because an alarm stops RabbitMQ from reading one
that publishes. Depths are polled on the consuming one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol
from urllib.parse import urlsplit

from notifier.adapters.rabbitmq.batch_size import BatchSizeEstimate
from notifier.adapters.rabbitmq.connection import CLOSE_TIMEOUT_S, RabbitConnection, quieten_driver
from notifier.adapters.rabbitmq.connection_state import ConnectionState
from notifier.adapters.rabbitmq.depths import Depths
from notifier.adapters.rabbitmq.publisher import Publisher
from notifier.adapters.rabbitmq.subscription import RabbitSubscription
from notifier.domain.errors import ConfigError
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Backoff, wait
from notifier.ports.broker import ONE_EACH, Broker, Delivery, Depth, Pointer, Subscription
from notifier.ports.observer import BrokerObserver

OPEN_WAIT_S: Final = 2.0
FIRST_RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 2.0


@asynccontextmanager
async def open_rabbitmq_broker(
    url: str,
    queues: Sequence[QueueKey],
    *,
    observer: BrokerObserver,
    publish_timeout_s: float = 5.0,
    jitter: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Broker]:
    """Open the broker; it is usable at once, also while RabbitMQ is away.

    Waits a moment for a first connection, so that a publish right after it usually works. Leaving
    the block closes channels, then connections, in bounded time. Raises ConfigError for what is
    no AMQP URL.
    """
    _check(url)
    quieten_driver()
    async with asyncio.TaskGroup() as group:
        broker = RabbitBroker(
            url,
            tuple(queues),
            group=group,
            observer=observer,
            publish_timeout_s=publish_timeout_s,
            jitter=jitter,
            clock=clock,
        )
        try:
            await broker.first_try()
            yield broker
        finally:
            await broker.close()


class RabbitBroker:
    """Implements `notifier.ports.broker.Broker`; its tasks are born in `group`."""

    def __init__(
        self,
        url: str,
        queues: Sequence[QueueKey],
        *,
        group: asyncio.TaskGroup,
        observer: BrokerObserver,
        publish_timeout_s: float,
        jitter: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._queues = queues
        self._group = group
        self._observer = observer
        self._jitter = jitter
        self._subscriptions: set[RabbitSubscription] = set()
        self._batch_sizes = BatchSizeEstimate()
        self._connection_state = ConnectionState(("publish", "consume"))
        declaring = asyncio.Lock()
        self._out = self._link(url, "publish", declaring)
        self._in = self._link(url, "consume", declaring)
        self._publisher = Publisher(
            self._out,
            queues,
            timeout_s=publish_timeout_s,
            connection_state=self._connection_state,
            batch_sizes=self._batch_sizes,
            backoff=_backoff(jitter),
        )
        self._depths = Depths(
            self._in,
            queues,
            self._subscriptions,
            connection_state=self._connection_state,
            batch_sizes=self._batch_sizes,
            backoff=_backoff(jitter),
            clock=clock,
        )
        self._channels = self._start((self._publisher, "publisher"), (self._depths, "depths"))
        self._links = self._start((self._out, "publish"), (self._in, "consume"))

    async def first_try(self) -> None:
        """Wait, a moment at most, until it is known whether RabbitMQ is there."""
        await wait(self._connection_state.settled, OPEN_WAIT_S)

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = ONE_EACH
    ) -> Sequence[bool]:
        return await self._publisher.publish(pointers, max_batch)

    async def probe(self) -> bool:
        return await self._publisher.probe()

    async def depths(self, queues: Collection[QueueKey] = ()) -> Mapping[QueueKey, Depth]:
        return await self._depths.read(queues or self._queues)

    @asynccontextmanager
    async def subscribe(
        self,
        queue: QueueKey,
        *,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[], None],
    ) -> AsyncIterator[Subscription]:
        """See `ports.broker.Broker`. Raises ValueError for a queue this broker does not serve."""
        if queue not in self._queues:
            raise ValueError(f"no such queue: {queue}")
        subscription = RabbitSubscription(
            self._in,
            queue,
            on_delivery=on_delivery,
            on_lost=on_lost,
            observer=self._observer,
            batch_sizes=self._batch_sizes,
            backoff=_backoff(self._jitter),
        )
        self._subscriptions.add(subscription)
        task = self._group.create_task(subscription.run(), name=f"subscription {queue}")
        try:
            if self._in.is_connected:
                await wait(subscription.opened, OPEN_WAIT_S)
            yield subscription
        finally:
            subscription.end(task)
            try:
                await asyncio.wait({task}, timeout=2 * CLOSE_TIMEOUT_S)
            finally:
                self._subscriptions.discard(subscription)
                await _end({task})

    async def close(self) -> None:
        """Close the channels, then the connections; both also when cancelled meanwhile."""
        try:
            await _stop(self._channels)
        finally:
            await _stop(self._links)

    def _start(self, *parts: tuple[_Part, str]) -> dict[asyncio.Task[None], _Part]:
        return {
            self._group.create_task(part.run(), name=f"rabbitmq {name}"): part
            for part, name in parts
        }

    def _link(self, url: str, name: str, declaring: asyncio.Lock) -> RabbitConnection:
        return RabbitConnection(
            url,
            name,
            self._queues,
            declaring=declaring,
            connection_state=self._connection_state,
            backoff=_backoff(self._jitter),
        )


class _Part(Protocol):
    async def run(self) -> None: ...
    def stop(self, task: asyncio.Task[None]) -> None: ...


def _backoff(jitter: Callable[[], float]) -> Backoff:
    return Backoff(FIRST_RETRY_S, MAX_RETRY_S, random=jitter)


async def _stop(running: Mapping[asyncio.Task[None], _Part]) -> None:
    for task, part in running.items():
        part.stop(task)
    try:
        await asyncio.wait(running, timeout=2 * CLOSE_TIMEOUT_S)
    finally:
        await _end(running)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until all are done: the driver's wait_for can lose a cancel on Python 3.11.

    What cancels us meanwhile is raised after: left to its group a task might never end.
    """
    interrupted: asyncio.CancelledError | None = None
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=2 * CLOSE_TIMEOUT_S)
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_amqp = parts.scheme in {"amqp", "amqps"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_amqp = False
    if not is_amqp:
        raise ConfigError(
            "broker.url: expected amqp://user:password@host:port/vhost", key="broker.url"
        )
