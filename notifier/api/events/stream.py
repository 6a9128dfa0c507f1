"""The answer that is a stream of events (server-sent events)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from notifier.api.events.encoding import comment_of, frame_of
from notifier.api.http.raw_response import added_headers
from notifier.api.http.request_id import HEADER, request_id
from notifier.domain.errors import Overloaded, StoreError, StoreUnavailable
from notifier.lifecycle import Clock, uptime_s
from notifier.ports.events import CursorGone, EventPage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from litestar.types import HTTPResponseStartEvent, Receive, Scope, Send

    from notifier.api.auth.access import Principal
    from notifier.api.auth.gate import Gate
    from notifier.api.events.feed import EventFeed, Subscription
    from notifier.domain.event_cursor import EventCursor
    from notifier.domain.events import EventFilter
    from notifier.ports.events import EventReader

COMMENT_INTERVAL_S: Final = 15.0
CHECK_INTERVAL_S: Final = 1.0
"""How often a stream looks whether its key still holds."""
END_TIMEOUT_S: Final = 1.0
"""How long a stream that is closed may take to send what it sends."""
CATCH_UP_LIMIT: Final = 500
CATCH_UP_WAIT_S: Final = 0.1
MAX_WRITE_BYTES: Final = 64 * 1024
_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


class EventStream:
    """An ASGI app that sends events until its reader leaves, its key is revoked, or the stop.

    `page` is the first one after the cursor at which the reader resumes; None: it gets what happens
    from now on. Before it answers, it raises Overloaded if there are too many streams, and
    StoreUnavailable if Postgres does not answer within `deadline_s`.
    """

    def __init__(
        self,
        *,
        feed: EventFeed,
        reader: EventReader,
        gate: Gate,
        principal: Principal,
        selection: EventFilter,
        page: EventPage | None,
        deadline_s: float,
        clock: Clock = uptime_s,
    ) -> None:
        self._feed = feed
        self._reader = reader
        self._gate = gate
        self._principal = principal
        self._selection = selection
        self._page = page
        self._deadline_s = deadline_s
        self._clock = clock
        self._sent_at = clock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._feed.subscribed(self._selection, self._principal.actor) as subscription:
            await self._wait_for_start(subscription)
            start: HTTPResponseStartEvent = {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    *_HEADERS,
                    *added_headers(scope),
                    (HEADER.lower().encode(), request_id(scope).encode()),
                ],
            }
            await send(start)
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(subscription, send), name="event stream")
                leaving = group.create_task(_until_left(receive), name="event stream reader")
                closing = group.create_task(subscription.closed.wait(), name="event stream end")
                tasks = (writing, leaving, closing)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if closing.done() and not leaving.done():
                    await asyncio.wait({writing}, timeout=END_TIMEOUT_S)
                for task in tasks:
                    task.cancel()

    async def _wait_for_start(self, subscription: Subscription) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await subscription.started.wait()
        except TimeoutError as error:
            raise StoreUnavailable("no answer for a stream of events") from error
        if subscription.start is None:
            raise Overloaded("this process stops")

    async def _write(self, subscription: Subscription, send: Send) -> None:
        with suppress(StoreError):  # the reader resumes
            async for frames in self._frames(subscription):
                await self._send(send, frames)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _frames(self, subscription: Subscription) -> AsyncIterator[Iterable[bytes]]:
        """Yield what was missed, then what happens. The first frame says where the reader is."""
        seen: EventCursor | None = subscription.start
        if self._page is None:
            yield [comment_of(seen)]
        else:
            yield [comment_of(None)]
            async for frames, reached in self._missed(self._page, subscription):
                yield frames
                seen = reached
        while self._is_allowed():
            fed = await subscription.take(CHECK_INTERVAL_S)
            if fed:
                yield [
                    each.frame
                    for each in fed
                    if seen is None or not seen.sees(each.read.transaction)
                ]
            elif subscription.closed.is_set():
                return
            elif self._clock() - self._sent_at >= COMMENT_INTERVAL_S:
                present = subscription.reached
                is_ahead = present is not None and (seen is None or present.covers(seen))
                yield [comment_of(present if is_ahead else None)]

    async def _missed(
        self, page: EventPage, subscription: Subscription
    ) -> AsyncIterator[tuple[Iterable[bytes], EventCursor]]:
        """Yield pages until they have all that was before the subscription."""
        while True:
            yield [frame_of(read) for read in page.events], page.cursor
            start = subscription.start
            if page.is_complete and start is not None and page.cursor.covers(start):
                return
            if page.is_complete:
                await asyncio.sleep(CATCH_UP_WAIT_S)
            following = await self._reader.read(page.cursor, CATCH_UP_LIMIT, self._selection)
            if isinstance(following, CursorGone) or not self._is_allowed():
                subscription.close()
                return
            page = following

    def _is_allowed(self) -> bool:
        return self._gate.still_admits(self._principal)

    async def _send(self, send: Send, frames: Iterable[bytes]) -> None:
        """Write frames in pieces of a bounded size."""
        piece = bytearray()
        for frame in frames:
            piece += frame
            if len(piece) >= MAX_WRITE_BYTES:
                await self._send_piece(send, bytes(piece))
                piece.clear()
        if piece:
            await self._send_piece(send, bytes(piece))

    async def _send_piece(self, send: Send, piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        self._sent_at = self._clock()


async def _until_left(receive: Receive) -> None:
    """Wait until the reader has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
