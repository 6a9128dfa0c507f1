"""Messages that wait for consumers, and consumers that wait for messages.

Two invariants: while there are more messages than offers, a waiting consumer is offered one; and a
message leaves once only, to a consumer or by `remove`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import cached_property

from notifier.ports.broker import Delivery


class Buffer:
    """First in, first out on both sides. Only `wait` is asynchronous.

    An offer is the right to take one message, not the message itself: the consumer may first have
    to wait for its rate. It then calls `take` or `decline`, exactly once.
    """

    def __init__(self) -> None:
        self._messages: deque[tuple[float, Delivery]] = deque()
        self._waiting: dict[object, asyncio.Future[bool]] = {}
        self._is_blocked = False
        self._is_closed = False
        self.offered = 0

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # Cached: on Python 3.11 get_running_loop() is a system call.
        return asyncio.get_running_loop()

    def __len__(self) -> int:
        """The number of messages."""
        return len(self._messages)

    @property
    def has_waiting_consumer(self) -> bool:
        """Whether a consumer waits for a message."""
        return bool(self._waiting)

    def oldest_put_at(self) -> float | None:
        """When the oldest message was put, on the clock of `put`; None without messages."""
        return self._messages[0][0] if self._messages else None

    def put(self, delivery: Delivery, now: float) -> None:
        """Add a message and offer it to the consumer that has waited longest."""
        self._messages.append((now, delivery))
        self._offer()

    async def wait(self, consumer: object) -> bool:
        """Wait until a message is offered; False if `dismiss` came first.

        Cancelled, it passes its offer on to the next consumer.
        """
        if self._has_more and not self._waiting:
            self.offered += 1
            return True
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting[consumer] = future
        self._offer()
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.result():
                self.decline()
            self._waiting.pop(consumer, None)
            raise

    def is_waiting(self, consumer: object) -> bool:
        """Whether this consumer waits here without an offer."""
        return consumer in self._waiting

    def dismiss(self, consumer: object) -> None:
        """End the consumer's wait. Does nothing if it does not wait or has an offer already."""
        future = self._waiting.pop(consumer, None)
        if future is not None and not future.done():
            future.set_result(False)

    def take(self) -> Delivery | None:
        """Accept an offer; None if no message is left, or messages may not be taken now."""
        self.offered -= 1
        return self._messages.popleft()[1] if self._messages and self._is_open else None

    def decline(self) -> None:
        """Return an offer, which goes to the next waiting consumer."""
        self.offered -= 1
        self._offer()

    def remove(self, *, keep: float, put_before: float) -> list[Delivery]:
        """Remove the messages put before `put_before`, then the newest until `keep` are left."""
        removed: list[Delivery] = []
        while self._messages and self._messages[0][0] < put_before:
            removed.append(self._messages.popleft()[1])
        while len(self._messages) > keep:
            removed.append(self._messages.pop()[1])
        return removed

    def set_blocked(self, *, blocked: bool) -> None:
        """While blocked, no consumer gets a message, not even for an offer made before."""
        self._is_blocked = blocked
        self._offer()

    def close(self) -> None:
        """Give no message to a consumer from now on."""
        self._is_closed = True

    @property
    def _is_open(self) -> bool:
        return not (self._is_blocked or self._is_closed)

    @property
    def _has_more(self) -> bool:
        """Whether there are more messages than offers."""
        return len(self._messages) > self.offered and self._is_open

    def _offer(self) -> None:
        while self._waiting and self._has_more:
            future = self._waiting.pop(next(iter(self._waiting)))
            if not future.cancelled():
                self.offered += 1
                future.set_result(True)
