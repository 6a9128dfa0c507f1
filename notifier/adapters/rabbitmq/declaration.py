"""Declares each queue by itself, so that RabbitMQ's refusal of one does not stop the others.

RabbitMQ refuses a queue that exists with other arguments, that the user may not declare, or that
would exceed the limit of its vhost. It reports a refusal by closing the channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from aiormq.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import AMQPChannelError
from structlog import get_logger

from notifier.adapters.rabbitmq.channels import close_channel, open_channel
from notifier.adapters.rabbitmq.topology import declare_and_bind, declare_exchange
from notifier.domain.errors import BrokerUnavailable
from notifier.domain.notification import QueueKey
from notifier.ports.observer import BrokerObserver

REDECLARE_INTERVAL_S: Final = 2.0
"""How often a refused queue is declared again."""
QUEUES_PER_CHANNEL: Final = 16
MAX_CHANNELS: Final = 8


class _Complete(NamedTuple):
    """A declaration of all queues: on which connection, and at which time it was done."""

    connection: AbstractConnection
    at: float


class Declarations:
    """Declares the queues of one process and knows which of them RabbitMQ refuses."""

    def __init__(self, queues: Collection[QueueKey], observer: BrokerObserver) -> None:
        self._observer = observer
        self._refused: dict[QueueKey, str] = {}
        self._last_refusal: BrokerUnavailable | None = None
        self._accepted = {queue: asyncio.Event() for queue in queues}
        self._lock = asyncio.Lock()
        self._complete: _Complete | None = None

    @property
    def refused(self) -> Mapping[QueueKey, str]:
        """The queues whose last declaration was refused, each with RabbitMQ's reply."""
        return self._refused

    async def wait_until_accepted(self, queue: QueueKey) -> None:
        """Wait until the last declaration of the queue has succeeded."""
        await self._accepted[queue].wait()

    async def declare(self, connection: AbstractConnection, queues: Iterable[QueueKey]) -> None:
        """Create the exchange, these queues and their bindings where they are missing.

        A queue that is refused is only recorded. Raises BrokerUnavailable if the exchange is
        refused or the connection fails.
        """
        async with self._lock:
            await self._declare(connection, list(queues))

    async def declare_all(self, connection: AbstractConnection, *, since: float) -> None:
        """Declare all queues, unless another open connection has done so after `since`.

        `since` is the event loop's time at which this connection was open. Raises as `declare`.
        """
        async with self._lock:
            done = self._complete
            if done is not None and not done.connection.is_closed and done.at >= since:
                return
            self._complete = None
            await self._declare(connection, list(self._accepted))
            self._complete = _Complete(connection, asyncio.get_running_loop().time())

    async def _declare(self, connection: AbstractConnection, left: list[QueueKey]) -> None:
        """Declare many queues on several channels at once: each declaration waits for a reply."""
        failures = list[BrokerUnavailable]()
        channels = max(1, min(len(left) // QUEUES_PER_CHANNEL, MAX_CHANNELS))
        async with asyncio.TaskGroup() as group:
            for number in range(channels):
                group.create_task(
                    self._declare_until_done(connection, left, failures), name=f"declare {number}"
                )
        if failures:
            raise failures[0]

    async def _declare_until_done(
        self,
        connection: AbstractConnection,
        left: list[QueueKey],
        failures: list[BrokerUnavailable],
    ) -> None:
        try:
            while not failures and await self._declare_on_one_channel(connection, left):
                pass
        except BrokerUnavailable as error:
            failures.append(error)

    def check_usable(self) -> None:
        """Raise the last refusal if every queue is refused."""
        if self._last_refusal is not None and len(self._refused) == len(self._accepted):
            raise self._last_refusal

    async def _declare_on_one_channel(
        self, connection: AbstractConnection, left: list[QueueKey]
    ) -> bool:
        """Declare queues off the list `left` until one is refused; return whether some are left."""
        channel = await open_channel(connection)
        try:
            await declare_exchange(channel)
            while left:
                if not await self._is_accepted(channel, left.pop(0)):
                    break
        finally:
            await close_channel(channel)
        return bool(left)

    async def _is_accepted(self, channel: Channel, queue: QueueKey) -> bool:
        try:
            await declare_and_bind(channel, queue)
        except BrokerUnavailable as error:
            if not isinstance(error.__cause__, AMQPChannelError):
                raise
            self._record_refusal(queue, error)
            return False
        self._record_success(queue)
        return True

    def _record_refusal(self, queue: QueueKey, refusal: BrokerUnavailable) -> None:
        reason = str(refusal)
        if self._refused.get(queue) != reason:
            get_logger(__name__).error("queue_refused", queue=str(queue), reason=reason)
        self._refused[queue], self._last_refusal = reason, refusal
        self._accepted[queue].clear()
        self._observer.queues_refused(len(self._refused))

    def _record_success(self, queue: QueueKey) -> None:
        if self._refused.pop(queue, None) is not None:
            get_logger(__name__).info("queue_accepted", queue=str(queue))
            self._observer.queues_refused(len(self._refused))
        self._accepted[queue].set()
