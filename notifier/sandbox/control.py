"""The control paths of the sandbox: the call log, the behaviour, and the received alerts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import msgspec
from aiohttp import web

from notifier.sandbox.alerts import AlertLog
from notifier.sandbox.behaviour import CHANNELS
from notifier.sandbox.calls import Call, CallFilter
from notifier.sandbox.errors import InvalidRequest
from notifier.sandbox.fake_provider import FakeProvider

_PAGE: Final = 5000
"""Calls that are encoded in one turn of the event loop."""
_PARAMETERS: Final = frozenset({"notification_id", "channel", "since", "after", "limit"})
_MAX_NUMBER_DIGITS: Final = 9


class ControlRoutes:
    """Handlers of `/calls`, `/calls/summary`, `/behaviour` and `/receipts`."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider

    def add_to(self, app: web.Application) -> None:
        """Registers the handlers."""
        app.router.add_get("/calls", self._read_calls)
        app.router.add_get("/calls/summary", self._read_summary)
        app.router.add_delete("/calls", self._clear_calls)
        app.router.add_get("/behaviour", self._read_behaviour)
        app.router.add_put("/behaviour", self._put_behaviour)
        app.router.add_put("/receipts", self._put_receipts)

    async def _read_calls(self, request: web.Request) -> web.StreamResponse:
        try:
            call_filter = _call_filter(request)
        except InvalidRequest as error:
            return _problem(error)
        log = self._provider.log
        return await _stream(request, log.select(call_filter), len(log))

    async def _read_summary(self, _request: web.Request) -> web.StreamResponse:
        return _json(await self._provider.log.summary())

    async def _clear_calls(self, _request: web.Request) -> web.StreamResponse:
        self._provider.log.clear()
        return web.Response(status=204)

    async def _read_behaviour(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._provider.behaviours.all())

    async def _put_behaviour(self, request: web.Request) -> web.StreamResponse:
        try:
            self._provider.behaviours.replace(await request.read())
        except InvalidRequest as error:
            return _problem(error)
        return _json(self._provider.behaviours.all())

    async def _put_receipts(self, request: web.Request) -> web.StreamResponse:
        try:
            self._provider.receipts.replace(await request.read())
        except InvalidRequest as error:
            return _problem(error)
        return web.Response(status=204)


class AlertRoutes:
    """Handlers of `/alerts`, a target for Alertmanager's webhook."""

    def __init__(self) -> None:
        self._log = AlertLog()

    def add_to(self, app: web.Application) -> None:
        """Registers the handlers."""
        app.router.add_post("/alerts", self._receive_alerts)
        app.router.add_get("/alerts", self._read_alerts)

    async def _receive_alerts(self, request: web.Request) -> web.StreamResponse:
        try:
            self._log.add(await request.read())
        except InvalidRequest as error:
            return _problem(error)
        return web.Response(status=204)

    async def _read_alerts(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._log.all())


async def _stream(request: web.Request, calls: Iterator[Call], total: int) -> web.StreamResponse:
    """Sends a JSON list, page by page.

    The header `Total-Calls` is the length of the log: the `after` of the next request.
    """
    response = web.StreamResponse(headers={"Total-Calls": str(total)})
    response.content_type = "application/json"
    await response.prepare(request)
    separator = b"["
    while page := list(islice(calls, _PAGE)):
        await response.write(separator + msgspec.json.encode(page)[1:-1])
        separator = b","
    await response.write_eof(b"[]" if separator == b"[" else b"]")
    return response


def _call_filter(request: web.Request) -> CallFilter:
    query = request.query
    for name in query:
        if name not in _PARAMETERS:
            raise InvalidRequest(name, f"expected one of {', '.join(sorted(_PARAMETERS))}")
    channel = query.get("channel")
    if channel is not None and channel not in CHANNELS:
        raise InvalidRequest("channel", f"expected one of {', '.join(CHANNELS)}")
    return CallFilter(
        notification_id=query.get("notification_id"),
        channel=channel,
        since=_instant(query["since"]) if "since" in query else None,
        after=_number(query["after"], "after") if "after" in query else 0,
        limit=_number(query["limit"], "limit") if "limit" in query else None,
    )


def _number(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_NUMBER_DIGITS):
        raise InvalidRequest(field, "expected a number of calls, 0 or more")
    return int(text)


def _instant(text: str) -> datetime:
    """Parses an ISO 8601 instant, UTC if it has no offset, or seconds since the epoch."""
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a query decodes + as a space
    except ValueError:
        pass
    else:
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidRequest("since", "expected an instant like 2030-01-31T12:00:00Z") from error


def _problem(error: InvalidRequest) -> web.Response:
    problem = {
        "title": "Bad Request",
        "status": 400,
        "field": error.field,
        "detail": str(error),
    }
    return web.Response(
        status=400,
        body=msgspec.json.encode(problem),
        content_type="application/problem+json",
    )


def _json(document: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")
