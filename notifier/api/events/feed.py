"""Reads events once for all streams of this process.

While there is a stream, Postgres is asked every 100 ms for what was committed since. What one read
finds is shared: an event is encoded once, for however many streams.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

import structlog

from notifier.api.events.encoding import frame_of
from notifier.api.http.stream_queue import StreamQueue
from notifier.api.http.stream_slots import StreamSlots
from notifier.domain.errors import Overloaded, StoreError
from notifier.lifecycle import Clock, uptime_s
from notifier.ports.events import CursorGone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from notifier.domain.event_cursor import EventCursor
    from notifier.domain.events import EventFilter
    from notifier.ports.events import EventReader, ReadEvent
    from notifier.ports.observer import EventObserver

RECENT_S: Final = 10.0
"""For how long events are kept in memory for streams that resume."""
MAX_RECENT_BYTES: Final = 32 * 1024 * 1024
"""How much of them is kept at most, roughly: 1 KiB for an event, and twice what it carries."""
POLL_INTERVAL_S: Final = 0.1
MIN_WAIT_S: Final = 0.01
MAX_STREAMS_OF_KEY: Final = 100
MAX_READ: Final = 2000
"""Events of one read."""
MAX_QUEUED: Final = 10_000
"""Events that a stream may lag behind. One that takes them more slowly is cut; it can resume."""
MAX_RESUMED: Final = MAX_QUEUED - MAX_READ
"""Events that a stream may get from memory: those of the next read must find room, too."""

_NEVER: Final = datetime.max.replace(tzinfo=UTC)

log = structlog.get_logger(__name__)


class FedEvent:
    """An event that was read for the streams."""

    def __init__(self, read: ReadEvent) -> None:
        self.read = read

    @cached_property
    def frame(self) -> bytes:
        """Its frame, encoded at the first use."""
        return frame_of(self.read)


class _Chunk:
    """What one read found after a cursor, up to another one.

    Streams with the same filter share what it selects.
    """

    def __init__(
        self,
        after: EventCursor,
        events: Sequence[ReadEvent],
        reached: EventCursor,
        read_at_s: float,
    ) -> None:
        self.read_at_s = read_at_s
        self.size = sum(_size(read) for read in events)
        """Its bytes in memory, roughly."""
        self._after = after
        self._reached = reached
        self._events = [FedEvent(read) for read in events]
        self._selected: dict[EventFilter, Sequence[FedEvent]] = {}

    def selected(self, selection: EventFilter) -> Sequence[FedEvent]:
        if not self._events:
            return ()
        found = self._selected.get(selection)
        if found is None:
            candidates = self._tagged(selection) if selection.tags else self._events
            found = [each for each in candidates if selection.matches(each.read.event)]
            self._selected[selection] = found
        return found

    def selected_after(
        self, cursor: EventCursor, selection: EventFilter
    ) -> Sequence[FedEvent] | None:
        """Return what follows a cursor; None if no reader of this chunk was there."""
        if not self._after.beyond <= cursor.beyond <= self._reached.beyond:
            return None
        if cursor.has_seen_the_same_as(self._after):
            return self.selected(selection)
        for number, each in enumerate(self._events, 1):
            if cursor.has_seen_the_same_as(each.read.cursor):
                rest = self._events[number:]
                return [other for other in rest if selection.matches(other.read.event)]
        return None

    def _tagged(self, selection: EventFilter) -> Sequence[FedEvent]:
        numbers = sorted(number for tag in selection.tags for number in self._by_tag.get(tag, ()))
        return [self._events[number] for number in numbers]

    @cached_property
    def _by_tag(self) -> dict[str, list[int]]:
        by_tag: dict[str, list[int]] = {}
        for number, each in enumerate(self._events):
            state = each.read.event.notification
            if state is not None and state.tag is not None:
                by_tag.setdefault(state.tag, []).append(number)
        return by_tag


def _size(read: ReadEvent) -> int:
    state = read.event.notification
    return 1024 + 2 * len(read.event.document if state is None else state.metadata)


class _Recent:
    """What the last reads found. A stream that resumes at a cursor of this process gets it here.

    Otherwise streams that are cut off amid many events would each read all of them again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._chunks: deque[_Chunk] = deque()
        self._size = 0

    def add(self, after: EventCursor, events: Sequence[ReadEvent], reached: EventCursor) -> _Chunk:
        """Keep what a read found, and drop the oldest chunks if they are too old or too many."""
        chunk = _Chunk(after, events, reached, self._clock())
        self._chunks.append(chunk)
        self._size += chunk.size
        self._drop_old()
        return chunk

    def selected_after(
        self, cursor: EventCursor, selection: EventFilter
    ) -> Sequence[FedEvent] | None:
        """Return what follows a cursor; None if that is not known here."""
        self._drop_old()
        later: list[_Chunk] = []
        for chunk in reversed(self._chunks):
            found = chunk.selected_after(cursor, selection)
            if found is not None:
                rest = (each for one in reversed(later) for each in one.selected(selection))
                return [*found, *rest]
            later.append(chunk)
        return None

    def clear(self) -> None:
        """Forget all of it."""
        self._chunks.clear()
        self._size = 0

    def _drop_old(self) -> None:
        kept_from_s = self._clock() - RECENT_S
        while self._chunks and (
            self._size > MAX_RECENT_BYTES or self._chunks[0].read_at_s < kept_from_s
        ):
            self._size -= self._chunks.popleft().size


class Subscription(StreamQueue[FedEvent]):
    """What one stream is given. `closed` is set when it gets no more, at a stop or if it is slow.

    `start` is the cursor after which it gets all events; set when `started` is. A stream that
    resumes at `after` has seen no more than `start` has. What is between them it reads by itself;
    from memory it gets that, too, and `start` is `after`.
    """

    def __init__(self, selection: EventFilter, holder: str, after: EventCursor | None) -> None:
        super().__init__()
        self.selection = selection
        self.after = after
        self.holder = holder
        self.start: EventCursor | None = None
        self.reached: EventCursor | None = None
        """Where a stream is that has taken all that was queued."""

    def begin_from_memory(self, missed: Sequence[FedEvent], reached: EventCursor) -> None:
        """Give it what it has missed, up to this cursor, and all events after it."""
        self.start, self.reached = self.after, reached
        self._queue(missed)
        self.started.set()

    def begin(self, cursor: EventCursor) -> None:
        """Give it all events after this cursor, if the stream is not ahead of it."""
        if self.after is not None and not cursor.covers(self.after):
            return
        self.start = self.reached = cursor
        self.started.set()

    def put(self, events: Sequence[FedEvent], reached: EventCursor) -> bool:
        """Queue events up to a cursor; False, and closed, if too many are queued."""
        if len(self._queued) + len(events) > MAX_QUEUED:
            self.close()
            return False
        self.reached = reached
        self._queue(events)
        return True


class EventFeed:
    """Gives each stream the events that its filter selects, in the order of one reader."""

    def __init__(
        self,
        *,
        reader: EventReader,
        observer: EventObserver,
        slots: StreamSlots | None = None,
        clock: Clock = uptime_s,
    ) -> None:
        self._reader = reader
        self._slots = StreamSlots() if slots is None else slots
        self._observer = observer
        self._clock = clock
        self._subscriptions: set[Subscription] = set()
        self._wanted = asyncio.Event()
        self._cursor: EventCursor | None = None
        self._recent = _Recent(clock)
        self._is_stopped = False
        self._has_failed = False
        self._unreported, self._oldest_at = 0, _NEVER
        """Of reads that were not complete: how late they are is known at the next complete one."""

    @contextmanager
    def subscribed(
        self, selection: EventFilter, holder: str, after: EventCursor | None = None
    ) -> Iterator[Subscription]:
        """A subscription for the duration of the block.

        `holder` names who has the stream, `after` where it resumes; None: it begins now. Raises
        Overloaded if there are too many.
        """
        if self._is_stopped:
            raise Overloaded("this process stops")
        with self._slots.held(holder, MAX_STREAMS_OF_KEY):
            subscription = Subscription(selection, holder, after)
            self._begin_from_memory(subscription)
            self._subscriptions.add(subscription)
            self._observer.event_streams_open(len(self._subscriptions))
            self._wanted.set()
            try:
                yield subscription
            finally:
                self._subscriptions.discard(subscription)
                self._observer.event_streams_open(len(self._subscriptions))

    def _begin_from_memory(self, subscription: Subscription) -> None:
        """Begin a stream that resumes at once, without a read, if it is known what it missed."""
        after, reached = subscription.after, self._cursor
        if after is None or reached is None:
            return
        if after.has_seen_the_same_as(reached):
            subscription.begin_from_memory((), reached)
            return
        missed = self._recent.selected_after(after, subscription.selection)
        if missed is not None and len(missed) <= MAX_RESUMED:
            subscription.begin_from_memory(missed, reached)

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop`, then close all subscriptions."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(), name="events follow")
            await stop.wait()
            following.cancel()
        self._is_stopped = True
        self._close_all()

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            begun_at = self._clock()
            await self.run_once()
            await asyncio.sleep(max(MIN_WAIT_S, begun_at + POLL_INTERVAL_S - self._clock()))

    async def run_once(self) -> None:
        """Give the streams all that was committed until now; a failure is logged."""
        if not self._subscriptions:
            self._wanted.clear()
            self._forget()
            return
        try:
            while not await self._read():
                pass
        except StoreError as error:
            if not self._has_failed:
                log.warning("events_read_failed", reason=str(error))
            self._has_failed = True
        else:
            self._has_failed = False

    async def _read(self) -> bool:
        """Read once; return whether that was all."""
        if self._cursor is None:
            self._cursor = await self._reader.now()
        if not self._cursor.partial:
            for subscription in self._subscriptions:
                if not subscription.started.is_set():
                    subscription.begin(self._cursor)
        page = await self._reader.read(self._cursor, MAX_READ)
        if isinstance(page, CursorGone):  # the streams resume, and are told so
            self._forget()
            self._close_all()
            return True
        chunk = self._recent.add(self._cursor, page.events, page.cursor)
        self._cursor = page.cursor
        self._unreported += len(page.events)
        self._oldest_at = min([self._oldest_at, *(read.event.at for read in page.events)])
        if page.is_complete and self._unreported:
            lag_s = max(0.0, (page.cursor.at - self._oldest_at).total_seconds())
            self._observer.events_read(self._unreported, lag_s)
            self._unreported, self._oldest_at = 0, _NEVER
        self._give(chunk, page.cursor)
        return page.is_complete

    def _give(self, chunk: _Chunk, reached: EventCursor) -> None:
        for subscription in self._subscriptions:
            if subscription.closed.is_set() or not subscription.started.is_set():
                continue
            if not subscription.put(chunk.selected(subscription.selection), reached):
                self._observer.event_stream_cut()
                log.info("event_stream_cut", holder=subscription.holder, queued=MAX_QUEUED)

    def _forget(self) -> None:
        self._cursor = None
        self._recent.clear()

    def _close_all(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
