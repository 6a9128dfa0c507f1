"""Group commit: whatever arrived while the last batch was being written forms the next.

No timer and no wait when idle, few round trips when busy. One bad item fails alone, and a waiter
that went away never disturbs its neighbours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog

from notifier.domain.errors import NotifierError, StoreConflict, StoreRejected, StoreUnavailable
from notifier.lifecycle import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MAX_BATCH: Final = 500
MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
FIRST_PAUSE_S: Final = 0.05
MAX_PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


class WhenUnknown(Enum):
    """What to do with a batch of which it is unknown whether it was written."""

    REPEAT = auto()  # the write is idempotent
    FAIL = auto()  # its waiters are told, and make good themselves


class GroupCommit(Generic[Item, Answer]):
    """A queue of items and the one task that writes them.

    A batch has at most 500 items, and ends with the one that brings it to 8 MiB by `weigh`: what
    must be written within a statement's time.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        when_unknown: WhenUnknown,
        weigh: Callable[[Item], int] | None = None,
    ) -> None:
        self.name = name
        self._write = write
        self._when_unknown = when_unknown
        self._weigh = weigh
        self._items: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._news = asyncio.Event()
        self._closed = False
        self._ended = False
        self._quiet = asyncio.Event()
        self._writing = 0

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: on Python 3.11 that is a system call."""
        return asyncio.get_running_loop()

    def __len__(self) -> int:
        """Items waiting or being written."""
        return len(self._items) + self._writing

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Have it written with the next batch. Cancelling the future gives up waiting, no more.

        The future raises StoreRejected if Postgres refuses the item, and StoreUnavailable under
        FAIL, or when `run` has ended.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self._ended:
            future.set_exception(StoreUnavailable(f"{self.name}: stopped"))
            return future
        self._items.append((item, future))
        self._news.set()
        return future

    async def settled(self) -> None:
        """Return when nothing waits and nothing is being written."""
        while len(self) and not self._ended:
            await self._quiet.wait()

    def close(self) -> None:
        """No more will be put: `run` ends when all is written."""
        self._closed = True
        self._news.set()

    async def run(self) -> None:
        """Write until closed and empty. An error that is not the store's ends it, and is raised."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._items:
                    await self._write_next()
                if self._closed:
                    return
        finally:
            self._ended = True
            self._fail(self._drain(), StoreUnavailable(f"{self.name}: stopped"))

    async def _write_next(self) -> None:
        batch = self._next_batch()
        self._writing = len(batch)
        try:
            await self._settle(batch)
        except BaseException:
            self._fail(batch, StoreUnavailable(f"{self.name}: stopped"))
            raise
        finally:
            self._writing = 0
            self._quiet.set()
            self._quiet = asyncio.Event()

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        weigh, weight = self._weigh, 0
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        for _ in range(min(len(self._items), MAX_BATCH)):
            batch.append(self._items.popleft())
            if weigh is not None:
                weight += weigh(batch[-1][0])
                if weight >= MAX_BATCH_BYTES:
                    break
        return batch

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        """Write the batch, whatever it takes: halve it, repeat it, or fail it."""
        backoff = Backoff(FIRST_PAUSE_S, MAX_PAUSE_S)
        while batch := [(item, waiter) for item, waiter in batch if not waiter.done()]:
            try:
                answers = await self._write([item for item, _ in batch])
            except StoreRejected as error:
                await self._halve(batch, error)
                return
            except StoreUnavailable as error:
                if self._when_unknown is WhenUnknown.FAIL and not isinstance(error, StoreConflict):
                    self._fail(batch, error)
                    return
                log.warning("batch_retried", batch=self.name, size=len(batch), reason=str(error))
                await asyncio.sleep(backoff.next_s())
            else:
                for (_, waiter), answer in zip(batch, answers, strict=True):
                    if not waiter.done():
                        waiter.set_result(answer)
                return

    async def _halve(
        self, batch: list[tuple[Item, asyncio.Future[Answer]]], error: StoreRejected
    ) -> None:
        if len(batch) == 1:
            self._fail(batch, error)
            return
        middle = len(batch) // 2
        await self._settle(batch[:middle])
        await self._settle(batch[middle:])

    def _drain(self) -> Iterable[tuple[Item, asyncio.Future[Answer]]]:
        while self._items:
            yield self._items.popleft()

    @staticmethod
    def _fail(batch: Iterable[tuple[Item, asyncio.Future[Answer]]], error: NotifierError) -> None:
        for _, waiter in batch:
            if not waiter.done():
                waiter.set_exception(error)
