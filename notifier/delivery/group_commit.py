"""Group commit: items that arrive while a batch is being written form the next batch.

There is no timer: an idle queue writes at once, a busy one needs few round trips. A rejected item
fails alone, and a caller that stops waiting does not disturb the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog

from notifier.delivery.batch_write import MAX_BACKOFF_S, MIN_BACKOFF_S, write_batch
from notifier.domain.errors import NotifierError, StoreRejected, StoreUnavailable
from notifier.lifecycle import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

Item = TypeVar("Item")
Reply = TypeVar("Reply")

MAX_BATCH: Final = 500
MAX_BATCH_BYTES: Final = 8 * 1024 * 1024

log = structlog.get_logger(__name__)


class GroupCommit(Generic[Item, Reply]):
    """A queue of items and the one task that writes them.

    A batch holds at most 500 items and ends with the item that brings its size to 8 MiB, so that
    one statement can be written within its time-out. `size_of` gives an item's bytes.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Reply]]],
        *,
        size_of: Callable[[Item], int] | None = None,
    ) -> None:
        self.name = name
        self._write = write
        self._size_of = size_of
        self._items: deque[tuple[Item, asyncio.Future[Reply]]] = deque()
        self._wake = asyncio.Event()
        self._is_closed = False
        self._has_ended = False
        self._batch_done = asyncio.Event()
        self._writing = 0

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # Cached because on Python 3.11 asking for it is a system call.
        return asyncio.get_running_loop()

    def __len__(self) -> int:
        """Return the number of items that wait or are being written."""
        return len(self._items) + self._writing

    def put(self, item: Item) -> asyncio.Future[Reply]:
        """Add an item to the next batch; returns the future of its reply.

        Cancelling the future only stops the waiting: the item may still be written. The future
        raises StoreRejected if Postgres refuses the item, and StoreUnavailable once `run` has
        ended.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._has_ended:
            future.set_exception(StoreUnavailable(f"{self.name}: stopped"))
            return future
        self._items.append((item, future))
        self._wake.set()
        return future

    async def wait_idle(self) -> None:
        """Return when no item waits and none is being written."""
        while len(self) and not self._has_ended:
            await self._batch_done.wait()

    def close(self) -> None:
        """Let `run` end once everything is written; nothing may be put after."""
        self._is_closed = True
        self._wake.set()

    async def run(self) -> None:
        """Write batches until closed and empty. Ends with any error that is not the store's."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._items:
                    await self._write_next()
                if self._is_closed:
                    return
        finally:
            self._has_ended = True
            self._fail(self._drain(), StoreUnavailable(f"{self.name}: stopped"))

    async def _write_next(self) -> None:
        batch = self._next_batch()
        self._writing = len(batch)
        try:
            await self._write_batch(batch)
        except BaseException:
            self._fail(batch, StoreUnavailable(f"{self.name}: stopped"))
            raise
        finally:
            self._writing = 0
            self._batch_done.set()
            self._batch_done = asyncio.Event()

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Reply]]]:
        size_of, size = self._size_of, 0
        batch: list[tuple[Item, asyncio.Future[Reply]]] = []
        for _ in range(min(len(self._items), MAX_BATCH)):
            batch.append(self._items.popleft())
            if size_of is not None:
                size += size_of(batch[-1][0])
                if size >= MAX_BATCH_BYTES:
                    break
        return batch

    async def _write_batch(self, batch: list[tuple[Item, asyncio.Future[Reply]]]) -> None:
        """Write the batch until every future is done.

        Items of unknown result are written again: the write is idempotent. Those whose future is
        done (cancelled) are left out.
        """
        backoff = Backoff(MIN_BACKOFF_S, MAX_BACKOFF_S)
        while batch := [(item, future) for item, future in batch if not future.done()]:
            replies = await write_batch(self.name, [item for item, _ in batch], self._write)
            unknown: list[tuple[Item, asyncio.Future[Reply]]] = []
            reason = ""
            for waiting, reply in zip(batch, replies, strict=True):
                if isinstance(reply, StoreUnavailable):
                    unknown.append(waiting)
                    reason = str(reply)
                else:
                    _resolve(waiting[1], reply)
            batch = unknown
            if unknown:
                log.warning("batch_retried", batch=self.name, size=len(unknown), reason=reason)
                await asyncio.sleep(backoff.next_s())

    def _drain(self) -> Iterable[tuple[Item, asyncio.Future[Reply]]]:
        while self._items:
            yield self._items.popleft()

    @staticmethod
    def _fail(batch: Iterable[tuple[Item, asyncio.Future[Reply]]], error: NotifierError) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)


def _resolve(future: asyncio.Future[Reply], reply: Reply | StoreRejected) -> None:
    if future.done():
        return
    if isinstance(reply, StoreRejected):
        future.set_exception(reply)
    else:
        future.set_result(reply)
