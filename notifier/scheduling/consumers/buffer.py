"""Messages that wait for consumers, and consumers that wait for messages.

Two invariants: whoever waits is told of a message as long as there are more messages than were
promised, and a message leaves by one door only, to a consumer or out of the buffer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import cached_property

from notifier.ports.broker import Delivery


class Buffer:
    """First in, first out on both sides. Nothing here awaits but `wait`.

    A consumer told of a message holds a promise, not the message: it may have to wait for its
    rate first. It then calls `take` or `renounce`, exactly once.
    """

    def __init__(self) -> None:
        self._messages: deque[tuple[float, Delivery]] = deque()
        self._idle: dict[object, asyncio.Future[bool]] = {}
        self._is_barred = False
        self._is_closed = False
        self.promised = 0

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: on Python 3.11 that is a system call."""
        return asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._messages)

    @property
    def has_idle(self) -> bool:
        """Whether a consumer waits for a message."""
        return bool(self._idle)

    def oldest_since(self) -> float | None:
        """When the first of the waiting messages came, on the clock of `put`."""
        return self._messages[0][0] if self._messages else None

    def put(self, delivery: Delivery, now: float) -> None:
        """Add a message and tell the consumer that waited longest."""
        self._messages.append((now, delivery))
        self._promise()

    async def wait(self, consumer: object) -> bool:
        """Wait in line for a promise; False when dismissed before it came.

        A cancelled wait passes its promise on.
        """
        if self._has_more and not self._idle:
            self.promised += 1
            return True
        told: asyncio.Future[bool] = self._loop.create_future()
        self._idle[consumer] = told
        self._promise()
        try:
            return await told
        except asyncio.CancelledError:
            if not told.cancelled() and told.result():
                self.renounce()
            self._idle.pop(consumer, None)
            raise

    def is_idle(self, consumer: object) -> bool:
        """Whether this consumer waits here and nothing was promised to it."""
        return consumer in self._idle

    def dismiss(self, consumer: object) -> None:
        """End a wait, if it goes on and nothing was promised yet."""
        told = self._idle.pop(consumer, None)
        if told is not None and not told.done():
            told.set_result(False)

    def take(self) -> Delivery | None:
        """Redeem a promise; None if the messages are gone, or may not be taken now."""
        self.promised -= 1
        return self._messages.popleft()[1] if self._messages and self._is_open else None

    def renounce(self) -> None:
        """Give a promise back, for the next in line."""
        self.promised -= 1
        self._promise()

    def withdraw(self, *, keep: int, since: float) -> list[Delivery]:
        """Take out what came before `since`, and the newest beyond `keep`."""
        out: list[Delivery] = []
        while self._messages and self._messages[0][0] < since:
            out.append(self._messages.popleft()[1])
        while len(self._messages) > keep:
            out.append(self._messages.pop()[1])
        return out

    def bar(self, *, is_so: bool) -> None:
        """While barred nothing is handed to a consumer, not even what was promised."""
        self._is_barred = is_so
        self._promise()

    def close(self) -> None:
        """From now on nothing is handed to a consumer."""
        self._is_closed = True

    @property
    def _is_open(self) -> bool:
        return not (self._is_barred or self._is_closed)

    @property
    def _has_more(self) -> bool:
        """Whether a message waits that was promised to nobody."""
        return len(self._messages) > self.promised and self._is_open

    def _promise(self) -> None:
        while self._idle and self._has_more:
            told = self._idle.pop(next(iter(self._idle)))
            if not told.cancelled():
                self.promised += 1
                told.set_result(True)
