"""POST: one notification, or many. What is answered 202 is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from notifier.api.http.body import Bound, read_json
from notifier.api.http.in_flight_limit import Gate
from notifier.api.http.problems import Kind, Refusal, refusal_of
from notifier.api.http.raw_response import json_response
from notifier.api.responses import Accepted, BatchRefusal, BatchResponse
from notifier.api.settings import ApiSettings
from notifier.api.submission.batch_split import Splitter
from notifier.api.submission.validation import Submits
from notifier.domain.errors import InvalidNotification, StoreRejected
from notifier.domain.notification import NewNotification, Status
from notifier.ports.acceptor import Acceptor

NOTIFICATIONS: Final = "/v1/notifications"
BATCH: Final = "/v1/notifications/batch"
_TURN_S: Final = 0.01
"""How long items of a batch are read before other requests get their turn."""

_Item = NewNotification | BatchRefusal


def submit_handlers(*, acceptor: Acceptor, settings: ApiSettings) -> Sequence[HTTPRouteHandler]:
    """Make the handlers that take notifications in."""
    submits, splitter = Submits(settings), Splitter(settings)
    singles, batches = Gate(settings.max_in_flight), Gate(settings.max_batches_in_flight)
    within_s, told = settings.body_deadline_s, settings.bounds
    one = Bound(most=settings.max_body_bytes, within_s=within_s, detail=told)
    many = Bound(most=settings.max_batch_bytes, within_s=within_s, detail=told)

    @post(NOTIFICATIONS, status_code=202)
    async def submit(request: Request[Any, Any, Any]) -> ASGIApp:
        with singles:
            body = await read_json(request, one)
            new = submits.read(body)
            (status,) = await acceptor.submit([new])
        if isinstance(status, StoreRejected):
            raise status
        location = f"{NOTIFICATIONS}/{new.id}".encode()
        return json_response(_accepted(new, status), status=202, headers=[(b"location", location)])

    @post(BATCH, status_code=202)
    async def submit_batch(request: Request[Any, Any, Any]) -> ASGIApp:
        with batches:
            body = await read_json(request, many)
            items = await _read_items(submits, splitter.split(body), one)
            results = await _submit_items(acceptor, items)
        return _answer_batch(results)

    return [submit, submit_batch]


async def _read_items(submits: Submits, raws: Sequence[bytes], bound: Bound) -> list[_Item]:
    time = asyncio.get_running_loop().time
    items: list[_Item] = []
    until = time() + _TURN_S
    for raw in raws:
        items.append(_read_item(submits, raw, bound))
        if time() > until:
            await asyncio.sleep(0)
            until = time() + _TURN_S
    return items


def _read_item(submits: Submits, raw: bytes, bound: Bound) -> _Item:
    try:
        if len(raw) > bound.most:
            raise bound.too_large()
        return submits.read(raw)
    except (InvalidNotification, Refusal) as error:
        return refusal_of(error)


async def _submit_items(
    acceptor: Acceptor, items: Sequence[_Item]
) -> list[Accepted | BatchRefusal]:
    good = [item for item in items if isinstance(item, NewNotification)]
    statuses = iter(await acceptor.submit(good) if good else ())
    return [
        item if isinstance(item, BatchRefusal) else _result(item, next(statuses)) for item in items
    ]


def _result(new: NewNotification, status: Status | StoreRejected) -> Accepted | BatchRefusal:
    return refusal_of(status) if isinstance(status, StoreRejected) else _accepted(new, status)


def _answer_batch(results: Sequence[Accepted | BatchRefusal]) -> ASGIApp:
    refused = [result for result in results if isinstance(result, BatchRefusal)]
    if len(refused) < len(results):
        return json_response(BatchResponse(results), status=202)
    problem = Kind.NOTHING_ACCEPTED.problem("Every item has its own problem in `results`.")
    raise Refusal(msgspec.structs.replace(problem, results=refused))


def _accepted(new: NewNotification, status: Status) -> Accepted:
    return Accepted(id=new.id, status=status, queue=str(new.queue))
