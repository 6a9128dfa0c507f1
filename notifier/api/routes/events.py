"""`/v1/events` and `/v1/logs`: what happened, as pages, lines or a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of, seen_by
from notifier.api.auth.gate import Gate
from notifier.api.events.documents import Event, EventPage
from notifier.api.events.encoding import line_of
from notifier.api.events.feed import EventFeed
from notifier.api.events.stream import EventStream
from notifier.api.http.deadline import deadline
from notifier.api.http.pages import NEXT_CURSOR
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.query import DEFAULT_LIMIT, EventQuery
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.http.server_sent_events import STREAM, stream_head
from notifier.api.rules import ApiRules
from notifier.domain.errors import InvalidNotification
from notifier.domain.event_cursor import EventCursor, decode_cursor, encode_cursor
from notifier.domain.events import EventFilter
from notifier.ports import events
from notifier.ports.events import CursorGone, EventReader
from notifier.ports.queries import Filter

EVENTS: Final = "/v1/events"
LOGS: Final = "/v1/logs"
EVENT_FILTERS: Final = ("tenant", "mode", "type", "channel", "priority", "tag", "notification")
EVENT_PARAMETERS: Final = (*EVENT_FILTERS, "cursor", "from", "limit")
LOG_PARAMETERS: Final = (*EVENT_FILTERS, "limit")
LAST_EVENT_ID: Final = "last-event-id"
TEXT: Final = "text/plain"
_LINES: Final = (b"content-type", b"text/plain; charset=utf-8")
_VARY: Final = (b"vary", b"Accept")


class EventSources(NamedTuple):
    """Where events are read: pages and what a stream has missed; and what streams share."""

    reader: EventReader
    feed: EventFeed


class EventRoutes:
    """Handlers of `/v1/events` and `/v1/logs`. Without sources, events are switched off."""

    def __init__(self, *, sources: EventSources | None, rules: ApiRules, gate: Gate) -> None:
        self._sources = sources
        self._gate = gate
        self._deadline_s = rules.request_deadline_s
        self._pages = EventQuery(rules.submit_channels, "cursor", "from")
        self._logs = EventQuery(rules.submit_channels)

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        reader, _ = self._present()
        values = self._pages.parse(request)
        selection = _selection(request, values)
        accepted = _accepted(request)
        if accepted == STREAM:
            return await self._stream(request, selection, _cursor(request, values))
        limit = values.get("limit", DEFAULT_LIMIT)
        async with deadline(self._deadline_s):
            cursor = values.get("cursor")
            if cursor is None:
                cursor = await reader.since(_from(values))
            page = await _read(reader, cursor, limit, selection)
        found, next_cursor = [read.event for read in page.events], encode_cursor(page.cursor)
        if accepted == TEXT:
            following = (NEXT_CURSOR.lower().encode(), next_cursor.encode())
            return _lines(map(line_of, map(Event.of, found)), following)
        return json_response(
            EventPage(list(map(Event.of, found)), next_cursor, not page.is_complete),
            headers=(_VARY,),
        )

    async def read_logs(self, request: Request[Any, Any, Any]) -> ASGIApp:
        reader, _ = self._present()
        values = self._logs.parse(request)
        selection = _selection(request, values)
        async with deadline(self._deadline_s):
            found = await reader.last(values.get("limit", DEFAULT_LIMIT), selection)
        return _lines(map(line_of, map(Event.of, found)))

    async def _stream(
        self,
        request: Request[Any, Any, Any],
        selection: EventFilter,
        cursor: EventCursor | datetime | None,
    ) -> ASGIApp:
        if request.method == "HEAD":
            return stream_head((_VARY,))
        reader, feed = self._present()
        async with deadline(self._deadline_s):
            if isinstance(cursor, datetime):
                cursor = await reader.since(cursor)
            if cursor is not None and not await reader.is_kept(cursor):
                raise _gone()
        return EventStream(
            feed=feed,
            reader=reader,
            gate=self._gate,
            principal=principal_of(request.scope),
            selection=selection,
            after=cursor,
            deadline_s=self._deadline_s,
        )

    def _present(self) -> EventSources:
        if self._sources is None:
            detail = "There are no events: events.enabled is false in the settings."
            raise RequestRefused(ProblemType.NOT_FOUND.problem(detail))
        return self._sources


def _selection(request: Request[Any, Any, Any], values: Mapping[str, Any]) -> EventFilter:
    asked = Filter(tenant=values.get("tenant"), mode=values.get("mode"))
    view = seen_by(principal_of(request.scope), asked).view
    return EventFilter(
        mode=view.mode,
        tenant=view.tenant,
        types=frozenset(values.get("type", ())),
        channels=frozenset(values.get("channel", ())),
        priorities=frozenset(values.get("priority", ())),
        tags=frozenset(values.get("tag", ())),
        notifications=frozenset(values.get("notification", ())),
    )


def _cursor(
    request: Request[Any, Any, Any], values: Mapping[str, Any]
) -> EventCursor | datetime | None:
    """Returns where a stream begins: a reader that was cut off names the last id that it has."""
    last = request.headers.get(LAST_EVENT_ID)
    if last:
        try:
            return decode_cursor(last)
        except ValueError as error:
            raise InvalidNotification("Last-Event-ID", "the id of an event of a stream") from error
    cursor: EventCursor | None = values.get("cursor")
    return _from(values) if cursor is None else cursor


def _from(values: Mapping[str, Any]) -> datetime | None:
    return datetime.fromtimestamp(values["from"], UTC) if "from" in values else None


async def _read(
    reader: EventReader, cursor: EventCursor, limit: int, selection: EventFilter
) -> events.EventPage:
    page = await reader.read(cursor, limit, selection)
    if isinstance(page, CursorGone):
        raise _gone()
    return page


def _gone() -> RequestRefused:
    detail = "Events after this cursor may have been dropped, or Postgres was restored."
    return RequestRefused(ProblemType.CURSOR_GONE.problem(detail))


def _accepted(request: Request[Any, Any, Any]) -> str:
    """Returns the first type of the header Accept that a page of events has; JSON without one."""
    for part in request.headers.get("accept", "").split(","):
        name = part.partition(";")[0].strip().lower()
        if name in {STREAM, TEXT}:
            return name
    return ""


def _lines(lines: Iterable[str], *headers: tuple[bytes, bytes]) -> RawResponse:
    body = "".join(f"{line}\n" for line in lines).encode()
    return RawResponse(200, body, (_LINES, _VARY, *headers))
