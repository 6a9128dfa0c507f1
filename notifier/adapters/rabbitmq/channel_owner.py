"""The task that owns one channel: it opens the channel, uses it, and replaces it when it is lost.

aiormq closes a channel whose RPC is cancelled. Therefore only this task makes RPCs on its channel,
and no caller's cancellation reaches them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from structlog import get_logger

from notifier.adapters.rabbitmq.channels import (
    close_channel,
    end_of,
    open_channel,
    set_when_closed,
)
from notifier.adapters.rabbitmq.connection import RabbitConnection
from notifier.domain.errors import BrokerUnavailable
from notifier.lifecycle import Backoff

if TYPE_CHECKING:
    from aiormq.abc import AbstractConnection
    from aiormq.channel import Channel

    from notifier.domain.notification import QueueKey


class LogOncePerReason:
    """Logs a failure that repeats once per reason, and again after a success."""

    def __init__(self, event: str, **fields: str) -> None:
        self._event = event
        self._fields = fields
        self._last = ""

    def warn(self, reason: str, *, is_first: bool) -> None:
        """Log the reason, unless it is the last one logged and no success came between."""
        if is_first or reason != self._last:
            get_logger(__name__).warning(self._event, **self._fields, reason=reason)
            self._last = reason


class ChannelOwner(ABC):
    """Keeps one channel on `connection`, on which `queues` are declared."""

    with_confirms: ClassVar = False

    def __init__(
        self,
        connection: RabbitConnection,
        name: str,
        queues: Sequence[QueueKey],
        backoff: Backoff,
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._backoff = backoff
        self._channel: Channel | None = None
        self._used_connection: AbstractConnection | None = None
        self._is_stopping = False
        self._wake = asyncio.Event()
        self._losses = LogOncePerReason("broker_channel_closed", channel=name)

    async def run(self) -> None:
        """Keep a channel open until `stop`."""
        while True:
            connection = await self._connection.connected()
            try:
                await self._use_one_channel(connection)
            except BrokerUnavailable as error:
                await self._pause(connection, str(error))
            else:
                return

    def stop(self, task: asyncio.Task[None]) -> None:
        """End `run`, whose task this is."""
        self._is_stopping = True
        self._wake.set()
        if self._channel is None:  # with a channel, a cancel during an RPC can get lost in aiormq
            task.cancel()

    @abstractmethod
    async def _use(self, channel: Channel) -> None:
        """Work on the channel; return when it is closed or `_is_stopping` is set.

        Resets the back-off once the channel works. `_wake` is set when either happens. Raises
        BrokerUnavailable to give the channel up.
        """

    @abstractmethod
    def _release(self) -> None:
        """Drop what belongs to the channel, which is about to be closed."""

    async def _use_one_channel(self, connection: AbstractConnection) -> None:
        """Return at a stop. Raises BrokerUnavailable when the channel is lost."""
        await self._prepare(connection)
        channel = await open_channel(connection, confirms=self.with_confirms)
        set_when_closed(channel, self._wake)
        set_when_closed(connection, self._wake)
        try:
            self._channel = channel
            await self._use(channel)
        finally:
            self._channel = None
            self._release()
            await close_channel(channel)
        if not self._is_stopping:
            raise end_of(channel)

    async def _prepare(self, connection: AbstractConnection) -> None:
        """Declare the queues again after a channel was lost: it may be lost because of a queue."""
        if connection is self._used_connection:
            await self._connection.declare(self._queues)
        self._used_connection = connection

    async def _pause(self, connection: AbstractConnection, reason: str) -> None:
        is_first = self._backoff.is_fresh
        await asyncio.sleep(self._backoff.next_s())
        if not connection.is_closed:  # the loss of a whole connection is logged by ConnectionState
            self._losses.warn(reason, is_first=is_first)
