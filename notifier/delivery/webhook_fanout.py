"""Turns events into calls of webhooks: each event once for each webhook that wants it.

One process at a time does it. The calls are stored and the cursor is moved in one transaction, and
the id of a call follows from event and webhook, so that it may be repeated at any point.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from notifier.domain.errors import StoreError
from notifier.domain.event_cursor import decode_cursor, encode_cursor
from notifier.domain.turns import turn_of
from notifier.domain.webhooks import MAX_WAITING, OF_DEPLOYMENT, call_id, call_of
from notifier.ports.events import CursorGone
from notifier.ports.store import NO_TURNS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from notifier.domain.event_cursor import EventCursor
    from notifier.domain.notification import NewNotification, NotificationId
    from notifier.domain.tenants import TenantId
    from notifier.domain.webhooks import Webhook
    from notifier.lifecycle import Clock
    from notifier.ports.events import EventPage, EventReader
    from notifier.ports.observer import WebhookObserver
    from notifier.ports.webhooks import EventEncoder, FanoutStore

FANOUT_INTERVAL_S: Final = 0.2
TAKE_INTERVAL_S: Final = 2.0
"""How often a process asks whether there are webhooks, and whether it is its turn."""
HOLD_S: Final = 10.0
"""After the death of the process that does it another one begins after this time."""
MAX_READ: Final = 250
"""Events of one transaction. With 20 webhooks these are 5,000 calls."""
MAX_PAGES: Final = 20
"""Pages of one run: the loop ends now and then, and sees a stop."""
COUNT_INTERVAL_S: Final = 60.0
SAVE_INTERVAL_S: Final = 5.0
_MARGIN: Final = timedelta(seconds=5)
"""How much earlier than the last event that was seen one begins after a restore of Postgres."""

log = structlog.get_logger(__name__)


class _Calls(NamedTuple):
    """The calls of a page, their turns, and the notifications whose recipients they name."""

    items: Sequence[NewNotification]
    turns: Mapping[NotificationId, int]
    named: Collection[NotificationId]


class WebhookFanout:
    """Implements lifecycle.RepeatedTask. `ttl` is for how long a call is tried."""

    def __init__(
        self,
        *,
        store: FanoutStore,
        reader: EventReader,
        encoder: EventEncoder,
        observer: WebhookObserver,
        clock: Clock,
        ttl: timedelta,
        most_waiting: int = MAX_WAITING,
    ) -> None:
        self._store = store
        self._reader = reader
        self._encoder = encoder
        self._observer = observer
        self._clock = clock
        self._ttl = ttl
        self._most_waiting = most_waiting
        self._held_until = self._asked_at = self._saved_at = self._counted_at = float("-inf")
        self._is_shared = False
        self._stored: str | None = None
        self._cursor: EventCursor | None = None

    async def run_once(self) -> None:
        """Turn the events that were committed until now into calls; a failure is logged."""
        try:
            if await self._may_run():
                for _ in range(MAX_PAGES):
                    if await self._run_page():
                        break
                await self._expire_surplus()
        except StoreError as error:
            self._lose()
            log.warning("webhook_fanout_failed", reason=str(error))

    async def release(self) -> None:
        """Let another process begin at once."""
        if self._clock() < self._held_until:
            self._lose()
            try:
                await self._store.release()
            except StoreError as error:
                log.debug("webhook_fanout_kept", reason=str(error))

    async def _may_run(self) -> bool:
        """Whether there are webhooks and this process has the right. Takes or keeps it."""
        now = self._clock()
        if now < self._held_until - HOLD_S / 2:
            return True
        if now >= self._held_until and now < self._asked_at + TAKE_INTERVAL_S:
            return False
        self._asked_at = now
        state = await self._store.take(HOLD_S)
        if state is None or state.since is None:
            self._lose()
            if state is not None:  # calls of webhooks that were deleted may wait
                await self._expire_surplus()
            return False
        self._held_until = now + HOLD_S
        self._is_shared = state.is_shared
        if self._cursor is None or state.cursor != self._stored:
            self._stored = state.cursor
            self._cursor = await self._begin(state.cursor, state.since)
        return True

    async def _begin(self, stored: str | None, since: datetime) -> EventCursor:
        """Return where to continue: at what is stored, if it is a cursor of this version."""
        if stored is not None:
            try:
                return decode_cursor(stored)
            except ValueError:
                log.warning("webhook_cursor_unreadable")
        return await self._reader.since(since)

    async def _run_page(self) -> bool:
        """Turn one page into calls; returns whether that was all."""
        cursor = self._cursor
        if cursor is None:
            return True
        page = await self._reader.read(cursor, MAX_READ)
        if isinstance(page, CursorGone):
            # Calls that are stored already are left out: their ids follow from the events.
            log.warning("webhook_cursor_gone", at=cursor.at.isoformat())
            self._cursor = await self._reader.since(cursor.at - _MARGIN)
            return False
        calls = await self._calls(page)
        now = self._clock()
        if calls.items or now >= self._saved_at + SAVE_INTERVAL_S:
            text = encode_cursor(page.cursor)
            stored = await self._store.advance(
                self._stored, text, calls.items, turns=calls.turns, named=calls.named
            )
            if stored is None:
                self._lose()
                return True
            self._stored, self._saved_at = text, now
            self._observer.webhook_calls_stored(stored)
        self._cursor = page.cursor
        first = min((each.event.at for each in page.events), default=page.read_at)
        self._observer.webhook_lag(max(0.0, (page.read_at - first).total_seconds()))
        return page.is_complete

    async def _calls(self, page: EventPage) -> _Calls:
        calls: list[NewNotification] = []
        named: set[NotificationId] = set()
        # Read after the events: a webhook that was made before an event is seen.
        by_tenant = await self._enabled(page)
        for read in page.events:
            event = read.event
            wanted = [webhook for webhook in by_tenant[event.tenant] if webhook.wants(event)]
            if not wanted:
                continue
            document = self._encoder.encode(event)
            shown = event.notification
            if shown is not None and shown.recipient:
                named.add(shown.id)
            calls += [
                call_of(
                    webhook.id,
                    webhook.scope,
                    call_id(event.id, webhook.id, event.at),
                    document,
                    self._ttl,
                    of=None if shown is None else shown.id,
                )
                for webhook in wanted
            ]
        turns = {call.id: turn_of(call.tenant) for call in calls if call.tenant != OF_DEPLOYMENT}
        return _Calls(calls, turns if self._is_shared else NO_TURNS, named)

    async def _enabled(self, page: EventPage) -> Mapping[TenantId | None, Sequence[Webhook]]:
        """Return the webhooks that may want the events of a page."""
        found: defaultdict[TenantId | None, list[Webhook]] = defaultdict(list)
        if tenants := {read.event.tenant for read in page.events}:
            for webhook in await self._store.enabled(tenants):
                found[webhook.scope.tenant].append(webhook)
        return found

    async def _expire_surplus(self) -> None:
        now = self._clock()
        if now < self._counted_at + COUNT_INTERVAL_S:
            return
        self._counted_at = now
        expired = await self._store.expire_surplus(self._most_waiting)
        if expired:
            self._observer.webhook_calls_expired(expired)
            log.warning("webhook_calls_expired", calls=expired, most_waiting=self._most_waiting)

    def _lose(self) -> None:
        if self._cursor is not None:
            self._observer.webhook_lag(0.0)
        self._held_until = float("-inf")
        self._cursor = None
