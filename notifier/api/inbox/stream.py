"""The answer that is a stream of what happens in an inbox."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from notifier.api.http.server_sent_events import (
    COMMENT,
    COMMENT_INTERVAL_S,
    ServerSentEvents,
)
from notifier.domain.errors import Overloaded, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from litestar.types import Receive, Scope, Send

    from notifier.api.auth.access import Principal
    from notifier.api.auth.gate import Gate
    from notifier.api.inbox.feed import InboxFeed, InboxSubscription
    from notifier.domain.inbox import Inbox

CHECK_INTERVAL_S: Final = 1.0
"""How often a stream looks whether its key or token still holds."""
MAX_STREAMS_OF_KEY: Final = 100
MAX_STREAMS_OF_USER: Final = 10


class InboxStream:
    """An ASGI app that sends events until its reader leaves, its key or token ends, or the stop.

    It sends what happens after its first bytes; who connects again reads the inbox once more.
    Before it answers, it raises Overloaded if there are too many streams, and StoreUnavailable if
    Postgres does not answer within `deadline_s`.
    """

    def __init__(
        self,
        *,
        feed: InboxFeed,
        gate: Gate,
        principal: Principal,
        inbox: Inbox,
        deadline_s: float,
    ) -> None:
        self._feed = feed
        self._gate = gate
        self._principal = principal
        self._inbox = inbox
        self._deadline_s = deadline_s
        self._output = ServerSentEvents()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_user = self._principal.token is not None
        holder = self._inbox if is_user else self._principal.actor
        most = MAX_STREAMS_OF_USER if is_user else MAX_STREAMS_OF_KEY
        with self._feed.subscribed(self._inbox, holder, most) as subscription:
            await self._wait_for_start(subscription)
            frames = self._frames(subscription)
            await self._output.serve(scope, receive, send, frames, subscription.closed)

    async def _wait_for_start(self, subscription: InboxSubscription) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await subscription.started.wait()
        except TimeoutError as error:
            raise StoreUnavailable("no answer for a stream of an inbox") from error
        if subscription.closed.is_set():
            raise Overloaded("this process stops")

    async def _frames(self, subscription: InboxSubscription) -> AsyncIterator[Iterable[bytes]]:
        yield [COMMENT]
        while self._gate.still_admits(self._principal):
            if frames := await subscription.take(CHECK_INTERVAL_S):
                yield frames
            elif subscription.closed.is_set():
                return
            elif self._output.quiet_s() >= COMMENT_INTERVAL_S:
                yield [COMMENT]
