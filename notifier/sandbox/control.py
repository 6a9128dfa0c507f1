"""The sandbox's own paths: its log of calls, its behaviour, and the alerts it was told of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import msgspec
from aiohttp import web

from notifier.sandbox.alerts import AlertLog
from notifier.sandbox.behaviour import CHANNELS, InvalidBehaviour
from notifier.sandbox.calls import Call, Wanted
from notifier.sandbox.fake_provider import FakeProvider

_PAGE: Final = 5000  # calls encoded at once, between two turns of the loop
_FILTERS: Final = frozenset({"notification_id", "channel", "since", "after", "limit"})


def add_control_routes(app: web.Application, desk: FakeProvider) -> None:
    """Serve `/calls`, `/calls/summary` and `/behaviour`."""

    async def read_calls(request: web.Request) -> web.StreamResponse:
        try:
            wanted = _wanted(request)
        except InvalidBehaviour as error:
            return _problem(error)
        return await _stream(request, desk.log.select(wanted), len(desk.log))

    async def read_summary(_request: web.Request) -> web.StreamResponse:
        return _json(await desk.log.summary())

    async def clear_calls(_request: web.Request) -> web.StreamResponse:
        desk.log.clear()
        return web.Response(status=204)

    async def read_behaviour(_request: web.Request) -> web.StreamResponse:
        return _json(desk.behaviours.all())

    async def put_behaviour(request: web.Request) -> web.StreamResponse:
        try:
            desk.behaviours.put(await request.read())
        except InvalidBehaviour as error:
            return _problem(error)
        return _json(desk.behaviours.all())

    app.router.add_get("/calls", read_calls)
    app.router.add_get("/calls/summary", read_summary)
    app.router.add_delete("/calls", clear_calls)
    app.router.add_get("/behaviour", read_behaviour)
    app.router.add_put("/behaviour", put_behaviour)


def add_alert_routes(app: web.Application) -> None:
    """Serve `/alerts`, where Alertmanager's webhook may point."""
    log = AlertLog()

    async def take_alerts(request: web.Request) -> web.StreamResponse:
        try:
            log.take(await request.read())
        except InvalidBehaviour as error:
            return _problem(error)
        return web.Response(status=204)

    async def read_alerts(_request: web.Request) -> web.StreamResponse:
        return _json(log.all())

    app.router.add_post("/alerts", take_alerts)
    app.router.add_get("/alerts", read_alerts)


async def _stream(request: web.Request, calls: Iterator[Call], total: int) -> web.StreamResponse:
    """A JSON list, page by page. `Total-Calls` is the length of the log, a good next `after`."""
    response = web.StreamResponse(headers={"Total-Calls": str(total)})
    response.content_type = "application/json"
    await response.prepare(request)
    separator = b"["
    while page := list(islice(calls, _PAGE)):
        await response.write(separator + msgspec.json.encode(page)[1:-1])
        separator = b","
    await response.write_eof(b"[]" if separator == b"[" else b"]")
    return response


def _wanted(request: web.Request) -> Wanted:
    query = request.query
    for name in query:
        if name not in _FILTERS:
            raise InvalidBehaviour(name, f"expected one of {', '.join(sorted(_FILTERS))}")
    channel = query.get("channel")
    if channel is not None and channel not in CHANNELS:
        raise InvalidBehaviour("channel", f"expected one of {', '.join(CHANNELS)}")
    return Wanted(
        notification_id=query.get("notification_id"),
        channel=channel,
        since=_instant(query["since"]) if "since" in query else None,
        after=_number(query["after"], "after") if "after" in query else 0,
        limit=_number(query["limit"], "limit") if "limit" in query else None,
    )


def _number(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004 digits
        raise InvalidBehaviour(field, "expected a number of calls, 0 or more")
    return int(text)


def _instant(text: str) -> datetime:
    """An ISO 8601 instant, UTC unless it says otherwise, or seconds since the epoch."""
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a + in a query reads as a space
    except ValueError:
        pass
    else:
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidBehaviour("since", "expected an instant like 2030-01-31T12:00:00Z") from error


def _problem(error: InvalidBehaviour) -> web.Response:
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
