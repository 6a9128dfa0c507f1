"""Reads events once for all streams of this process.

While there is a stream, Postgres is asked every 100 ms for what was committed since. What one read
finds is shared: an event is encoded once, for however many streams.
"""

from __future__ import annotations

import asyncio
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

POLL_INTERVAL_S: Final = 0.1
MIN_WAIT_S: Final = 0.01
MAX_STREAMS_OF_KEY: Final = 100
MAX_READ: Final = 2000
"""Events of one read."""
MAX_QUEUED: Final = 10_000
"""Events that a stream may lag behind. One that takes them more slowly is cut; it can resume."""

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
    """What one read found. Streams with the same filter share what it selects."""

    def __init__(self, events: Sequence[ReadEvent]) -> None:
        self._events = [FedEvent(read) for read in events]
        self._selected: dict[EventFilter, Sequence[FedEvent]] = {}

    def selected(self, selection: EventFilter) -> Sequence[FedEvent]:
        found = self._selected.get(selection)
        if found is None:
            candidates = self._tagged(selection) if selection.tags else self._events
            found = [each for each in candidates if selection.matches(each.read.event)]
            self._selected[selection] = found
        return found

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


class Subscription(StreamQueue[FedEvent]):
    """What one stream is given. `closed` is set when it gets no more, at a stop or if it is slow.

    `start` is the cursor after which it gets all events; set when `started` is. It has seen all
    that a reader at `after` has, where the stream resumes, which reads what is between them itself.
    """

    def __init__(self, selection: EventFilter, holder: str, after: EventCursor | None) -> None:
        super().__init__()
        self.selection = selection
        self.after = after
        self.holder = holder
        self.start: EventCursor | None = None
        self.reached: EventCursor | None = None
        """Where a stream is that has taken all that was queued."""

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
            self._subscriptions.add(subscription)
            self._observer.event_streams_open(len(self._subscriptions))
            self._wanted.set()
            try:
                yield subscription
            finally:
                self._subscriptions.discard(subscription)
                self._observer.event_streams_open(len(self._subscriptions))

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
            self._cursor = None
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
            self._cursor = None
            self._close_all()
            return True
        self._cursor = page.cursor
        self._unreported += len(page.events)
        self._oldest_at = min([self._oldest_at, *(read.event.at for read in page.events)])
        if page.is_complete and self._unreported:
            lag_s = max(0.0, (page.cursor.at - self._oldest_at).total_seconds())
            self._observer.events_read(self._unreported, lag_s)
            self._unreported, self._oldest_at = 0, _NEVER
        self._give(_Chunk(page.events), page.cursor)
        return page.is_complete

    def _give(self, chunk: _Chunk, reached: EventCursor) -> None:
        for subscription in self._subscriptions:
            if subscription.closed.is_set() or not subscription.started.is_set():
                continue
            if not subscription.put(chunk.selected(subscription.selection), reached):
                self._observer.event_stream_cut()
                log.info("event_stream_cut", holder=subscription.holder, queued=MAX_QUEUED)

    def _close_all(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
