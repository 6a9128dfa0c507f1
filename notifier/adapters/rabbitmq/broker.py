"""RabbitMQ as the broker: two connections, and channels that are reopened after every loss.

Publishing and consuming have a connection each, because in an alarm RabbitMQ stops reading from a
connection that publishes. Depths are polled on the consuming one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final, Protocol
from urllib.parse import urlsplit

from notifier.adapters.rabbitmq.channels import CLOSE_TIMEOUT_S
from notifier.adapters.rabbitmq.connection import RabbitConnection, quieten_driver
from notifier.adapters.rabbitmq.depths import Depths
from notifier.adapters.rabbitmq.publisher import Publisher
from notifier.adapters.rabbitmq.shared_state import SharedState
from notifier.adapters.rabbitmq.subscription import RabbitSubscription
from notifier.domain.deployment_id import DeploymentId
from notifier.domain.errors import ConfigError
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Clock, wait
from notifier.ports.broker import UNBATCHED, Broker, Depth, Pointer, Receiver, Subscription
from notifier.ports.observer import BrokerObserver

OPEN_TIMEOUT_S: Final = 2.0


@asynccontextmanager
async def open_rabbitmq_broker(
    url: str,
    queues: Sequence[QueueKey],
    *,
    observer: BrokerObserver,
    deployment: DeploymentId | None = None,
    publish_timeout_s: float = 5.0,
    jitter: Random | None = None,
    clock: Clock = time.monotonic,
) -> AsyncIterator[Broker]:
    """Open the broker; it is usable at once, also while RabbitMQ is unavailable.

    Waits up to 2 s for the first connection, so that a publish right after it usually works.
    Leaving the block closes the channels, then the connections, in bounded time. Raises ConfigError
    for a URL that is not of AMQP.
    """
    _check_url(url)
    quieten_driver()
    async with asyncio.TaskGroup() as group:
        broker = RabbitBroker(
            url,
            SharedState(
                tuple(queues),
                jitter or Random(),  # noqa: S311 jitter, no secret
                observer,
                deployment or DeploymentId(),
            ),
            group=group,
            observer=observer,
            publish_timeout_s=publish_timeout_s,
            clock=clock,
        )
        try:
            await broker.wait_for_first_connect()
            yield broker
        finally:
            await broker.close()


class RabbitBroker:
    """Implements notifier.ports.broker.Broker. Its tasks run in `group`."""

    def __init__(
        self,
        url: str,
        shared: SharedState,
        *,
        group: asyncio.TaskGroup,
        observer: BrokerObserver,
        publish_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._shared = shared
        self._group = group
        self._observer = observer
        self._subscriptions: set[RabbitSubscription] = set()
        self._publishing = RabbitConnection(url, "publish", shared)
        self._consuming = RabbitConnection(url, "consume", shared)
        self._publisher = Publisher(self._publishing, shared, timeout_s=publish_timeout_s)
        self._depths = Depths(self._consuming, shared, self._subscriptions, clock=clock)
        self._channel_tasks = self._start(
            (self._publisher, "publisher"),
            (self._depths, "depths"),
        )
        self._connection_tasks = self._start(
            (self._publishing, "publish"),
            (self._consuming, "consume"),
        )

    async def wait_for_first_connect(self) -> None:
        """Wait up to 2 s until it is known whether RabbitMQ is available."""
        await wait(self._shared.connection_state.known, OPEN_TIMEOUT_S)

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = UNBATCHED
    ) -> Sequence[bool]:
        return await self._publisher.publish(pointers, max_batch)

    async def probe(self) -> bool:
        return await self._publisher.probe()

    async def depths(self, queues: Collection[QueueKey] = ()) -> Mapping[QueueKey, Depth]:
        return await self._depths.read(queues or self._shared.queues)

    def refused_queues(self) -> Mapping[QueueKey, str]:
        return self._shared.declarations.refused

    def foreign_pointers(self) -> Mapping[QueueKey, int]:
        return self._shared.foreign.in_last_minute()

    @asynccontextmanager
    async def subscribe(self, queue: QueueKey, receiver: Receiver) -> AsyncIterator[Subscription]:
        """See notifier.ports.broker.Broker."""
        if queue not in self._shared.queues:
            raise ValueError(f"no such queue: {queue}")
        subscription = RabbitSubscription(
            self._consuming, self._shared, queue, receiver, self._observer
        )
        self._subscriptions.add(subscription)
        task = self._group.create_task(subscription.run(), name=f"subscription {queue}")
        try:
            if self._consuming.is_connected and queue not in self.refused_queues():
                await wait(subscription.opened, OPEN_TIMEOUT_S)
            yield subscription
        finally:
            subscription.stop(task)
            try:
                await asyncio.wait({task}, timeout=2 * CLOSE_TIMEOUT_S)
            finally:
                self._subscriptions.discard(subscription)
                await _cancel({task})

    async def close(self) -> None:
        """Close the channels, then the connections, even if cancelled meanwhile."""
        try:
            await _stop(self._channel_tasks)
        finally:
            await _stop(self._connection_tasks)

    def _start(self, *parts: tuple[_Part, str]) -> dict[asyncio.Task[None], _Part]:
        return {
            self._group.create_task(part.run(), name=f"rabbitmq {name}"): part
            for part, name in parts
        }


class _Part(Protocol):
    async def run(self) -> None: ...
    def stop(self, task: asyncio.Task[None]) -> None: ...


async def _stop(running: Mapping[asyncio.Task[None], _Part]) -> None:
    for task, part in running.items():
        part.stop(task)
    try:
        await asyncio.wait(running, timeout=2 * CLOSE_TIMEOUT_S)
    finally:
        await _cancel(running)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks until all have ended.

    Repeats the cancel, because the driver's wait_for can lose one on Python 3.11. A cancellation of
    the caller is raised at the end: left to the task group, a task might never end.
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


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_amqp = parts.scheme in {"amqp", "amqps"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_amqp = False
    if not is_amqp:
        raise ConfigError(
            "broker.url: expected amqp://user:password@host:port/vhost", key="broker.url"
        )
