"""The broker: it stores published pointers in queues and delivers them to subscriptions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from notifier.domain.notification import (
    NotificationId,
    QueueKey,
)


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """All that enters the broker of a row: what a worker needs to decide whether to claim it.

    `published_at` is the database's time of the publish, in seconds since the epoch. `size` is the
    length of the content in bytes, 0 if unknown. `deaths` counts the workers that died while they
    were sending the row; a pointer with deaths shares no message with others.
    """

    queue: QueueKey
    id: NotificationId
    claim: int
    published_at: float
    size: int = 0
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Depth:
    """The depth of one queue. Where messages carry several pointers, `ready` is an estimate.

    `ready` counts pointers that no consumer holds.
    """

    ready: int
    consumers: int


class Message(msgspec.Struct, frozen=True, eq=False):
    """One message delivered to a subscription: pointers of one queue. Compared by identity.

    Its pointers have one `published_at`. `tag` belongs to the broker. `redelivered` means that a
    consumer held the message before.
    """

    pointers: Sequence[Pointer]
    redelivered: bool
    tag: object

    @property
    def published_at(self) -> float:
        """When its pointers were published, in seconds since the epoch by the database's clock."""
        return self.pointers[0].published_at


class Receiver(Protocol):
    """Receives the messages of a subscription. Its methods do not block."""

    def deliver(self, message: Message) -> None:
        """Take a message, to be acked later."""
        ...

    def connection_lost(self) -> None:
        """Forget all messages so far: they cannot be acked, and the broker delivers them again.

        Called when the connection that carried them is closed.
        """
        ...


class Subscription(Protocol):
    """One process's consumer of one queue. It reconnects by itself."""

    async def set_prefetch(self, prefetch: int) -> None:
        """Hold at most `prefetch` unacked messages; 0 ends the consumer in the broker.

        Messages that are held already stay held; after a prefetch of 0 they no longer count.
        Returns when the broker has confirmed, or at once while the broker is unavailable: the
        prefetch then applies from the reconnect on.
        Raises ValueError for a prefetch out of range.
        """
        ...

    def ack(self, message: Message) -> None:
        """Ack a message. Does nothing if the connection that carried it is closed."""
        ...


MAX_POINTERS_PER_MESSAGE: Final = 64
"""A message with more pointers was not published by Notifier."""
UNBATCHED: Final[Mapping[QueueKey, int]] = MappingProxyType({})
"""One pointer per message in every queue."""


class Broker(Protocol):
    """Implemented by RabbitMQ, and by the in-process broker of `notifier dev`."""

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = UNBATCHED
    ) -> Sequence[bool]:
        """Publish all pointers; return for each whether the broker confirmed that it is stored.

        `max_batch[queue]`: pointers per message, 1 to MAX_POINTERS_PER_MESSAGE, default 1. Takes at
        most the publish timeout (5 s). Does not raise while the broker is unavailable: then all
        are False.
        """
        ...

    async def probe(self) -> bool:
        """Return whether publishing is possible now: connected, and no alarm blocks publishers."""
        ...

    async def depths(self, queues: Collection[QueueKey] = ()) -> Mapping[QueueKey, Depth]:
        """Return the depths of at least these queues; of all queues by default.

        A queue whose depth is unknown is left out.
        """
        ...

    def refused_queues(self) -> Mapping[QueueKey, str]:
        """Return the queues that the broker refuses to declare, each with its reply.

        Nothing is published to them or received from them until the broker accepts them.
        """
        ...

    def foreign_pointers(self) -> Mapping[QueueKey, int]:
        """Return how many pointers of other deployments each queue received in the last minute."""
        ...

    def subscribe(
        self, queue: QueueKey, receiver: Receiver
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open a subscription with prefetch 0.

        Leaving the block ends it, and its unacked pointers return to the queue. Raises
        ValueError for a queue that this broker does not serve.
        """
        ...
