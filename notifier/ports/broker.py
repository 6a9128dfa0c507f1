"""The broker: pointers published to queues, and subscriptions that receive them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    """All that ever enters the broker: which row, at which claim, published when.

    `published_at` is the database's instant of the publish, in seconds since the epoch.
    """

    queue: QueueKey
    id: NotificationId
    claim: int
    published_at: float


@dataclass(frozen=True, slots=True)
class Depth:
    """What a broker says of one queue, in pointers: about so many, if messages carry several.

    `ready` excludes what consumers already hold.
    """

    ready: int
    consumers: int


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """One pointer handed to a subscription. Compared by identity.

    `tag` belongs to the broker. `redelivered` says that somebody held it before.
    """

    pointer: Pointer
    redelivered: bool
    tag: object


class Subscription(Protocol):
    """One process's hold on one queue. Survives the loss of the broker by itself."""

    async def set_prefetch(self, prefetch: int) -> None:
        """Hold about `prefetch` unacked pointers; 0 ends the subscription on the broker.

        What is already held stays held. Returns when the broker has confirmed, or at once while
        the broker is away (it then takes effect at the reconnect).
        """
        ...

    @property
    def max_held(self) -> int:
        """How many unacked pointers the prefetch comes to: more, where messages carry several."""
        ...

    def ack(self, delivery: Delivery) -> None:
        """Settle a pointer. Does nothing if it came over a connection that is gone."""
        ...


ONE_EACH: Final[Mapping[QueueKey, int]] = MappingProxyType({})


class Broker(Protocol):
    """RabbitMQ, or the in-process stand-in for `notifier dev`."""

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = ONE_EACH
    ) -> Sequence[bool]:
        """Publish all; for each, whether the broker confirmed that it is safely in its queue.

        At most `together` of a queue may share a message, 1 where nothing is said; 1 to 64.

        Takes at most the publish timeout (5 s). Never raises for a broker that is away: then
        all are False.
        """
        ...

    async def probe(self) -> bool:
        """Whether publishing is possible now: connected, not blocked by an alarm."""
        ...

    async def depths(self, queues: Collection[QueueKey] = ()) -> Mapping[QueueKey, Depth]:
        """Depths known now, of these queues at least, of all if none is named.

        A queue whose depth is unknown is left out.
        """
        ...

    def subscribe(
        self,
        queue: QueueKey,
        *,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[], None],
    ) -> AbstractAsyncContextManager[Subscription]:
        """A subscription with prefetch 0. Leaving the block ends it; what is unacked returns.

        `on_delivery` is called for each message and must not block. `on_lost` is called when the
        connection that carried the deliveries so far is gone: none of them can be acked any more
        and the broker will deliver them again.
        """
        ...
