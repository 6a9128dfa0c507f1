"""Reads what happens in inboxes once for all streams of this process.

While there is a stream, Postgres is asked twice a second for the changes of the inboxes that are
followed. A frame is encoded once for all streams of an inbox.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from notifier.api.http.stream_queue import StreamQueue
from notifier.api.inbox.documents import InboxAdded, InboxItem, InboxRead
from notifier.domain.errors import Overloaded, StoreError
from notifier.lifecycle import Clock, uptime_s

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from notifier.api.http.stream_slots import StreamSlots
    from notifier.domain.inbox import Inbox
    from notifier.ports.inbox import InboxChange, InboxCursor, InboxReader

POLL_INTERVAL_S: Final = 0.5
MIN_WAIT_S: Final = 0.05
MAX_QUEUED: Final = 200
MAX_QUEUED_BYTES: Final = 1024 * 1024
"""Frames that a stream may lag behind. One that takes them more slowly is cut."""

_ENCODER: Final = msgspec.json.Encoder()

log = structlog.get_logger(__name__)


class InboxSubscription(StreamQueue[bytes]):
    """What one stream is given. `closed` is set when it gets no more.

    Everything that is committed after `started` was set is given to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._queued_bytes = 0

    def put(self, frames: Sequence[bytes]) -> None:
        """Queue frames. It is closed if too many are queued."""
        self._queued_bytes += sum(map(len, frames))
        is_too_much = self._queued_bytes > MAX_QUEUED_BYTES and len(self._queued) > 0
        if is_too_much or len(self._queued) + len(frames) > MAX_QUEUED:
            self.close()
            return
        self._queue(frames)

    async def take(self, timeout_s: float) -> Sequence[bytes]:
        taken = await super().take(timeout_s)
        if taken:
            self._queued_bytes = 0
        return taken


class InboxFeed:
    """Gives each stream what happens in its inbox."""

    def __init__(self, *, reader: InboxReader, slots: StreamSlots, clock: Clock = uptime_s) -> None:
        self._reader = reader
        self._slots = slots
        self._clock = clock
        self._by_inbox: defaultdict[Inbox, set[InboxSubscription]] = defaultdict(set)
        self._wanted = asyncio.Event()
        self._cursor: InboxCursor | None = None
        self._is_reading = False
        self._is_stopped = False
        self._has_failed = False

    @contextmanager
    def subscribed(self, inbox: Inbox, holder: Hashable, most: int) -> Iterator[InboxSubscription]:
        """A subscription for the duration of the block. A `holder` may have `most`.

        Raises Overloaded if there are too many.
        """
        if self._is_stopped:
            raise Overloaded("this process stops")
        with self._slots.held(holder, most):
            subscription = InboxSubscription()
            if self._cursor is not None and not self._is_reading:
                subscription.started.set()
            self._by_inbox[inbox].add(subscription)
            self._wanted.set()
            try:
                yield subscription
            finally:
                self._by_inbox[inbox].discard(subscription)
                if not self._by_inbox[inbox]:
                    del self._by_inbox[inbox]

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop`, then close all subscriptions."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(), name="inboxes follow")
            await stop.wait()
            following.cancel()
        self._is_stopped = True
        self._close(self._by_inbox)

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            begun_at = self._clock()
            await self.run_once()
            await asyncio.sleep(max(MIN_WAIT_S, begun_at + POLL_INTERVAL_S - self._clock()))

    async def run_once(self) -> None:
        """Give the streams all that was committed until now; a failure is logged."""
        if not self._by_inbox:
            self._wanted.clear()
            self._cursor = None
            return
        try:
            await self._read()
        except StoreError as error:
            if not self._has_failed:
                log.warning("inboxes_read_failed", reason=str(error))
            self._has_failed = True
        else:
            self._has_failed = False

    async def _read(self) -> None:
        if self._cursor is None:
            self._cursor = await self._reader.now()
        self._start_all()
        self._is_reading = True  # who subscribes now is followed from the end of this read on
        try:
            found = await self._reader.changes(self._cursor, list(self._by_inbox))
        finally:
            self._is_reading = False
        self._cursor = found.cursor
        self._start_all()
        for inbox, changes in found.changes.items():
            if inbox not in found.cut:
                frames = _frames(changes, found.unread[inbox])
                for subscription in self._by_inbox.get(inbox, ()):
                    subscription.put(frames)
        self._close(found.cut)  # their pages read the inbox when they connect again

    def _start_all(self) -> None:
        for subscriptions in self._by_inbox.values():
            for subscription in subscriptions:
                subscription.started.set()

    def _close(self, inboxes: Iterable[Inbox]) -> None:
        for inbox in inboxes:
            for subscription in self._by_inbox.get(inbox, ()):
                subscription.close()


def _frames(changes: Sequence[InboxChange], unread: int) -> Sequence[bytes]:
    frames = [
        _frame(b"inbox.added", InboxAdded(InboxItem.of(each.entry), unread))
        for each in changes
        if each.is_new
    ]
    read = [each.entry.id for each in changes if not each.is_new]
    return [*frames, _frame(b"inbox.read", InboxRead(read, unread))] if read else frames


def _frame(name: bytes, document: msgspec.Struct) -> bytes:
    # A line break in the JSON of `data` would begin another field of the frame.
    data = _ENCODER.encode(document).replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: %b\ndata: %b\n\n" % (name, data)
