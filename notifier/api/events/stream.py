"""The answer that is a stream of events (server-sent events)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from notifier.api.events.encoding import comment_of, frame_of
from notifier.api.http.server_sent_events import COMMENT_INTERVAL_S, ServerSentEvents
from notifier.domain.errors import Overloaded, StoreUnavailable
from notifier.lifecycle import Clock, uptime_s
from notifier.ports.events import CursorGone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from litestar.types import Receive, Scope, Send

    from notifier.api.auth.access import Principal
    from notifier.api.auth.gate import Gate
    from notifier.api.events.feed import EventFeed, Subscription
    from notifier.domain.event_cursor import EventCursor
    from notifier.domain.events import EventFilter
    from notifier.ports.events import EventReader

CHECK_INTERVAL_S: Final = 1.0
"""How often a stream looks whether its key still holds."""
CATCH_UP_LIMIT: Final = 500


class EventStream:
    """An ASGI app that sends events until its reader leaves, its key is revoked, or the stop.

    `after` is the cursor at which the reader resumes; None: it gets what happens from now on.
    Before it answers, it raises Overloaded if there are too many streams, and StoreUnavailable if
    Postgres does not answer within `deadline_s`.
    """

    def __init__(
        self,
        *,
        feed: EventFeed,
        reader: EventReader,
        gate: Gate,
        principal: Principal,
        selection: EventFilter,
        after: EventCursor | None,
        deadline_s: float,
        clock: Clock = uptime_s,
    ) -> None:
        self._feed = feed
        self._reader = reader
        self._gate = gate
        self._principal = principal
        self._selection = selection
        self._after = after
        self._deadline_s = deadline_s
        self._output = ServerSentEvents(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        holder = self._principal.actor
        with self._feed.subscribed(self._selection, holder, self._after) as subscription:
            await self._wait_for_start(subscription)
            frames = self._frames(subscription)
            await self._output.serve(scope, receive, send, frames, subscription.closed)

    async def _wait_for_start(self, subscription: Subscription) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await subscription.started.wait()
        except TimeoutError as error:
            raise StoreUnavailable("no answer for a stream of events") from error
        if subscription.start is None:
            raise Overloaded("this process stops")

    async def _frames(self, subscription: Subscription) -> AsyncIterator[Iterable[bytes]]:
        """Yield what was missed, then what happens. The first frame says where the reader is."""
        yield [comment_of(self._after or subscription.start)]
        async for frames in self._missed(subscription):
            yield frames
        while self._is_allowed():
            fed = await subscription.take(CHECK_INTERVAL_S)
            if fed:
                yield [each.frame for each in fed]
            elif subscription.closed.is_set():
                return
            elif self._output.quiet_s() >= COMMENT_INTERVAL_S:
                yield [comment_of(subscription.reached)]

    async def _missed(self, subscription: Subscription) -> AsyncIterator[Iterable[bytes]]:
        """Yield what is between the reader and the start of the subscription, and no more.

        The ids that follow say then exactly what the reader has.
        """
        cursor, start = self._after, subscription.start
        while cursor is not None and cursor != start:
            page = await self._reader.read(cursor, CATCH_UP_LIMIT, self._selection, until=start)
            if isinstance(page, CursorGone) or not self._is_allowed():
                subscription.close()
                return
            cursor = page.cursor
            if page.events:
                yield [frame_of(read) for read in page.events]
            elif self._output.quiet_s() >= COMMENT_INTERVAL_S:
                yield [comment_of(cursor)]

    def _is_allowed(self) -> bool:
        return self._gate.still_admits(self._principal)
